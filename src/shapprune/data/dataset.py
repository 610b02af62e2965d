"""Images with labels, fitted to what a network takes; the draw of a few a class."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from shapprune.errors import InputError


@dataclass(frozen=True, eq=False)
class LabeledImages:
    """Images with their classes.

    Attributes:
        images: float32 (n, C, H, W) in [0, 1], without normalisation.
        labels: int64 (n,), each in 0 .. num_classes - 1.
        notes: what was changed, skipped or is missing, in short sentences for the user.
        class_names: the name of every class in the order of the labels, where they are known.
    """

    images: Tensor
    labels: Tensor
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None


def draw_per_class(
    data: LabeledImages, *, per_class: int, generator: torch.Generator
) -> LabeledImages:
    """At most ``per_class`` images of each class, drawn without replacement, sorted by class.

    Args:
        per_class: at least 1. A class that has fewer images gives all of them.
        generator: on the CPU.

    Raises:
        InputError: ``per_class`` below 1.

    >>> data = LabeledImages(torch.rand(5, 1, 2, 2), torch.tensor([0, 2, 0, 2, 2]))
    >>> draw_per_class(data, per_class=2, generator=torch.Generator().manual_seed(0)).labels
    tensor([0, 0, 2, 2])
    """
    if per_class < 1:
        raise InputError(f"per_class must be at least 1, got {per_class}")
    rows = draw(data.labels, per_class, generator)
    return replace(data, images=data.images[rows], labels=data.labels[rows])


def draw(labels: Tensor, per_class: int, generator: torch.Generator) -> Tensor:
    """The rows of at most ``per_class`` labels of each kind, sorted by label."""
    drawn = [torch.empty(0, dtype=torch.int64)]
    for label in sorted(set(labels.tolist())):
        members = (labels == label).nonzero().flatten()
        drawn.append(members[torch.randperm(len(members), generator=generator)[:per_class]])
    return torch.cat(drawn)


def to_size(images: Tensor, size: Sequence[int], changes: Counter[str]) -> Tensor:
    """Images (n, C, h, w) at ``size`` (H, W); ``changes`` counts those that were changed."""
    if list(images.shape[2:]) == list(size):
        return images
    changes[f"resized to {size[0]}x{size[1]}"] += len(images)
    return F.interpolate(images, list(size), mode="bilinear", antialias=True).clamp(0, 1)


def to_channels(images: Tensor, channels: int, changes: Counter[str]) -> Tensor:
    """Images (n, c, H, W) with the wanted number of channels, 1 or 3, changes counted.

    Raises:
        InputError: another number is wanted.
    """
    if images.shape[1] == channels:
        return images
    if channels == 3:
        changes["turned from grey to three equal channels"] += len(images)
        return images.repeat(1, 3, 1, 1)
    if channels == 1:
        changes["turned from colour to grey"] += len(images)
        weights = torch.tensor([0.299, 0.587, 0.114])  # ITU-R 601, as Pillow's mode L
        return (images * weights.view(1, 3, 1, 1)).sum(1, keepdim=True).clamp(max=1)
    raise InputError(f"input_size asks for {channels} channels, but the images have 1 or 3")


def change_notes(changes: Counter[str], total: int) -> list[str]:
    """What `to_size` and `to_channels` changed, for the user."""
    return [f"{count} of {total} images were {change}" for change, count in changes.items()]


def absence_notes(labels: Tensor, num_classes: int) -> list[str]:
    """Which classes have no image, for the user."""
    absent = sorted(set(range(num_classes)) - set(labels.tolist()))
    first = ", ".join(map(str, absent[:10])) + (", …" if len(absent) > 10 else "")
    return [f"no images of {len(absent)} of {num_classes} classes: {first}"] if absent else []
