"""DeepInspect (Chen et al., IJCAI 2019): detection and repair without any clean image.

Substitute images are recovered by model inversion. One conditional generator then learns triggers
for all classes against a discriminator, and a class that needs too little of a change is an
outlier by double MAD. There is no official code; where the paper leaves numbers open (the
architectures, the weights of the losses, steps), they are chosen here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.baselines.model_inversion import invert_model
from shapprune.baselines.plain_finetuning import Progress, unlearn
from shapprune.model.classifier import check_input
from shapprune.model.inference import evaluating
from shapprune.utils.progress import part_of
from shapprune.utils.rng import own_random_state

_WANTED = 50  # substitute images of all classes, at least
_NOISE = 32
_WIDTH = 32
_ADVERSARIAL, _NORM = 0.1, 0.1  # λ1 and λ2
_BOUND = 2.0


@dataclass(frozen=True, eq=False)
class DeepInspectScan:
    """Triggers of all classes and what their sizes say.

    Attributes:
        images, labels: the substitute images, (n, C, H, W) in [0, 1] and int64 (n,).
        generator: of triggers; `stamp` makes those of a class.
        norms: mean L2 norm of each class's perturbations.
        rates: share of the images of other classes that each class's triggers send to it.
        indices: by double MAD, how many σ a norm lies off the median, by the σ of its side.
        targets: the classes more than 2 below, most anomalous first.
    """

    images: Tensor
    labels: Tensor
    generator: "ConditionalGenerator"
    norms: tuple[float, ...]
    rates: tuple[float, ...]
    indices: tuple[float, ...]
    targets: tuple[int, ...]


class ConditionalGenerator(nn.Module):
    """Noise and a class to a perturbation (n, C, H, W) in (-1, 1), zero at first."""

    def __init__(self, classes: int, size: Sequence[int]) -> None:
        super().__init__()
        channels, self.height, self.width = size
        self.classes = classes
        self.start = nn.Linear(_NOISE + classes, 2 * _WIDTH * 8 * 8)
        self.body = nn.Sequential(
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * _WIDTH, _WIDTH, 3, padding=1),
            nn.GroupNorm(1, _WIDTH),
            nn.ReLU(),
        )
        self.last = nn.Conv2d(_WIDTH, channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]  # it has one

    def forward(self, noise: Tensor, targets: Tensor) -> Tensor:
        """The perturbations for noise (n, 32) and classes (n,)."""
        inputs = torch.cat([noise, F.one_hot(targets, self.classes).to(noise)], 1)
        features = self.body(self.start(inputs).view(len(noise), -1, 8, 8))
        features = F.interpolate(features, (self.height, self.width))
        perturbation: Tensor = self.last(features).tanh()
        return perturbation

    def stamp(self, target: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        """What puts fresh triggers of a class on images."""

        def put(images: Tensor) -> Tensor:
            noise = torch.randn(len(images), _NOISE, generator=generator).to(images)
            targets = torch.full((len(images),), target, device=images.device)
            stamped: Tensor = (images + self(noise, targets)).clamp(0, 1)
            return stamped

        return put


def deepinspect(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 1000,
    inversion_steps: int = 500,
    epochs: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> nn.Module:
    """A copy that has unlearned the triggers of the outlying classes, or of the smallest.

    The substitute images stand in for clean ones also in unlearning, as in the paper: what the
    defender has is not used.

    Args:
        model: maps images in [0, 1] to logits, three classes or more; left as it was.
        images, labels: only their size is used.
        steps, inversion_steps: see `deepinspect_scan`.
        epochs, seed, progress: see `unlearn`.

    Raises:
        InputError: what does not fit, in one line.
    """
    images, labels, _ = check_input(model, images, labels)
    scan = deepinspect_scan(
        model,
        images,
        steps=steps,
        inversion_steps=inversion_steps,
        seed=seed,
        progress=part_of(progress, 0, 2),
    )
    generator = torch.Generator().manual_seed(seed)
    return unlearn(
        model,
        scan.images,
        scan.labels,
        stamps=[scan.generator.stamp(c, generator) for c in range(len(scan.norms))],
        norms=scan.norms,
        targets=scan.targets,
        epochs=epochs,
        seed=seed,
        progress=part_of(progress, 1, 2),
    )


def deepinspect_scan(
    model: nn.Module,
    images: Tensor,
    *,
    steps: int = 1000,
    inversion_steps: int = 500,
    batch_size: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> DeepInspectScan:
    """Recover images, learn triggers for all classes, and find those that change too little.

    The generator minimises CE(target, f(x + G(z, t))) + λ1 · (what the discriminator makes of it)
    + λ2 · ‖G(z, t)‖; the discriminator tells such images from substitute ones.

    Args:
        model: maps images in [0, 1] to logits, three classes or more; left as it was.
        images: (n, C, H, W); only their size is used.
        steps: of Adam, for the generator and the discriminator.
        inversion_steps: of model inversion, which has half of the progress.
        batch_size: of the steps.
        seed: of all random draws.
        progress: called with the share of the work done.
    """
    size = (images.shape[1], images.shape[2], images.shape[3])
    with evaluating(model), torch.no_grad():
        classes = model(images[:1]).shape[1]
    labels = torch.arange(classes, device=images.device).repeat(-(-_WANTED // classes))
    substitutes = invert_model(
        model,
        labels,
        input_size=size,
        steps=inversion_steps,
        generator=torch.Generator().manual_seed(seed),
    )
    report = part_of(progress, 1, 2)
    report(0.0)
    with evaluating(model), own_random_state(seed, images.device), torch.enable_grad():
        generator = ConditionalGenerator(classes, size).to(substitutes)
        critic = _discriminator(size[0]).to(substitutes)
        makers, judges = (torch.optim.Adam(m.parameters(), 1e-3) for m in (generator, critic))
        for step in range(steps):
            rows = torch.randint(len(labels), (batch_size,)).to(images.device)
            targets = torch.randint(classes, (batch_size,)).to(images.device)
            perturbation = generator(torch.randn(batch_size, _NOISE).to(substitutes), targets)
            stamped = (substitutes[rows] + perturbation).clamp(0, 1)
            real, fake = critic(substitutes[rows]), critic(stamped.detach())
            judges.zero_grad()
            (F.softplus(-real) + F.softplus(fake)).mean().backward()
            judges.step()
            norm = perturbation.flatten(1).square().sum(1).add(1e-12).sqrt()
            loss = F.cross_entropy(model(stamped), targets) + _NORM * norm.mean()
            loss = loss + _ADVERSARIAL * F.softplus(-critic(stamped)).mean()
            makers.zero_grad()
            loss.backward()
            makers.step()
            report((step + 1) / steps)
        generator.requires_grad_(False)
        norms, rates = [], []
        for target in range(classes):
            others = substitutes[labels != target]
            noise = torch.randn(len(others), _NOISE).to(others)
            wanted = torch.full((len(others),), target, device=others.device)
            changed = generator(noise, wanted)
            norms.append(float(changed.flatten(1).norm(dim=1).mean()))
            hits = model((others + changed).clamp(0, 1)).argmax(1) == target
            rates.append(float(hits.float().mean()))
    indices = double_mad(norms)
    middle = median(norms)
    outliers = [c for c in range(classes) if norms[c] < middle and indices[c] > _BOUND]
    outliers.sort(key=lambda c: -indices[c])
    return DeepInspectScan(
        substitutes, labels, generator, tuple(norms), tuple(rates), indices, tuple(outliers)
    )


def double_mad(values: Sequence[float]) -> tuple[float, ...]:
    """How many σ each value lies off the median, σ being of its own side.

    σ is 1.4826 times the median absolute deviation of the values on that side, those equal to the
    median included; the median itself has 0.

    >>> [round(index, 2) for index in double_mad([1.0, 8.0, 9.0, 10.0, 12.0, 14.0, 40.0])]
    [4.05, 0.9, 0.45, 0.0, 0.45, 0.9, 6.74]
    """
    middle = median(values)
    sides = ([v for v in values if v <= middle], [v for v in values if v >= middle])
    low, high = (max(1.4826 * median(abs(v - middle) for v in side), 1e-12) for side in sides)
    return tuple(abs(v - middle) / (low if v < middle else high) for v in values)


def _discriminator(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, _WIDTH, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(_WIDTH, 2 * _WIDTH, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * _WIDTH, 1),
    )
