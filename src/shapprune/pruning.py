"""From values to a pruned copy: how many neurons go is decided on the defender's images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shapprune.errors import InputError
from shapprune.neurons import Neurons, evaluating, masked, remove_neurons
from shapprune.proxies import Proxies, Yardstick
from shapprune.stamps import Stamp

# How many neurons are tried.
COUNTS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256)


@dataclass(frozen=True)
class CurvePoint:
    """What the defender measures with so many neurons removed."""

    removed: int
    proxies: Proxies


@dataclass(frozen=True, eq=False)
class Pruning:
    """A pruned copy of a network.

    Attributes:
        model: the copy; names and shapes of its state dict are the original's.
        score: float (n,), what they were chosen by, largest first.
        removed: the pruned neurons, most harmful first.
        curve: ACC and ASR over the number of neurons pruned (as the paper's Fig. 3).
        asr: proxy of the ASR that is left, in [0, 1].
        sufficient: whether pruning alone brought that below the bound.
    """

    model: nn.Module
    score: Tensor
    removed: tuple[int, ...]
    curve: tuple[CurvePoint, ...]
    asr: float
    sufficient: bool


def prune(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    neurons: Neurons,
    score: Tensor,
    triggers: Sequence[tuple[int, Stamp]],
    count: int | None = None,
    asr_below: float = 0.1,
    lost: float = 0.15,
    most: float = 0.15,
    trusted: bool = True,
    generator: torch.Generator,
    progress: Callable[[float], None] | None = None,
) -> Pruning:
    """Remove the neurons of the largest scores.

    Unless ``count`` says how many, the smallest number is taken whose ASR proxy is below
    ``asr_below``. Where too many of the original's right answers would be lost by then, it is, of
    the numbers that cost less, the one with the lowest ASR, the largest of several; the rest is
    left to fine-tuning.

    Args:
        model: left as it was.
        images, labels: clean, (n, C, H, W) and (n,).
        score: float (n,), see `NeuronValues`.
        triggers: (target class, trigger) pairs that measure the ASR.
        count: how many neurons to remove; None to choose.
        asr_below, lost: bounds of the proxies, in [0, 1]; ``lost`` is what is not kept.
        most: largest share of the neurons to remove.
        trusted: whether the images are real, see `Yardstick`.
        generator: on the CPU.
        progress: called with the share of the work done.

    Raises:
        InputError: a count below 0 or above the number of neurons.
    """
    if count is not None and not 0 <= count <= len(neurons):
        raise InputError(f"count must be in 0 .. {len(neurons)}, got {count}")
    order = score.argsort(descending=True).tolist()
    yardstick = Yardstick(
        model, images, labels, triggers=triggers, trusted=trusted, generator=generator
    )
    limit = max(int(len(neurons) * most), 1)
    counts = [k for k in COUNTS if k <= limit] if count is None else sorted({0, count})
    curve: list[CurvePoint] = []
    for k in counts:
        keep = torch.ones(1, len(neurons), device=images.device)
        keep[:, order[:k]] = 0
        with evaluating(model), masked(model, neurons, keep):
            curve.append(CurvePoint(k, yardstick(model)))
        if progress:
            progress(len(curve) / len(counts))
    chosen = curve[-1] if count is not None else _choose(curve, asr_below, lost)
    removed = tuple(order[: chosen.removed])
    pruned = remove_neurons(model, neurons, removed)
    left = chosen.proxies.asr
    return Pruning(pruned, score, removed, tuple(curve), left, left <= asr_below)


def best_of(prunings: Sequence[Pruning]) -> Pruning:
    """Of prunings by different scores, the one that agrees most with the original.

    Where none is sufficient, it is the one with the lowest ASR. All by the defender's proxies.
    """

    def rank(pruning: Pruning) -> tuple[bool, float]:
        (chosen,) = (p for p in pruning.curve if p.removed == len(pruning.removed))
        proxies = chosen.proxies
        return not pruning.sufficient, -proxies.agreement if pruning.sufficient else proxies.asr

    return min(prunings, key=rank)


def _choose(curve: Sequence[CurvePoint], asr_below: float, lost: float) -> CurvePoint:
    affordable = [p for p in curve if p.proxies.kept >= 1 - lost]
    for point in affordable:
        if point.proxies.asr <= asr_below:
            return point
    return min(affordable, key=lambda p: (p.proxies.asr, -p.removed))
