"""The one error that is for the person at the keyboard."""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

_P = ParamSpec("_P")


class UserError(Exception):
    """Bad input: the message says what was expected, what was found, where, and what to do.

    Command lines print the message alone, without a trace, and exit with status 2.
    """


def ends_with_message(main: Callable[_P, int]) -> Callable[_P, int]:
    """Makes the main function of a program print a UserError's message alone, and return 2."""

    @functools.wraps(main)
    def told(*args: _P.args, **kwargs: _P.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except UserError as error:
            print(error, file=sys.stderr)
            return 2

    return told
