"""The one error that a user's input can cause."""


class InputError(ValueError):
    """Bad input: one line that says what was expected, what came and what to do.

    The command line prints it and exits with code 2; Python callers catch it as a ``ValueError``.
    """
