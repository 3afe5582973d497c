"""Serves this folder at http://localhost:8000, to this machine alone.

    python serve.py [PORT]

Its headers let the network use threads, and let the page ask no other server for anything.
"""

import http.server
import sys
from functools import partial
from pathlib import Path

HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Content-Security-Policy": (
        "default-src 'self' blob: data: 'unsafe-inline' 'wasm-unsafe-eval'"
    ),
}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder with these headers."""

    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def end_headers(self) -> None:
        """Adds the headers."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()


def server(folder: Path, port: int) -> http.server.ThreadingHTTPServer:
    """Answers this machine alone."""
    return http.server.ThreadingHTTPServer(
        ("127.0.0.1", port), partial(Handler, directory=str(folder))
    )


if __name__ == "__main__":
    word = sys.argv[1] if len(sys.argv) > 1 else "8000"
    if not (word.isascii() and word.isdecimal() and int(word) < 2**16):
        sys.exit(f"PORT is {word!r}: choose a whole number from 1024 to 65535.")
    port = int(word)
    try:
        with server(Path(__file__).parent, port) as running:
            print(f"http://localhost:{running.server_port} (Ctrl-C ends)")
            running.serve_forever()
    except OSError as error:
        sys.exit(f"Port {port}: {error.strerror}. Choose another, from 1024 to 65535.")
    except KeyboardInterrupt:
        pass
