"""Shares with their intervals."""

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist


@dataclass(frozen=True)
class Rate:
    """A share of so many cases, with an interval.

    Attributes:
        hits, of: cases, and all of them.
        low, high: bounds of the interval, in [0, 1].
    """

    hits: int
    of: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """In [0, 1]; 0 of no cases."""
        return self.hits / self.of if self.of else 0.0


def wilson(hits: int, of: int, *, cases: int | None = None, confidence: float = 0.95) -> Rate:
    """Wilson's score interval of a share (Wilson 1927): right for small numbers and shares near 0.

    Args:
        hits, of: see `Rate`.
        cases: how many of them are independent; None: all.
        confidence: of the interval.

    >>> rate = wilson(0, 50)
    >>> rate.share, rate.low, round(rate.high, 3)
    (0.0, 0.0, 0.071)
    """
    if not of:
        return Rate(0, 0, 0.0, 1.0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, n = hits / of, cases or of
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low = 0.0 if not hits else middle - reach
    high = 1.0 if hits == of else middle + reach
    return Rate(hits, of, low, high)
