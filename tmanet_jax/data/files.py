"""Files that are never seen half-written."""

import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file in place of what is there; one that cannot be finished leaves no trace.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
