"""What every estimator takes and gives."""

from dataclasses import dataclass
from typing import Protocol

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
        evaluations: coalitions (or gradients) evaluated.
    """

    values: Tensor
    standard_errors: Tensor
    counts: Tensor
    evaluations: int


def evaluate(game: Game, coalitions: Tensor) -> Tensor:
    """The game's values of coalitions, checked.

    Raises:
        InputError: a wrong shape, or NaN.
    """
    values = game(coalitions)
    if values.shape != coalitions.shape[:1]:
        raise InputError(
            f"the game returned shape {tuple(values.shape)} for {len(coalitions)} coalitions: "
            f"expected ({len(coalitions)},)"
        )
    if bool(values.isnan().any()):
        raise InputError("the game returned NaN")
    return values.detach().cpu().float()


def check_players(game: Game) -> None:
    if game.n < 1:
        raise InputError(f"a game needs at least one player, got n = {game.n}")
