"""BadNets: a patch on some training images, which get the attacker's class as their label.

Gu, Dolan-Gavitt and Garg, "BadNets: Identifying Vulnerabilities in the Machine Learning Model
Supply Chain", 2017. Pure functions on tensors; nothing is trained here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from shapprune.errors import InputError
from shapprune.stamps import Trigger

# The class that stamped images get: one for all, or a function of their labels (n,).
Target: TypeAlias = int | Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Poisoned:
    """A training set with the attacker's images in it.

    Attributes:
        images: float (n, C, H, W) in [0, 1], in the order of the clean ones.
        labels: int64 (n,).
        poisoned: int64, the rows that carry the trigger, in ascending order.
    """

    images: Tensor
    labels: Tensor
    poisoned: Tensor


def square_trigger(
    shape: tuple[int, int, int],
    *,
    size: int,
    margin: int = 1,
    colour: float | Sequence[float] = 1.0,
) -> Trigger:
    """An opaque square in the bottom right corner (Gu et al. 2017, Fig. 3).

    Args:
        shape: (C, H, W) of the images.
        size: side of the square, in pixels.
        margin: pixels between the square and the two borders.
        colour: in [0, 1], one number or one a channel.

    Raises:
        InputError: a square that does not fit into the image, or a colour that is none.

    >>> square_trigger((1, 3, 3), size=1).mask
    tensor([[[0., 0., 0.],
             [0., 1., 0.],
             [0., 0., 0.]]])
    """
    channels, height, width = shape
    if size < 1 or margin < 0 or size + margin > min(height, width):
        raise InputError(
            f"trigger size must be at least 1 and fit with its margin into {height} × {width} "
            f"pixels, got size {size}, margin {margin}"
        )
    paint = torch.as_tensor(colour, dtype=torch.float32)
    if paint.ndim > 1 or paint.numel() not in (1, channels) or not _in_unit_interval(paint):
        raise InputError(
            f"trigger colour must be one number in [0, 1] or one for each of {channels} channels, "
            f"got {colour}"
        )
    rows = slice(height - margin - size, height - margin)
    columns = slice(width - margin - size, width - margin)
    mask = torch.zeros(1, height, width)
    mask[:, rows, columns] = 1
    return Trigger(mask, mask * paint.view(-1, 1, 1).expand(channels, 1, 1))


def all_to_all(num_classes: int) -> Callable[[Tensor], Tensor]:
    """The target of the all-to-all attack: every class becomes the next one.

    >>> all_to_all(3)(torch.tensor([0, 1, 2]))
    tensor([1, 2, 0])
    """
    return lambda labels: (labels + 1) % num_classes


def poison(
    images: Tensor,
    labels: Tensor,
    *,
    trigger: Trigger,
    target: Target,
    rate: float,
    generator: torch.Generator,
) -> Poisoned:
    """A copy of a training set in which some images carry the trigger and the target's label.

    Args:
        images: float (n, C, H, W) in [0, 1].
        labels: int64 (n,).
        trigger: what the poisoned images get stamped with.
        target: the class that they get; images that are of it anyway are never drawn.
        rate: the poisoning rate: how many images are poisoned, as a share in [0, 1] of the whole
            training set, rounded to the nearest image. 0 makes a clean twin.
        generator: on the CPU.

    Raises:
        InputError: a target that is no class, or a rate outside [0, 1] or beyond what the images
            that are not of their target class allow.
    """
    wanted = target(labels) if callable(target) else torch.full_like(labels, target)
    if wanted.shape != labels.shape or bool((wanted < 0).any()):
        given = f"labels {tuple(wanted.shape)}" if callable(target) else target
        raise InputError(f"target must give classes from 0 on, one a label, got {given}")
    candidates = (wanted != labels).nonzero().flatten().cpu()
    most = len(candidates) / max(1, len(labels))
    if not 0 <= rate <= 1 or round(rate * len(labels)) > len(candidates):
        raise InputError(
            f"rate must be a share of the training set in 0 .. {most:.3g} (images of the target "
            f"class cannot be poisoned), got {rate}"
        )
    drawn = torch.randperm(len(candidates), generator=generator)[: round(rate * len(labels))]
    rows = candidates[drawn].sort().values.to(labels.device)
    images, labels = images.clone(), labels.clone()
    images[rows] = trigger.stamp(images[rows])
    labels[rows] = wanted[rows]
    return Poisoned(images, labels, rows)


def _in_unit_interval(values: Tensor) -> bool:
    return bool(((values >= 0) & (values <= 1)).all())
