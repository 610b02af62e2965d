"""When the best players are known well enough to stop."""

from dataclasses import dataclass
from math import inf, log
from statistics import NormalDist

from torch import Tensor

from shapprune.errors import InputError

_FIRST_LOOK = 16  # samples; fewer say too little about their own spread


@dataclass(frozen=True)
class TopSet:
    """Stop when the set of the best players is stable at level δ.

    It is, if some border separates the confidence intervals of the best from those of the others.
    The intervals hold for all n players at once (Bonferroni), and share δ among all the looks that
    are taken, as the samples double: the k-th look spends α = δ / 2^k / n on each player. They are
    normal ones, widened by R ln(1/α) / t for t samples, as far as a mean can hide what has not
    come up yet: contributions of size R with probability p go unseen with (1 - p)^t ≤ exp(-p t).
    Without that, a player whose few samples were all zero would pass for one known exactly.

    Args:
        size: how many are the best.
        delta: the probability that a set is called stable which is not the best.
        tolerance: players whose values are nearer than this need not be told apart.
        marginal_range: R, by how much marginal contributions of a player differ at most: 1 where
            values lie in [0, 1] and never rise as players go; 0 leaves plain normal intervals.

    Raises:
        InputError: a size below 1, a δ outside (0, 1), a negative tolerance or range.
    """

    size: int
    delta: float = 0.05
    tolerance: float = 0.0
    marginal_range: float = 1.0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"size must be at least 1, got {self.size}")
        if not 0 < self.delta < 1:
            raise InputError(f"delta must be between 0 and 1, got {self.delta}")
        if not self.tolerance >= 0:
            raise InputError(f"tolerance must not be negative, got {self.tolerance}")
        if not self.marginal_range >= 0:
            raise InputError(f"marginal_range must not be negative, got {self.marginal_range}")

    def is_stable(self, means: Tensor, errors: Tensor, counts: Tensor, look: int) -> bool:
        """Whether the best are known.

        Args:
            means, errors, counts: (n,), estimates, their standard errors, and the samples behind.
            look: the how manieth look this is, from 1.
        """
        n = len(means)
        if self.size >= n:
            return True
        alpha = self.delta / 2**look / n
        unseen = self.marginal_range * log(1 / alpha) / counts.clamp(min=1)
        bounds = NormalDist().inv_cdf(1 - alpha) * errors + unseen
        order = means.argsort(descending=True)
        best, others = order[: self.size], order[self.size :]
        lower = float((means[best] - bounds[best]).min())
        upper = float((means[others] + bounds[others]).max())
        return lower >= upper - self.tolerance


class EarlyStopping:
    """Whether to stop early: asked at 16 samples, and whenever they have doubled.

    Args:
        stop: None never looks.
    """

    def __init__(self, stop: TopSet | None) -> None:
        self._stop, self._taken = stop, 0
        self.next: float = inf if stop is None else _FIRST_LOOK

    def should_stop(self, samples: float, means: Tensor, errors: Tensor, counts: Tensor) -> bool:
        """Whether it is time to stop, after so many samples; a look is taken when one is due."""
        if self._stop is None or samples < self.next:
            return False
        self._taken += 1
        self.next *= 2
        return self._stop.is_stable(means, errors, counts, self._taken)
