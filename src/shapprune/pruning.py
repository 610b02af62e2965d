"""From values to a pruned copy: how many neurons go is decided on the defender's images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shapprune.augmentation import augment, flip_allowed
from shapprune.errors import InputError
from shapprune.estimation import stamped_images
from shapprune.metrics import accuracy
from shapprune.neurons import Neurons, evaluating, masked, remove_neurons
from shapprune.stamps import Stamp

_COUNTS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256)
_VARIATIONS = 4  # of each image, augmented


@dataclass(frozen=True)
class CurvePoint:
    """ACC and the ASR of the inverted triggers, both in [0, 1], on the defender's images."""

    removed: int
    accuracy: float
    asr: float


@dataclass(frozen=True, eq=False)
class Pruning:
    """A pruned copy of a network.

    Attributes:
        model: the copy; names and shapes of its state dict are the original's.
        removed: the pruned neurons, most harmful first.
        curve: ACC and ASR over the number of neurons pruned (as the paper's Fig. 3).
    """

    model: nn.Module
    removed: tuple[int, ...]
    curve: tuple[CurvePoint, ...]


def prune(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    neurons: Neurons,
    score: Tensor,
    triggers: Sequence[tuple[int, Stamp]],
    count: int | None = None,
    asr_below: float = 0.05,
    accuracy_loss: float = 0.1,
    most: float = 0.15,
    generator: torch.Generator,
    progress: Callable[[float], None] | None = None,
) -> Pruning:
    """Remove the neurons of the largest scores.

    Unless ``count`` says how many, the smallest number is taken whose ASR on the defender's
    images, augmented, is below ``asr_below``. Where accuracy falls by more than ``accuracy_loss``
    first, the number with the lowest ASR before that is taken.

    Args:
        model: left as it was.
        images, labels: clean, (n, C, H, W) and (n,).
        score: float (n,), see `NeuronValues`.
        triggers: (target class, trigger) pairs that measure the ASR.
        count: how many neurons to remove; None to choose.
        asr_below, accuracy_loss: in [0, 1].
        most: largest share of the neurons to remove.
        generator: on the CPU.
        progress: called with the share of the work done.

    Raises:
        InputError: a count below 0 or above the number of neurons.
    """
    if count is not None and not 0 <= count <= len(neurons):
        raise InputError(f"count must be in 0 .. {len(neurons)}, got {count}")
    order = score.argsort(descending=True).tolist()
    flip = flip_allowed(model, images)
    varied = [augment(images, generator=generator, flip=flip) for _ in range(_VARIATIONS)]
    clean, answers = torch.cat([images, *varied]), labels.repeat(_VARIATIONS + 1)
    stamped, wanted = stamped_images(clean, answers, triggers)
    limit = max(int(len(neurons) * most), 1)
    counts = [k for k in _COUNTS if k <= limit] if count is None else [0, count]
    curve = []
    for k in counts:
        keep = torch.ones(1, len(neurons), device=images.device)
        keep[:, order[:k]] = 0
        with evaluating(model), masked(model, neurons, keep):
            point = CurvePoint(k, accuracy(model, clean, answers), accuracy(model, stamped, wanted))
        curve.append(point)
        if progress:
            progress(len(curve) / len(counts))
    chosen = curve[-1].removed if count is not None else _choose(curve, asr_below, accuracy_loss)
    removed = tuple(order[:chosen])
    return Pruning(remove_neurons(model, neurons, removed), removed, tuple(curve))


def _choose(curve: Sequence[CurvePoint], asr_below: float, accuracy_loss: float) -> int:
    affordable = [p for p in curve if p.accuracy >= curve[0].accuracy - accuracy_loss]
    for point in affordable:
        if point.asr <= asr_below:
            return point.removed
    return min(affordable, key=lambda p: (p.asr, p.removed)).removed
