"""GangSweep (Zhu et al., ACM MM 2020): a generator of triggers for every class, then unlearning.

There is no official code. This follows the paper: a residual generator with 9 × 9 convolutions at
both ends changes each image by a perturbation of its own, which minimises a hinge loss and its
norm. Not told there, and chosen here: widths of 16 to 64 channels, two residual blocks, the number
of steps, outliers by MAD on the mean L2 norms, and the recipe of unlearning, Neural Cleanse's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.baselines.plain_finetuning import Progress, unlearn
from shapprune.method.outliers import Detection, detect
from shapprune.model.classifier import check_input
from shapprune.model.inference import evaluating
from shapprune.utils.progress import part_of
from shapprune.utils.rng import own_random_state

_HINGE, _NORM = 2.0, 0.01
_WIDTH = 16
_NOTHING = 1e6  # for a norm


@dataclass(frozen=True, eq=False)
class GangSweepScan:
    """Generators of triggers and what the sizes of these say.

    Attributes:
        generators: one a class; `stamp` puts its triggers on images.
        rates: share of the images that each sends to its class, in [0, 1].
        detection: anomaly indices by MAD of the perturbations' mean L2 norms.
    """

    generators: tuple["TriggerGenerator", ...]
    rates: tuple[float, ...]
    detection: Detection


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(1, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(1, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.body(x)
        return result


class TriggerGenerator(nn.Module):
    """Images (n, C, H, W) to perturbations of the same shape in (-1, 1), zero at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, _WIDTH, 9, padding=4)]
        for width in (_WIDTH, 2 * _WIDTH):
            layers += [nn.GroupNorm(1, width), nn.ReLU()]
            layers += [nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)]
        layers += [nn.GroupNorm(1, 4 * _WIDTH), nn.ReLU(), _Block(4 * _WIDTH), _Block(4 * _WIDTH)]
        for width in (4 * _WIDTH, 2 * _WIDTH):
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width // 2, 3, padding=1)]
            layers += [nn.GroupNorm(1, width // 2), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.last = nn.Conv2d(_WIDTH, channels, 9, padding=4)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]  # it has one

    def forward(self, images: Tensor) -> Tensor:
        """The perturbations."""
        features = F.interpolate(self.body(images), images.shape[2:])
        perturbation: Tensor = self.last(features).tanh()
        return perturbation

    def stamp(self, images: Tensor) -> Tensor:
        """The images with their triggers, in [0, 1]."""
        stamped: Tensor = (images + self(images)).clamp(0, 1)
        return stamped


def gangsweep(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 500,
    learning_rate: float = 1e-4,
    batch_size: int = 32,
    epochs: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> nn.Module:
    """A copy that has unlearned the generated triggers of the outlying classes, or of the smallest.

    Args:
        steps, learning_rate, batch_size: see `gangsweep_scan`.
        model, images, labels, epochs, seed, progress: see `unlearn`.

    Raises:
        InputError: what does not fit, in one line.
    """
    scan = gangsweep_scan(
        model,
        images,
        labels,
        steps=steps,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        progress=part_of(progress, 0, 2),
    )
    return unlearn(
        model,
        images,
        labels,
        stamps=[generator.stamp for generator in scan.generators],
        norms=scan.detection.norms,
        targets=scan.detection.targets,
        epochs=epochs,
        seed=seed,
        progress=part_of(progress, 1, 2),
    )


def gangsweep_scan(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 500,
    learning_rate: float = 1e-4,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress | None = None,
) -> GangSweepScan:
    """Train a generator of triggers for every class, and find those that need to change too little.

    Args:
        model: maps images in [0, 1] to logits, three classes or more; left as it was.
        images, labels: clean, (n, C, H, W) in [0, 1] and int64 (n,).
        steps, learning_rate: of Adam for each class; the rate is the paper's.
        batch_size: at most; fewer images make smaller batches.
        seed: of all random draws.
        progress: called with the share of the work done.

    Raises:
        InputError: what does not fit, in one line.
    """
    images, labels, classes = check_input(model, images, labels)
    found, norms, rates = [], [], []
    with evaluating(model), own_random_state(seed, images.device):
        for target in range(classes):
            report = part_of(progress, target, classes)
            others = images[labels != target]
            one = _train(model, others, target, steps, learning_rate, batch_size, report)
            with torch.no_grad():
                hits = model(one.stamp(others)).argmax(1) == target
                norms.append(float(one(others).flatten(1).norm(dim=1).mean()))
            rates.append(float(hits.float().mean()))
            found.append(one)
    # A generator that found nothing may leave images as they are, which is no small trigger.
    sizes = [norm if rate > 0 else _NOTHING for norm, rate in zip(norms, rates, strict=True)]
    return GangSweepScan(tuple(found), tuple(rates), detect(sizes, method="mad", logarithm=False))


def hinge(logits: Tensor, target: int) -> Tensor:
    """max(largest other logit - target's logit, 0), a row each.

    >>> hinge(torch.tensor([[1.0, 4.0, 2.0], [5.0, 4.0, 2.0]]), 0)
    tensor([3., 0.])
    """
    others = logits.clone()
    others[:, target] = -torch.inf
    return (others.amax(1) - logits[:, target]).clamp(min=0)


def _train(
    model: nn.Module,
    images: Tensor,
    target: int,
    steps: int,
    learning_rate: float,
    batch_size: int,
    progress: Progress,
) -> TriggerGenerator:
    generator = TriggerGenerator(images.shape[1]).to(images)
    optimizer = torch.optim.Adam(generator.parameters(), learning_rate)
    with torch.enable_grad():
        for step in range(steps):
            some = images[torch.randperm(len(images))[:batch_size].to(images.device)]
            perturbation = generator(some)
            logits = model((some + perturbation).clamp(0, 1))
            size = perturbation.flatten(1).square().sum(1).add(1e-12).sqrt()
            loss = (_HINGE * hinge(logits, target) + _NORM * size).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            progress((step + 1) / steps)
    return generator.requires_grad_(False)
