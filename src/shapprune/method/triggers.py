"""What an attacker, real or suspected, puts on an image, and which answers are wanted then."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from shapprune.errors import InputError
from shapprune.model.checks import check_number, kind

# What a backdoor wants: for each class of images the class that they are sent to, None where they
# are left alone.
TargetMap: TypeAlias = tuple[int | None, ...]

Target: TypeAlias = int | TargetMap  # a class that images of all others are sent to, or a map

NOT_ATTACKED = -1  # among the wanted answers of images


def all_to_one(target: int, classes: int) -> TargetMap:
    """Every image to one class.

    Raises:
        InputError: no such class.

    >>> all_to_one(1, 3)
    (1, None, 1)
    """
    if not isinstance(target, int) or not 0 <= target < classes:
        raise InputError(f"class {target!r} cannot be a target: expected 0 .. {classes - 1}")
    return tuple(None if c == target else target for c in range(classes))


def all_to_all(classes: int) -> TargetMap:
    """Every image to the class after its own.

    Raises:
        InputError: fewer than two classes.

    >>> all_to_all(3)
    (1, 2, 0)
    """
    check_number("classes", classes, 2)
    return tuple((c + 1) % classes for c in range(classes))


def as_map(target: Target | Literal["y+1"], classes: int) -> TargetMap:
    """A target as a map over the classes; "y+1" sends each to the next.

    Raises:
        InputError: see `all_to_one` and `check_map`.
    """
    if target == "y+1":
        return all_to_all(classes)
    return all_to_one(target, classes) if isinstance(target, int) else check_map(target, classes)


def check_map(mapping: TargetMap, classes: int) -> TargetMap:
    """The map, with None for classes that are sent to themselves.

    Raises:
        InputError: another length than the number of classes, no such classes, or no class that
            is attacked.
    """
    if not isinstance(mapping, Sequence) or isinstance(mapping, str):
        raise InputError(f"expected a class or a map of classes, got {mapping!r}")
    if len(mapping) != classes:
        raise InputError(f"a map names {len(mapping)} classes, and the model has {classes}")
    wrong = [
        to for to in mapping if to is not None and not (isinstance(to, int) and 0 <= to < classes)
    ]
    if wrong:
        raise InputError(f"class {wrong[0]!r} cannot be a target: expected 0 .. {classes - 1}")
    found = tuple(None if to == c else to for c, to in enumerate(mapping))
    if all(to is None for to in found):
        raise InputError("a map must send at least one class to another")
    return found


def targets_of(maps: Sequence[TargetMap]) -> tuple[int, ...]:
    """The classes that images are sent to, each once, in order of appearance.

    >>> targets_of([(1, None, 1), (None, 2, None)])
    (1, 2)
    """
    return tuple(dict.fromkeys(to for mapping in maps for to in mapping if to is not None))


def name_classes(targets: Sequence[int]) -> str:
    """The classes in words.

    >>> name_classes((3, 7))
    'class 3, 7'
    """
    return f"class {', '.join(map(str, targets))}"


def wanted_answers(target: Target, labels: Tensor) -> Tensor:
    """The class that each image of a label (n,) is sent to: int64 (n,), or `NOT_ATTACKED`.

    >>> wanted_answers((2, None, None), torch.tensor([0, 1, 0, 2])).tolist()
    [2, -1, 2, -1]
    """
    if isinstance(target, int):
        return torch.full_like(labels, target).masked_fill(labels == target, NOT_ATTACKED)
    table = [NOT_ATTACKED if to is None else to for to in target]
    return torch.tensor(table, device=labels.device)[labels]


def check_stamped(images: Tensor, shape: tuple[int, ...]) -> None:
    """Raise InputError unless the images (n, C, H, W) have the trigger's shape (C, H, W)."""
    fits = isinstance(images, Tensor) and images.ndim == 4 and tuple(images.shape[1:]) == shape
    if not fits or not images.is_floating_point():
        raise InputError(f"the trigger is for images {shape}, got a batch {kind(images)}")


@dataclass(frozen=True, eq=False)
class Trigger:
    """A pattern blended in through a mask: a = (1 - M) ⊙ a + M ⊙ T (Eq. 4).

    Attributes:
        mask: (1, H, W) in [0, 1].
        pattern: (C, H, W) in [0, 1].

    >>> import torch
    >>> half = Trigger(torch.full((1, 1, 1), 0.5), torch.ones(1, 1, 1))
    >>> half.stamp(torch.zeros(1, 1, 1, 1)).item()
    0.5
    """

    mask: Tensor
    pattern: Tensor

    @property
    def norm(self) -> float:
        """L1 norm of the mask, in pixels (Eq. 5)."""
        return float(self.mask.abs().sum())

    def stamp(self, images: Tensor) -> Tensor:
        """The images (n, C, H, W) with the trigger on them, in a new tensor on their device.

        Raises:
            InputError: images of another shape.
        """
        check_stamped(images, tuple(self.pattern.shape))
        mask, pattern = self.mask.to(images), self.pattern.to(images)
        return (1 - mask) * images + mask * pattern

    def scaled(self, factor: float) -> "Trigger":
        """The same trigger with a mask ``factor`` times as opaque, at most 1."""
        return Trigger((self.mask * factor).clamp(max=1), self.pattern)

    def dilated(self) -> "Trigger":
        """The trigger wider by a pixel all round, in the colours of the pixels that grow."""
        weight = F.avg_pool2d(self.mask, 3, stride=1, padding=1)
        colour = F.avg_pool2d(self.mask * self.pattern, 3, stride=1, padding=1)
        pattern = colour / weight.clamp(min=1e-6)
        return Trigger(F.max_pool2d(self.mask, 3, stride=1, padding=1), pattern.clamp(0, 1))


@dataclass(frozen=True, eq=False)
class Perturbation:
    """A pattern added to the whole image, as invisible triggers and watermarks are: a + δ.

    Attributes:
        delta: (C, H, W).
    """

    delta: Tensor

    @property
    def norm(self) -> float:
        """L2 norm of δ."""
        return float(self.delta.norm())

    def stamp(self, images: Tensor) -> Tensor:
        """The images (n, C, H, W) with δ added, clipped to [0, 1].

        Raises:
            InputError: images of another shape.
        """
        check_stamped(images, tuple(self.delta.shape))
        return (images + self.delta.to(images)).clamp(0, 1)

    def scaled(self, factor: float) -> "Perturbation":
        """The same perturbation, ``factor`` times as strong."""
        return Perturbation(self.delta * factor)

    def dilated(self) -> "Perturbation":
        """The perturbation as it is: it covers the whole image already."""
        return self


Stamp: TypeAlias = Trigger | Perturbation


def check_stamps(stamps: Sequence[object], shape: tuple[int, ...]) -> None:
    """Raise InputError unless each is a trigger or perturbation for images of a shape (C, H, W)."""
    for stamp in stamps:
        if not isinstance(stamp, Trigger | Perturbation):
            raise InputError(f"expected a Trigger or Perturbation, got a {type(stamp).__name__}")
        made = stamp.pattern if isinstance(stamp, Trigger) else stamp.delta
        if tuple(made.shape) != shape:
            raise InputError(
                f"the trigger is for images {tuple(made.shape)}, and these are {shape}"
            )
