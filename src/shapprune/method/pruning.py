"""The pruning curve: what is left of ACC and ASR with so many neurons removed (Fig. 3)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from shapprune.errors import InputError
from shapprune.method.evaluation import Evaluator, Proxies
from shapprune.method.settings import SELECTION, SelectionSettings


@dataclass(frozen=True)
class CurvePoint:
    """What the defender measures with so many neurons removed."""

    removed: int
    proxies: Proxies


@dataclass(frozen=True, eq=False)
class Pruning:
    """Neurons of a network removed in the order of a score.

    Attributes:
        score: float (n,), largest first.
        curve: the points that were measured, by the number of neurons.
    """

    score: Tensor
    curve: tuple[CurvePoint, ...]

    def first(self, count: int) -> tuple[int, ...]:
        """The first ``count`` neurons, most harmful first."""
        return tuple(self.score.argsort(descending=True)[:count].tolist())


def prune(
    model: nn.Module,
    *,
    score: Tensor,
    evaluator: Evaluator,
    count: int | None = None,
    settings: SelectionSettings = SELECTION,
    progress: Callable[[float], None] | None = None,
) -> Pruning:
    """Measure the network without its neurons of the largest scores, for several numbers of them.

    Args:
        model: the evaluator's original; left as it was.
        score: float (n,), see `NeuronValues`.
        evaluator: measures.
        count: how many neurons to remove; None for all of the settings' numbers.
        settings: which numbers are tried, and when no more are.
        progress: called with the share of the work done.

    Raises:
        InputError: a count below 0 or above the number of neurons.
    """
    total = len(score)
    if count is not None and not 0 <= count <= total:
        raise InputError(f"count must be in 0 .. {total}, got {count}")
    limit = max(int(total * settings.most), 1)
    counts: Sequence[int] = [k for k in settings.counts if k <= limit]
    if count is not None:
        counts = sorted({0, count})
    order = score.argsort(descending=True).tolist()
    curve: list[CurvePoint] = []
    for k in counts:
        curve.append(CurvePoint(k, evaluator(model, order[:k])))
        if progress:
            progress(len(curve) / len(counts))
        if count is None and curve[-1].proxies.kept.value < settings.least_kept:
            break
    if progress:
        progress(1.0)
    return Pruning(score, tuple(curve))
