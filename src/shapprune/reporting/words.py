"""Numbers, names and lists in words."""

from collections.abc import Sequence
from math import inf
from typing import Any

from shapprune.utils.text import printable

_MOST_NAMED = 12  # classes that are named in one line
_MOST_DIGITS = 9  # behind the point of a score


def apart(*values: float) -> tuple[str, ...]:
    """Numbers with as few digits as tell those apart that differ.

    >>> apart(9.31, 2.1), apart(2.12, 2.14)
    (('9.3', '2.1'), ('2.12', '2.14'))
    """
    for digits in range(1, _MOST_DIGITS):
        words = tuple(f"{round(value, digits) + 0.0:.{digits}f}" for value in values)
        if len(set(words)) == len(set(values)):
            return words
    return tuple(repr(value) for value in values)


def listed(names: Sequence[str]) -> str:
    """Names in one line; of many the first ones, and how many there are.

    >>> listed(["3", "5"]), listed(["7"] * 40)[-19:]
    ('3, 5', '7, 7, … (40 in all)')
    """
    more = f", … ({len(names)} in all)" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def labels_of(names: Sequence[str] | None, classes: int) -> list[str]:
    """A short name for each class: its number, and its own name where that is known.

    >>> labels_of(["cat", "1"], 2), labels_of(None, 2)
    (['0 “cat”', '1'], ['0', '1'])
    """
    return [
        f"{c} “{printable(names[c], 32)}”" if names and names[c] != str(c) else str(c)
        for c in range(classes)
    ]


def percent(share: float) -> str:
    """A share, with digits where they say something.

    >>> percent(1), percent(0.9996), percent(0.9812), percent(0.0416), percent(0)
    ('100%', '99.9%', '98%', '4.2%', '0%')
    """
    if 0.995 <= share < 1:
        return f"{min(100 * share, 99.9):.1f}%"
    return f"{100 * share:.2g}%" if share < 0.1 else f"{share:.0%}"


def as_list(value: object) -> list[Any]:
    """One thing or several as a list; of None, none."""
    if isinstance(value, list | tuple):
        return list(value)
    return [] if value is None else [value]


def shown(value: object) -> str:
    """Whatever a run was given, in one printable line."""
    words = [f"{v:.6g}" if isinstance(v, float) else str(v) for v in as_list(value)]
    return printable(", ".join(words) or "none", 400)


def tenths(share: float) -> str:
    """A share in per cent with one digit, for numbers that stand side by side.

    >>> tenths(1), tenths(0.0004)
    ('100%', '0.0%')
    """
    return "100%" if share == 1 else f"{share:.1%}"


def signed(value: float) -> str:
    """Log-odds.

    >>> signed(1.5), signed(-0.001)
    ('+1.50', '+0.00')
    """
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def capital(words: str) -> str:
    """The first letter alone is made a capital: names may have some of their own."""
    return words[:1].upper() + words[1:]


def number(value: float | str | None) -> str:
    """Three digits; what JSON has no number for comes as a string or None."""
    if value is None:
        return "unknown"
    found = float(value)
    return "∞" if found == inf else f"{found:.3g}" if found < 1000 else f"{found:,.0f}"


def size(count: int) -> str:
    """Bytes.

    >>> size(812), size(46_800_000)
    ('812 B', '46.8 MB')
    """
    power = 0
    while power < 4 and count >= 999.5 * 1000**power:
        power += 1
    return f"{count} B" if not power else f"{count / 1000**power:.3g} {' kMGT'[power]}B"
