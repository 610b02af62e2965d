"""What every estimator takes and gives."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from shapprune.errors import InputError


class Game(Protocol):
    """Players and what their coalitions are worth; estimators know nothing else."""

    n: int

    def __call__(self, coalitions: Tensor) -> Tensor:
        """Values, float (b,), of coalitions, bool (b, n)."""
        ...


class DifferentiableGame(Game, Protocol):
    """A game whose multilinear extension can be sampled with a gradient."""

    def gradient(self, masks: Tensor) -> Tensor:
        """Derivatives, float (b, n), by the entries of masks, float (b, n) in [0, 1]."""
        ...


@dataclass(frozen=True, eq=False)
class ShapleyValues:
    """Estimated Shapley values.

    Attributes:
        values: float (n,).
        standard_errors: float (n,), of the values; 0 where exact, infinite below two samples.
        counts: int (n,), marginal contributions (or gradients) behind each value.
        evaluations: coalitions and gradients evaluated.
        stopped_early: whether the estimation ended because the best players were known.
    """

    values: Tensor
    standard_errors: Tensor
    counts: Tensor
    evaluations: int
    stopped_early: bool = False


class BudgetSpent(Exception):
    """No evaluation is left."""


class CountedGame:
    """A game that counts its evaluations and checks its answers.

    Args:
        budget: evaluations that it grants; None for no end.

    Raises:
        InputError: no players, a negative budget.
    """

    def __init__(self, game: Game, budget: int | None = None) -> None:
        if game.n < 1:
            raise InputError(f"a game needs at least one player, got n = {game.n}")
        if budget is not None and budget < 0:
            raise InputError(f"budget must not be negative, got {budget}")
        self._game, self._budget = game, budget
        self.n, self.spent = game.n, 0

    def __call__(self, coalitions: Tensor) -> Tensor:
        """Values, float64 (b,) on the CPU.

        Raises:
            InputError: the game returned a wrong shape, NaN or an infinite value.
            BudgetSpent: there are not so many evaluations left; none was made.
        """
        if len(coalitions) == 0:  # which a game need not understand
            return torch.empty(0, dtype=torch.float64)
        self._spend(len(coalitions))
        return _checked(self._game(coalitions), coalitions.shape[:1])

    def gradient(self, masks: Tensor) -> Tensor:
        """As a call, for the gradients, float64 (b, n), of a `DifferentiableGame`."""
        self._spend(len(masks))
        return _checked(self._game.gradient(masks), masks.shape)  # type: ignore[attr-defined]

    def whole(self, least: float) -> float:
        """The value of all players together.

        Raises:
            InputError: it is below ``least``, where walks end.
        """
        value = float(self(torch.ones(1, self.n, dtype=torch.bool))[0])
        if value < least:
            raise InputError(
                f"the whole network's value {value:.3f} is below the threshold {least}: nothing "
                "to attribute"
            )
        return value

    @property
    def share(self) -> float:
        """Of the budget, spent so far; 0 where there is no end."""
        return self.spent / self._budget if self._budget else 0.0

    def _spend(self, evaluations: int) -> None:
        if self._budget is not None and self.spent + evaluations > self._budget:
            raise BudgetSpent
        self.spent += evaluations


def _checked(values: Tensor, shape: torch.Size) -> Tensor:
    if values.shape != shape:
        raise InputError(
            f"the game returned the shape {tuple(values.shape)}: expected {tuple(shape)}"
        )
    if not bool(values.isfinite().all()):
        raise InputError("the game returned NaN or an infinite value")
    return values.detach().cpu().double()


class RunningMeans:
    """Means and standard errors of marginal contributions as they come in.

    Attributes:
        counts: int (n,).
    """

    def __init__(self, n: int) -> None:
        self.counts = torch.zeros(n, dtype=torch.int64)
        self._total = torch.zeros(n, dtype=torch.float64)
        self._squares = torch.zeros(n, dtype=torch.float64)

    def add(self, players: Tensor, marginals: Tensor) -> None:
        """Marginals (k,) of players (k,), each player at most once."""
        self._total[players] += marginals
        self._squares[players] += marginals**2
        self.counts[players] += 1

    def add_all(self, marginals: Tensor) -> None:
        """Marginals (b, n) of all players."""
        self._total += marginals.sum(0)
        self._squares += (marginals**2).sum(0)
        self.counts += len(marginals)

    @property
    def means(self) -> Tensor:
        """0 where there is nothing yet."""
        return self._total / self.counts.clamp(min=1)

    @property
    def variances(self) -> Tensor:
        """Of one marginal contribution, unbiased; infinite below two."""
        spread = self._squares / self.counts.clamp(min=1) - self.means**2
        unbiased = spread.clamp(min=0) * self.counts / (self.counts - 1).clamp(min=1)
        return torch.where(self.counts > 1, unbiased, torch.inf)

    @property
    def errors(self) -> Tensor:
        """Standard errors of the means."""
        return (self.variances / self.counts.clamp(min=1)).sqrt()

    def result(self, evaluations: int, stopped_early: bool = False) -> ShapleyValues:
        """The estimate.

        Raises:
            InputError: there is nothing yet, because the budget was too small.
        """
        if not bool(self.counts.any()):
            raise InputError(f"the budget ended after {evaluations} evaluations, within one walk")
        return ShapleyValues(
            self.means.float(), self.errors.float(), self.counts, evaluations, stopped_early
        )
