"""The one error that a user's input can cause, and the one warning."""


class InputError(ValueError):
    """Bad input: one line that says what was expected, what came and what to do.

    The command line prints it and exits with code 2; Python callers catch it as a ``ValueError``.
    """


class InputWarning(UserWarning):
    """Input that was worked with, and does not seem to fit: one line, told before the search.

    Results hold it too (`ScanResult.warnings`); the command line prints it. Where a repair is cut
    short, one tells the verdict of the scan before it, which has no result to stand in.
    """
