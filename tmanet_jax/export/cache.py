"""Exports made on the fly, kept by weights, size, precision and versions up to a limit in bytes."""

import contextlib
import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from tmanet_jax.data.files import why_not_written
from tmanet_jax.errors import UserError

DIRECTORY = Path(os.environ.get("TMANET_EXPORTS") or "~/.cache/tmanet_jax/exports").expanduser()
LIMIT_BYTES = 4 * 2**30
_ENTRIES = f"*_{16 * '[0-9a-f]'}/export.json"
"""Other folders, also exports of other names, are not this cache's to remove."""

_LOGGER = logging.getLogger(__name__)
_Read = TypeVar("_Read")


def kept(name: str, write: Callable[[Path], None], read: Callable[[Path], _Read]) -> _Read:
    """What is read of an entry, which is written where it is missing or cannot be read.

    Entries that were used longest ago go where all together are above the limit. Of several
    processes one is at work here, and the others wait.

    Args:
        name: of the entry, a folder; ends in _ and 16 hexadecimal digits.
        write: makes the folder, whole or not at all; `export.json` is among its files.
        read: its result stays of use when the folder is gone.

    Raises:
        UserError: the entry cannot be written. One that cannot be read stays until another that
            can takes its place.
    """
    with _locked():
        folder = DIRECTORY / name
        if folder.exists():
            try:
                found = read(folder)
            except Exception as error:  # whatever an engine, json or the system says of such files
                why = (str(error).splitlines() or ["-"])[0]
                _LOGGER.warning(f"{folder} is damaged, and is written anew: {why}")
            else:
                os.utime(folder)
                return found
        fresh = folder.with_name(f".{name}.fresh")
        shutil.rmtree(fresh, ignore_errors=True)
        write(fresh)
        found = read(fresh)
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)
        _drop_oldest()
        return found


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    try:
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        with (DIRECTORY / "lock").open("w") as file:
            with contextlib.suppress(OSError):  # some network file systems have no locks
                fcntl.flock(file.fileno(), fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise UserError(
            f"{DIRECTORY} cannot be written: {why_not_written(error)}. TMANET_EXPORTS=DIR names "
            "another folder for exports."
        ) from error


def _drop_oldest() -> None:
    """The newest entry stays, however large it is."""
    folders = [path.parent for path in DIRECTORY.glob(_ENTRIES)]
    folders.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    total = 0
    for index, folder in enumerate(folders):
        total += size_of(folder)
        if index and total > LIMIT_BYTES:
            shutil.rmtree(folder)


def size_of(folder: Path) -> int:
    """Bytes of the files of an export."""
    return sum(path.stat().st_size for path in folder.iterdir())
