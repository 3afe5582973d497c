"""Files that are never seen half-written, that are locked, and that no reader sees."""

import fcntl
import os
from pathlib import Path

_LEFT_BY_SYSTEMS = {
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini"),
    *("@eadir", "$recycle.bin", "system volume information"),
}


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no data: hidden, or left there by a system.

    macOS leaves `.DS_Store`, `._NAME` and `__MACOSX`, Windows `Thumbs.db` and `desktop.ini`.
    """
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS


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


def lock(descriptor: int) -> bool:
    """Locks an open file or directory until it is closed or this process ends.

    Returns:
        Whether it is locked: some network file systems have no locks.

    Raises:
        BlockingIOError: another process has locked it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True
