"""How a program ends with a message and no trace: bad input, or told to stop."""

import errno
import functools
import io
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import ParamSpec

from tmanet_jax.program import advice

_P = ParamSpec("_P")


class UserError(Exception):
    """Bad input: the message says what was expected, what was found, where, and what to do.

    Command lines print the message alone, without a trace, and exit with status 2.
    """

    status = 2

    def __str__(self) -> str:
        return advice(super().__str__())


class Stopped(Exception):  # noqa: N818  # no error: it did as it was told
    """A run was told to stop by a signal; the message says where the next start goes on.

    Attributes:
        status: what the process exits with, 128 + the signal's number, as shells report it.
    """

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.status = 128 + signal_number


def counted(number: int, noun: str) -> str:
    """A number of things in words: 1 device, 2 devices, 3 classes."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{'' if number == 1 else plural}"


def abridged(names: Sequence[str], limit: int = 6) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def ends_with_message(main: Callable[_P, int]) -> Callable[_P, int]:
    """Makes a program's main function print how it ended, and return the exit status."""

    @functools.wraps(main)
    def told(*args: _P.args, **kwargs: _P.kwargs) -> int:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # names may be no text
        try:
            return main(*args, **kwargs)
        except (UserError, Stopped) as end:
            print(end, file=sys.stderr)
            return end.status
        except OSError as error:
            if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
                raise
            print(f"{error.filename}: {error.strerror}. Choose another name.", file=sys.stderr)
            return UserError.status
        except ValueError as error:
            if "embedded null" not in str(error):  # of the system, which knows no such names
                raise
            print("A path has a NUL in it. Choose another name.", file=sys.stderr)
            return UserError.status
        except KeyboardInterrupt:
            print("Interrupted.", file=sys.stderr)
            return 128 + signal.SIGINT

    return told


def tell_interrupts() -> None:
    """Ctrl-C ends with a message wherever a program is, also while its libraries are imported."""
    usual = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print("Interrupted.", file=sys.stderr)
        else:
            usual(kind, error, trace)

    sys.excepthook = hook


def quieten_libraries() -> None:
    """When a checkpoint fails, Orbax logs what it raises besides, thread by thread.

    tensorstore's threads then still tell the loop that Orbax closed, which nobody can handle.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    usual = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            usual(unraisable)

    sys.unraisablehook = hook
