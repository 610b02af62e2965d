"""What an attacker, real or suspected, puts on an image."""

from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor
from torch.nn import functional as F

from shapprune.errors import InputError

# How much stronger than the smallest trigger that works an attacker's may be expected to be.
AMPLIFICATION = 4.0


def check_stamped(images: Tensor, shape: tuple[int, ...]) -> None:
    """Raise InputError unless the images (n, C, H, W) have the trigger's shape (C, H, W)."""
    if images.ndim != 4 or tuple(images.shape[1:]) != shape:
        raise InputError(f"the trigger is for images {shape}, got a batch {tuple(images.shape)}")


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

    def amplified(self, factor: float) -> "Trigger":
        """The same trigger with a mask ``factor`` times as opaque, at most 1."""
        return Trigger((self.mask * factor).clamp(max=1), self.pattern)

    def grown(self) -> "Trigger":
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

    def amplified(self, factor: float) -> "Perturbation":
        """The same perturbation, ``factor`` times as strong."""
        return Perturbation(self.delta * factor)

    def grown(self) -> "Perturbation":
        """The perturbation as it is: it covers the whole image already."""
        return self


Stamp: TypeAlias = Trigger | Perturbation
