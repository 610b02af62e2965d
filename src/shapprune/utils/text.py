"""Strangers' text in our messages: short, printable and in one line."""

import difflib
from collections.abc import Iterable, Sequence


def printable(text: str, limit: int = 240) -> str:
    """``text`` on one line of at most ``limit`` characters, without control characters.

    Names and messages that come out of a stranger's file reach a terminal through here.

    >>> printable("two\\n lines \\x1b[31m")
    'two lines ?[31m'
    """
    text = text[: 20 * limit]  # a name can be as long as its file
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def describe(error: BaseException) -> str:
    """The type and message of an exception on one line.

    >>> describe(ValueError("too\\n small"))
    'ValueError: too small'
    """
    return printable(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def quote(name: str) -> str:
    """A stranger's name in quotes, printable and short."""
    return f"'{printable(name, 80)}'"


def quote_value(value: object) -> str:
    """A stranger's value in quotes, whatever it is.

    >>> quote_value([1, 2]), quote_value(10**5000)
    ("'[1, 2]'", "'a value too long to be told'")
    """
    try:
        return quote(str(value))
    except (ValueError, RecursionError):  # thousands of digits, or of lists in each other
        return quote("a value too long to be told")


def list_names(names: Sequence[str]) -> str:
    """The first three names.

    >>> list_names(["a", "b", "c", "d"])
    "'a', 'b', 'c', …"
    """
    return ", ".join(map(quote, names[:3])) + (", …" if len(names) > 3 else "")


def suggest(name: str, known: Iterable[str]) -> str:
    """What a name that is not known may have been meant to be, in words that follow it.

    >>> suggest("ResNet8", ["resnet18", "vgg11"]), suggest("alexnet", ["vgg11"])
    (": did you mean 'resnet18'?", '')
    """
    spelt = {one.casefold(): one for one in known}
    close = difflib.get_close_matches(name.casefold(), spelt, n=3)
    return f": did you mean {' or '.join(quote(spelt[one]) for one in close)}?" if close else ""
