"""One run at a time in a folder."""

import contextlib
import datetime
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import jax
from tqdm import tqdm

from tmanet_jax.data.files import lock
from tmanet_jax.errors import UserError

LOCK_FILE = "run.lock"


@contextlib.contextmanager
def alone_in(folder: Path, option: str) -> Iterator[None]:
    """Keeps other runs out of a folder; the lock ends with this process, however that ends.

    Of several processes of a run, the first one does so.

    Args:
        folder: of the run, made already.
        option: of the command line, which names the folder.

    Raises:
        UserError: another run is at work there; the message names its process.
    """
    if jax.process_index() > 0:
        yield
        return
    with (folder / LOCK_FILE).open("a+") as file:
        try:
            is_locked = lock(file.fileno())
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "a process that has just begun"
            raise UserError(
                f"Another run is at work in {folder}: {owner}. Wait until it ends, stop it, or "
                f"choose another {option}."
            ) from error
        if not is_locked:
            tqdm.write(f"{folder} cannot be locked there: see that no other run uses it.")
        file.truncate(0)
        file.write(
            f"process {os.getpid()} on {socket.gethostname()}, "
            f"since {datetime.datetime.now():%Y-%m-%d %H:%M:%S}\n"
        )
        file.flush()
        yield
