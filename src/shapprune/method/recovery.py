"""Images recovered from a network's batch-norm statistics (Sec. 3.4 of the paper, Eq. 8 to 10).

What a network remembers of its training images are the means and variances in its BN layers, and
its answers. Noise is moved by gradient descent until it fits both (DeepInversion, Yin et al. 2020).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import cos, nan, pi
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.data.augmentation import flip_allowed
from shapprune.errors import InputError
from shapprune.method.settings import RECOVERY
from shapprune.model.checks import check_generator, check_module
from shapprune.model.classifier import check_classifier, in_channels_last, in_float32
from shapprune.model.examination import examine
from shapprune.model.inference import evaluating, searching
from shapprune.utils.progress import Clock, Progress, Stage, part_of

Moments: TypeAlias = tuple[Tensor, Tensor]  # mean and variance, (channels,) each


@dataclass(frozen=True, eq=False)
class Recovery:
    """Images that a network remembers.

    Attributes:
        images: float (n, C, H, W) in [0, 1].
        labels: int64 (n,), sorted: the classes that they were made for.
        layers: BN layers that guided them. With 0, the answers and priors alone did: the images
            look like nothing, and what is found with them is a hint at most.
        divergence: of Eq. 8 at the end, the mean over layers and chunks; NaN without layers.
        stage: what it cost.
    """

    images: Tensor
    labels: Tensor
    layers: int
    divergence: float
    stage: Stage


@searching()
def recover_images(
    model: nn.Module,
    *,
    input_size: tuple[int, int, int],
    per_class: int | None = None,
    steps: int = 250,
    batch_size: int = 128,
    prior_only: bool = False,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> Recovery:
    """Images of every class, from the network alone (Eq. 10).

    Args:
        model: maps images in [0, 1] to logits; left as it was.
        input_size: (C, H, W) of its images.
        per_class: how many of each class; None for at least one a class and 50 in all.
        steps: of gradient descent.
        batch_size: images in a chunk at most. The statistics are those of a chunk, which mixes
            classes; memory grows with it.
        prior_only: go on where no BN layer keeps statistics.
        generator: on the CPU.
        progress: called with the stage's name and the share of it done.

    Raises:
        InputError: a size that the model does not take, numbers below 1, or no BN statistics.
    """
    check_generator(generator)
    if (
        not isinstance(input_size, Sequence)
        or len(input_size) != 3
        or not all(isinstance(side, int) and side > 0 for side in input_size)
    ):
        raise InputError(f"input_size must be three positive numbers C H W, got {input_size}")
    if min(1 if per_class is None else per_class, steps, batch_size) < 1:
        raise InputError(
            "per_class, steps and batch_size must be at least 1, got "
            f"{per_class}, {steps}, {batch_size}"
        )
    check_module(model)
    blank = torch.full((1, *input_size), 0.5)
    model = in_float32(model, blank)
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    blank = blank.to(like)
    classes = check_classifier(model, images=blank)
    if not (statistics_layers(model, blank) or prior_only):
        raise InputError(
            "no BN layer that the model calls keeps statistics: no images can be recovered; give "
            "clean ones, or use --prior-only (prior_only=True) and take the result for a hint"
        )
    noise = torch.rand((4, *input_size), generator=torch.Generator().manual_seed(0)).to(like)
    model = in_channels_last(examine(model, noise), blank)
    layers = statistics_layers(model, blank)
    count = per_class or -(-RECOVERY.wanted // classes)
    labels = torch.arange(classes).repeat(count).to(like.device)
    chunks = labels.tensor_split(-(-len(labels) // batch_size))
    clock, found, divergences = Clock(progress), [], []
    with clock.stage("recover images of every class") as report:
        for i, chunk in enumerate(chunks):
            noise = 0.5 + 0.2 * torch.randn(len(chunk), *input_size, generator=generator)
            images = noise.clamp(0, 1).to(like)
            part = part_of(report, i, len(chunks))
            divergences.append(_descend(model, layers, images, chunk, steps, generator, part))
            found.append(images)
        clock.count(3 * steps * len(labels))
    order = labels.argsort(stable=True)
    return Recovery(
        torch.cat(found)[order],
        labels[order],
        len(layers),
        sum(divergences) / len(divergences),
        clock.stages[0],
    )


def _descend(
    model: nn.Module,
    layers: Sequence[nn.Module],
    images: Tensor,
    labels: Tensor,
    steps: int,
    generator: torch.Generator,
    progress: Callable[[float], None],
) -> float:
    """Change the images in place; the divergence of Eq. 8 at the end."""
    optimiser = torch.optim.Adam([images], lr=RECOVERY.learning_rate, betas=(0.5, 0.9))
    reach = [round(side * RECOVERY.shift) for side in images.shape[2:]]
    mirror = False
    with evaluating(model):
        for step in range(steps):
            if step == steps // 2:  # by now they show what the model was taught
                mirror = flip_allowed(model, images)
            warm, cool = min(1, (step + 1) / (0.1 * steps)), 0.5 + 0.5 * cos(pi * step / steps)
            optimiser.param_groups[0]["lr"] = RECOVERY.learning_rate * warm * cool
            with torch.enable_grad(), observed(layers) as moments:
                leaves = images.detach().requires_grad_()
                seen = _moved(leaves, reach, mirror, generator)
                answer = F.cross_entropy(model(seen), labels)
                bn = divergence(layers, moments)
                loss = answer + RECOVERY.statistics * bn + RECOVERY.variation * variation(seen)
                loss = loss + RECOVERY.norm * (seen - 0.5).square().mean()
                (images.grad,) = torch.autograd.grad(loss, leaves)
            optimiser.step()
            images.clamp_(0, 1)
            progress((step + 1) / steps)
    return float(bn.detach()) if layers else nan


def _moved(
    images: Tensor, reach: Sequence[int], mirror: bool, generator: torch.Generator
) -> Tensor:
    """All images shifted alike, the border repeated, and mirrored every other time."""
    down, across = (int(torch.randint(2 * far + 1, (), generator=generator)) for far in reach)
    (rows, columns), (height, width) = reach, images.shape[2:]
    padded = F.pad(images, [columns, columns, rows, rows], mode="replicate")
    moved = padded[:, :, down : down + height, across : across + width]
    turned = bool(torch.rand((), generator=generator) < 0.5)
    return moved.flip(-1) if mirror and turned else moved


def variation(images: Tensor) -> Tensor:
    """Total variation (L_V of Eq. 9): the mean absolute difference of neighbouring pixels."""
    return sum(
        (images.diff(dim=dim).abs().mean() for dim in (-2, -1) if images.shape[dim] > 1),
        start=images.new_zeros(()),
    )


def statistics_layers(model: nn.Module, images: Tensor) -> list[nn.Module]:
    """The BN layers that keep running statistics and are used for these images (n, C, H, W): what
    a network holds and never calls tells nothing of what it was trained on."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    held = [m for m in model.modules() if isinstance(m, kinds) and m.running_mean is not None]
    with evaluating(model), torch.no_grad(), observed(held) as moments:
        model(images.clone())  # some write into what they are given
    return [layer for layer in held if layer in moments]


@contextmanager
def observed(layers: Sequence[nn.Module]) -> Iterator[dict[nn.Module, Moments]]:
    """Inside the block, the mean and variance of what each layer was last given.

    The hooks are gone afterwards, also after an exception.
    """
    seen: dict[nn.Module, Moments] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        given = inputs[0] if inputs else next(iter(named.values()))
        rest = [dim for dim in range(given.ndim) if dim != 1]
        variance, mean = torch.var_mean(given, rest, correction=0)
        seen[layer] = mean, variance

    handles = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def divergence(layers: Sequence[nn.Module], moments: dict[nn.Module, Moments]) -> Tensor:
    """How far what the layers saw is from what they remember (Eq. 8), the mean over layers.

    Kullback-Leibler's, from normal distributions of what was seen to those remembered, the mean
    over channels. It asks for the same relative fit of every channel; DeepInversion's distances of
    means and variances follow the few channels that are large, and ten images come out as noise.
    """
    far = []
    for layer in layers:
        if layer not in moments:  # a layer that the network does not use
            continue
        mean, variance = moments[layer]
        assert isinstance(layer.running_mean, Tensor)
        assert isinstance(layer.running_var, Tensor)
        floor = RECOVERY.floor * layer.running_var.mean() + 1e-12
        ratio = (variance + floor) / (layer.running_var + floor)
        gap = (mean - layer.running_mean).square() / (layer.running_var + floor)
        far.append(0.5 * (ratio + gap - 1 - ratio.log()).mean())
    return torch.stack(far).mean() if far else torch.zeros(())
