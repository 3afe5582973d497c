"""Being told to stop in the middle of work that the same command goes on with."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from tmanet_jax.errors import Stopped


@contextlib.contextmanager
def stops_with(message: str) -> Iterator[None]:
    """Makes Ctrl-C, and in the main thread SIGTERM, a Stopped that says this."""
    received = signal.SIGINT

    def interrupt(number: int, frame: FrameType | None) -> None:
        del frame
        nonlocal received
        received = signal.Signals(number)
        raise KeyboardInterrupt  # cleans up wherever the work is, as Ctrl-C does

    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, interrupt) if is_main else None
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(message, received) from None
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, before)
