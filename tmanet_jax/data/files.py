"""Files and folders: written whole, or why not; locked; hidden from readers."""

import contextlib
import csv
import errno
import fcntl
import io
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tmanet_jax.errors import UserError

_FULL = "The disk is full, or your share of it: make room"
_IN_THE_WAY = "Something else has this name: move it away, or choose another"
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "The file system, or a limit (ulimit -f), allows no file of this size",
    errno.EROFS: "Choose a place that can be written",
    errno.EACCES: "Choose a place that you may write to",
    errno.EPERM: "Choose a place that you may write to",
    errno.EEXIST: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EISDIR: _IN_THE_WAY,
    errno.ENOENT: "The folder was removed, or cannot be made",
    errno.ENAMETOOLONG: "Choose a shorter name",
}

_LEFT_BY_SYSTEMS = {
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini"),
    *("@eadir", "$recycle.bin", "system volume information"),
}


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """The rows as a table of comma-separated values."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


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


@contextlib.contextmanager
def folder_in_place(output: Path) -> Iterator[Path]:
    """A folder beside the output, which takes its name when all is well, and else leaves no trace.

    Raises:
        UserError: the output is there already, or cannot be written.
    """
    if output.exists():
        raise UserError(f"{output} is there already: remove it, or choose another folder.")
    unfinished = output.with_name(f".{output.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        yield unfinished
        unfinished.rename(output)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {why_not_written(error)}.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def why_not_written(error: Exception) -> str:
    """What an error of writing says, and what to do: one line without a full stop.

    ArrayRecord and tensorstore raise RuntimeError and ValueError with the system's words in them.
    """
    text = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    advice = (told for number, told in _ADVICE.items() if os.strerror(number) in text)
    return ". ".join([text, *advice][:2])


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
