"""Shows the newest overlay in a browser of this machine: MJPEG, the legend, frames a second.

Who segments waits for nobody: a browser gets the newest frame when it is done with the one before.
"""

import collections
import contextlib
import errno
import functools
import http.server
import json
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2

from tmanet_jax.errors import UserError
from tmanet_jax.inference.results import FrameResult
from tmanet_jax.pictures import visible

_ADDRESS = "127.0.0.1"
_HOSTS = (_ADDRESS, "localhost")
_PAGE = Path(__file__).with_name("live_page.html")
_PATIENCE_S = 10
"""How long a browser may take nothing, or gets nothing."""
_RATE_OVER = 30
"""Frames."""
_POLICY = (
    "default-src 'none'; img-src 'self' data:; connect-src 'self'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)


class _Shown:
    """A frame that is shown, encoded when the first reader asks for it."""

    def __init__(self, number: int, result: FrameResult):
        self.number, self.result = number, result

    @functools.cached_property
    def jpeg(self) -> bytes:
        _, content = cv2.imencode(".jpg", self.result.overlay[:, :, ::-1])
        return content.tobytes()


class LiveView:
    """The newest frame, which any number of threads read; an output that wants every frame."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._newest: _Shown | None = None
        self._times: collections.deque[float] = collections.deque(maxlen=_RATE_OVER)
        self._is_over = False

    def wants(self, index: int) -> bool:
        """Every frame."""
        del index
        return True

    def write(self, result: FrameResult) -> None:
        """Shows a frame in place of the one before."""
        with self._changed:
            number = 0 if self._newest is None else self._newest.number + 1
            self._newest = _Shown(number, result)
            self._times.append(time.monotonic())
            self._changed.notify_all()

    def close(self) -> None:
        """No frame follows."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def after(self, number: int) -> _Shown | None:
        """The newest frame: a later one, or the same again if none comes for a while.

        None: none follows, or none has come yet.
        """

        def later() -> _Shown | None:
            return self._newest if self._newest and self._newest.number > number else None

        with self._changed:
            self._changed.wait_for(lambda: self._is_over or later(), _PATIENCE_S)
            return later() if self._is_over else self._newest

    def state(self) -> dict[str, Any]:
        """What the page says beside the picture."""
        with self._changed:
            newest, times = self._newest, list(self._times)
        if newest is None:
            return {"frame": None, "rate": 0.0, "classes": []}
        classes = newest.result.classes
        shown = visible(newest.result.labels, classes)
        return {
            "frame": newest.result.index,
            "rate": (len(times) - 1) / max(time.monotonic() - times[0], 1e-3),
            "classes": [
                {
                    "name": name,
                    "colour": "#{:02x}{:02x}{:02x}".format(*classes.palette_Cx3[index]),
                    "isShown": index in shown,
                }
                for index, name in enumerate(classes.names)
            ],
        }


@contextlib.contextmanager
def served(port: int) -> Iterator[tuple[LiveView, str]]:
    """Serves a view on this machine alone, and its address; ends with the context.

    Args:
        port: to listen at; 0: one that is free.

    Raises:
        UserError: the port is in use, or needs rights.
    """
    view = LiveView()
    try:
        server = _Server((_ADDRESS, port), functools.partial(_Handler, view))
    except OSError as error:
        is_in_use = error.errno == errno.EADDRINUSE
        reason = "is in use" if is_in_use else f"cannot be used ({error.strerror})"
        raise UserError(
            f"Port {port} of {_ADDRESS} {reason}: choose another --serve, or 0 for a free one."
        ) from error
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    with server:
        thread.start()
        try:
            yield view, f"http://{_ADDRESS}:{server.server_address[1]}/"
        finally:
            view.close()
            server.shutdown()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that vanishes is no matter."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = _PATIENCE_S

    def __init__(self, view: LiveView, *args: Any):
        self._view = view
        super().__init__(*args)

    def do_GET(self) -> None:
        if self.headers.get("Host", "").rsplit(":", 1)[0] not in _HOSTS:
            self.send_error(403, "only for browsers of this machine")  # no page of another name
        elif self.path == "/":
            self._send("text/html; charset=utf-8", _PAGE.read_bytes())
        elif self.path == "/state":
            self._send("application/json", json.dumps(self._view.state()).encode())
        elif self.path == "/frames":
            self._send_frames()
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the terminal is the progress bar's."""

    def _begin(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.end_headers()

    def _send(self, kind: str, content: bytes) -> None:
        self._begin(kind)
        self.wfile.write(content)

    def _send_frames(self) -> None:
        """MJPEG. The boundary comes behind a picture at once: browsers wait for it."""
        self._begin("multipart/x-mixed-replace; boundary=frame")
        self.wfile.write(b"--frame\r\n")
        shown = self._view.after(-1)
        while shown is not None:
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(shown.jpeg)}\r\n\r\n"
            self.wfile.write(head.encode() + shown.jpeg + b"\r\n--frame\r\n")
            shown = self._view.after(shown.number)
