"""Which classes' inverted triggers are too small to be natural (Eq. 6 and 7)."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log
from statistics import NormalDist, geometric_mean, median
from typing import Literal, TypeAlias, get_args

from shapprune.errors import InputError
from shapprune.method.settings import PAPER

Method: TypeAlias = Literal["mad-small", "mad"]


@dataclass(frozen=True)
class Detection:
    """The verdict on a list of norms.

    Attributes:
        norms: one a class.
        indices: each class's anomaly index, how many σ its norm lies below the median; 0 for
            norms above it.
        bound: an index above it is an outlier.
        factor: how many times smaller than the median an outlier must also be.
        alone: so many times smaller is an outlier whatever its index.
        targets: the outliers, most anomalous first: the suspected target classes.
    """

    norms: tuple[float, ...]
    indices: tuple[float, ...]
    bound: float
    factor: float
    alone: float
    targets: tuple[int, ...]

    @property
    def anomaly_index(self) -> float:
        """The largest index: I_detect of Sec. 6.4."""
        return max(self.indices)


def detect(
    norms: Sequence[float],
    *,
    method: Method = "mad-small",
    confidence: float = PAPER.confidence,
    logarithm: bool = True,
    factor: float = 1.0,
    alone: float = inf,
) -> Detection:
    """Find the norms that are too small.

    σ is 1.4826 times the median absolute deviation (Eq. 6): of all norms ("mad"), or of those
    below the median ("mad-small"), which abnormally large norms do not disturb; of five norms or
    fewer it cannot find any. Only small norms are outliers. The median is the true one, the mean
    of the middle two for an even number.

    Args:
        norms: positive, one a class, at least three.
        method: "mad-small" or "mad".
        confidence: p of Eq. 7; an outlier lies further from the median than a share p of a
            normal distribution.
        logarithm: compare the norms' logarithms. Norms are positive and vary by factors, so that
            these are nearer to the normal distribution that Eq. 7 assumes.
        factor: how many times smaller than the median an outlier must also be.
        alone: how many times smaller is enough by itself. σ rests on half of the classes, and a
            few that are small by nature can hide any backdoor among ten.

    Raises:
        InputError: fewer than three norms, one that is not positive and finite, a confidence
            outside (0, 1), an unknown method.

    >>> detect([1, 8, 9, 10, 12, 14, 15, 16], logarithm=False).targets
    (0,)
    """
    if len(norms) < 3:
        raise InputError(
            f"an outlier needs at least three classes to stand out from, got {len(norms)}"
        )
    if not _are_sizes(norms):
        raise InputError(f"norms must be positive and finite, got {list(norms)}")
    if not 0 < confidence < 1:
        raise InputError(f"confidence must be between 0 and 1, got {confidence}")
    if method not in get_args(Method):
        raise InputError(f"method must be one of {get_args(Method)}, got {method!r}")
    sizes = [log(norm) if logarithm else norm for norm in norms]
    middle = median(sizes)
    below = [middle - size for size in sizes if size < middle]
    spread = [abs(size - middle) for size in sizes] if method == "mad" else below
    normal = NormalDist()
    sigma = median(spread) / normal.inv_cdf(0.75) if spread else 0.0
    # More than half of the norms the same: any smaller one is infinitely far out.
    indices = tuple(
        0.0 if size >= middle else (middle - size) / sigma if sigma else inf for size in sizes
    )
    bound = normal.inv_cdf((confidence + 1) / 2)
    shares = [norm / median(norms) for norm in norms]
    outliers = [
        c
        for c, (index, share) in enumerate(zip(indices, shares, strict=True))
        if (index > bound and share <= 1 / factor) or share <= 1 / alone
    ]
    outliers.sort(key=lambda c: -indices[c])
    return Detection(tuple(norms), indices, bound, factor, alone, tuple(outliers))


def fitting_method(classes: int) -> Method:
    """MAD-small needs several norms below the median: of five classes, two say nothing."""
    return "mad-small" if classes > 5 else "mad"


def combine(norms: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """One norm a class of all kinds of trigger together.

    A backdoor is a short cut by any measure, where a class that is close to others by nature is
    so by one measure more than by another: together they tell the two apart better than each does.

    Args:
        norms: of each kind of trigger, one a class.

    Raises:
        InputError: none, not as many of each kind, or norms that are not positive and finite.

    Returns:
        The geometric mean of the norms, each as a multiple of the median of its kind.

    >>> [round(norm, 2) for norm in combine([[1, 2, 4], [8, 8, 8]])]
    [0.71, 1.0, 1.41]
    """
    if not norms or len(set(map(len, norms))) > 1 or not norms[0]:
        raise InputError(
            "expected as many norms of each kind of trigger, got "
            f"{', '.join(str(len(kind)) for kind in norms) or 'none'}"
        )
    if not all(map(_are_sizes, norms)):
        raise InputError("norms must be positive and finite")
    relative = [[norm / median(kind) for norm in kind] for kind in norms]
    return tuple(geometric_mean(of_class) for of_class in zip(*relative, strict=True))


def _are_sizes(norms: Sequence[float]) -> bool:
    return all(isinstance(norm, int | float) and 0 < norm < inf for norm in norms)
