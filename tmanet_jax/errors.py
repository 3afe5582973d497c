"""The one error that is for the person at the keyboard."""


class UserError(Exception):
    """Bad input: the message says what was expected, what was found, where, and what to do.

    Command lines print the message alone, without a trace, and exit with status 2.
    """
