"""Neural Cleanse (Wang et al., IEEE S&P 2019): reverse a trigger for every class, unlearn outliers.

The settings are those of the authors' code. Its data are 1,000 images, of which a step sees 31
batches of 32; here a step is one pass over the images that there are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.baselines.plain_finetuning import Progress, batches, unlearn
from shapprune.method.outliers import Detection, detect
from shapprune.method.triggers import Trigger
from shapprune.model.classifier import check_input
from shapprune.model.inference import evaluating
from shapprune.utils.progress import part_of

_PATIENCE = 5  # steps before the cost changes; five times as many without progress end a class
_SUCCESS = 0.99
_EPSILON = 1e-7  # keeps the mask inside (0, 1)


@dataclass(frozen=True, eq=False)
class NeuralCleanseScan:
    """Reversed triggers and what their sizes say.

    Attributes:
        triggers: one a class.
        rates: share of the images that each sends to its class, in [0, 1]; below 0.99 no trigger
            succeeded, and the last one is what there is.
        steps: spent on each class.
        detection: anomaly indices of the masks' L1 norms by MAD; its targets are above 2.
    """

    triggers: tuple[Trigger, ...]
    rates: tuple[float, ...]
    steps: tuple[int, ...]
    detection: Detection


class CostSchedule:
    """The weight λ of the mask's norm: 0 until triggers succeed, then up and down by patience.

    Attributes:
        cost: λ.
        turned: whether it has been both raised and lowered.
    """

    def __init__(self, start: float = 1e-3) -> None:
        self.cost = 0.0
        self._start = start
        self._run = 0  # successes in a row, failures below 0
        self._raised = self._lowered = False

    @property
    def turned(self) -> bool:
        """Whether it was both doubled and divided."""
        return self._raised and self._lowered

    def update(self, success: bool) -> None:
        """Take a step's outcome: doubled after 5 successes, divided by 2^1.5 after 5 failures."""
        self._run = max(self._run, 0) + 1 if success else min(self._run, 0) - 1
        if abs(self._run) < _PATIENCE:
            return
        self._run = 0
        if self.cost == 0:
            if success:
                self.cost = self._start
        elif success:
            self.cost *= 2
            self._raised = True
        else:
            self.cost /= 2**1.5
            self._lowered = True


def neural_cleanse(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 1000,
    epochs: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> nn.Module:
    """A copy that has unlearned the reversed triggers of the outlying classes.

    Where no class is an outlier, the one with the smallest mask is taken.

    Args:
        steps: see `neural_cleanse_scan`.
        model, images, labels, epochs, seed, progress: see `unlearn`.

    Raises:
        InputError: what does not fit, in one line.
    """
    scan = neural_cleanse_scan(
        model, images, labels, steps=steps, seed=seed, progress=part_of(progress, 0, 2)
    )
    return unlearn(
        model,
        images,
        labels,
        stamps=[trigger.stamp for trigger in scan.triggers],
        norms=scan.detection.norms,
        targets=scan.detection.targets,
        epochs=epochs,
        seed=seed,
        progress=part_of(progress, 1, 2),
    )


def neural_cleanse_scan(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 1000,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress | None = None,
) -> NeuralCleanseScan:
    """Reverse a trigger for every class, and find those that are too small.

    Args:
        model: maps images in [0, 1] to logits, three classes or more; left as it was.
        images, labels: clean, (n, C, H, W) in [0, 1] and int64 (n,).
        steps: of each class at most, a pass over the images each. It ends early after 25 steps
            without a smaller mask, once λ has been both raised and lowered.
        batch_size: at most; fewer images make smaller batches.
        seed: of all random draws.
        progress: called with the share of the work done.

    Raises:
        InputError: what does not fit, in one line.
    """
    images, labels, classes = check_input(model, images, labels)
    generator = torch.Generator().manual_seed(seed)
    with evaluating(model), torch.enable_grad():
        found = [
            _reverse(
                model, images, target, steps, batch_size, generator, part_of(progress, i, classes)
            )
            for i, target in enumerate(range(classes))
        ]
    triggers, rates, spent = zip(*found, strict=True)
    norms = [trigger.norm for trigger in triggers]
    return NeuralCleanseScan(triggers, rates, spent, detect(norms, method="mad", logarithm=False))


def _reverse(
    model: nn.Module,
    images: Tensor,
    target: int,
    steps: int,
    batch_size: int,
    generator: torch.Generator,
    progress: Progress,
) -> tuple[Trigger, float, int]:
    """The smallest trigger that succeeds, its rate, and the steps it took."""
    _, *shape = images.shape

    def free(*size: int) -> Tensor:
        start = torch.rand(*size, generator=generator)
        return ((start - 0.5) * (2 - _EPSILON)).atanh().to(images).requires_grad_()

    def squashed(parameter: Tensor) -> Tensor:
        return parameter.tanh() / (2 + _EPSILON) + 0.5

    mask, pattern = free(1, *shape[1:]), free(*shape)
    optimizer = torch.optim.Adam([mask, pattern], 0.1, betas=(0.5, 0.9))
    schedule = CostSchedule()
    best, best_norm, best_rate, idle, step = None, float("inf"), 0.0, 0, 0
    for step in range(1, steps + 1):
        norms, hits = [], 0
        for rows in batches(len(images), batch_size, generator):
            trigger = Trigger(squashed(mask), squashed(pattern))
            logits = model(trigger.stamp(images[rows]))
            answer = torch.full((len(rows),), target, device=images.device)
            norm = trigger.mask.sum()
            optimizer.zero_grad()
            (F.cross_entropy(logits, answer) + schedule.cost * norm).backward()
            optimizer.step()
            norms.append(float(norm.detach()))
            hits += int((logits.argmax(1) == target).sum())
        rate, norm_now = hits / len(images), sum(norms) / len(norms)
        if rate >= _SUCCESS and norm_now < best_norm:
            best_norm, best_rate, idle = norm_now, rate, 0
            best = _detached(trigger)
        elif best is not None:
            idle += 1
        progress(step / steps)
        if schedule.turned and idle >= 5 * _PATIENCE:
            break
        schedule.update(rate >= _SUCCESS)
    progress(1.0)
    if best is None:
        return _detached(trigger), rate, step
    return best, best_rate, step


def _detached(trigger: Trigger) -> Trigger:
    return Trigger(trigger.mask.detach(), trigger.pattern.detach())
