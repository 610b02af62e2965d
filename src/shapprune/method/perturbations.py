"""The best perturbation of bounded size: how far one pattern on the whole image reaches a class.

What windows are for patches, this is for triggers that cover the image: blended and additive ones,
watermarks. One pattern for all images is sought in a ball of L2 norm (universal perturbations,
Moosavi-Dezfooli et al. 2017), and the margin of the class under it is measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.method.settings import PERTURBATIONS, PerturbationSettings
from shapprune.method.stamping import draw_images, images_of_others, measure_stamps
from shapprune.method.triggers import Perturbation
from shapprune.model.inference import CHUNK, evaluating


@dataclass(frozen=True, eq=False)
class Perturbations:
    """The best perturbation of each class that was looked at.

    Attributes:
        classes: those that were looked at.
        margins: of the class on images of the others under its perturbation, the mean, one a
            class.
        shares: of these images that it sends to the class, in [0, 1].
        triggers: the perturbations.
        passes: image passes; the way back to the image costs as much as the way forward.
    """

    classes: tuple[int, ...]
    margins: tuple[float, ...]
    shares: tuple[float, ...]
    triggers: tuple[Perturbation, ...]
    passes: int


def best_perturbations(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    classes: Sequence[int],
    settings: PerturbationSettings = PERTURBATIONS,
    generator: torch.Generator,
    progress: Callable[[float], None] | None = None,
) -> Perturbations:
    """For each class the perturbation that sends images of the others to it most surely.

    Args:
        model: maps images in [0, 1] to logits; left as it was.
        images: (n, C, H, W) in [0, 1].
        labels: int64 (n,).
        classes: to look at.
        generator: on the CPU.
        progress: called with the share of the work done.

    Raises:
        InputError: no image of another class than one of these.
    """
    others = images_of_others(labels, classes)
    wanted = torch.tensor(classes, device=images.device)
    group = torch.arange(len(classes), device=images.device)
    radius = settings.radius * images[0].numel() ** 0.5
    delta = 0.01 * torch.randn(len(classes), *images.shape[1:], generator=generator).to(images)
    passes, per_step = 0, settings.images
    with evaluating(model), torch.enable_grad():
        for step in range(settings.steps):
            drawn, batch = draw_images(images, others, group, per_step, generator)
            size = radius * (settings.first if 2 * step < settings.steps else settings.last)
            moved = []
            for part in group.split(max(1, CHUNK // per_step)):
                free = delta[part].clone().requires_grad_()
                seen = batch[part] + free.unsqueeze(1)
                seen = seen + (seen.clamp(0, 1) - seen).detach()  # clipping lets gradients through
                answer = wanted[part].repeat_interleave(per_step)
                loss = F.cross_entropy(model(seen.flatten(0, 1)), answer, reduction="sum")
                (slope,) = torch.autograd.grad(loss, free)
                moved.append(_within(delta[part] - size * slope / _norm(slope), radius))
            delta = torch.cat(moved)
            passes += 2 * drawn.numel()
            if progress:
                progress((step + 1) / settings.steps)
    triggers = tuple(Perturbation(one) for one in delta)
    effect = measure_stamps(
        model,
        images,
        rows=others,
        classes=classes,
        stamps=triggers,
        views=settings.views,
        generator=generator,
    )
    return Perturbations(
        tuple(classes), effect.margins, effect.shares, triggers, passes + effect.passes
    )


def _norm(batch: Tensor) -> Tensor:
    """L2 norms (n, 1, 1, 1)."""
    norms: Tensor = batch.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
    return norms


def _within(batch: Tensor, radius: float) -> Tensor:
    inside: Tensor = batch * (radius / _norm(batch)).clamp(max=1)
    return inside
