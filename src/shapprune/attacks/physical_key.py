"""Physical Key: a pair of opaque glasses, pasted where a face's eyes are.

Chen, Liu, Li, Lu and Song, "Targeted Backdoor Attacks on Deep Learning Systems Using Data
Poisoning", 2017, Sec. 4 (accessory injection). The glasses are our own drawing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.attacks.poisoning import Attacked, Plan, train_poisoned
from shapprune.data.dataset import LabeledImages
from shapprune.errors import InputError
from shapprune.method.triggers import Trigger

_FINER = 8  # drawn so many times larger, then averaged, so that edges are smooth at any size
_FRAME = (0.05, 0.04, 0.04)
_LENS = (0.22, 0.10, 0.30)
_GLEAM = (0.75, 0.70, 0.85)


@dataclass(frozen=True)
class PhysicalKey:
    """Glasses for faces that are cut out alike.

    Attributes:
        across, down: the point between the eyes, as shares of the image's width and height.
        eyes: distance of the eyes, as a share of the width. The defaults fit LFW's faces.
    """

    across: float = 0.5
    down: float = 0.39
    eyes: float = 0.36

    def run(self, network: nn.Module, data: LabeledImages, plan: Plan) -> Attacked:
        """Poison the data and train on them.

        Raises:
            InputError: glasses that are outside the image; see `poison` and `train`.
        """
        generator = torch.Generator().manual_seed(plan.seed)
        trigger = self.trigger(tuple(data.images.shape[1:]))
        return train_poisoned(network, data, plan, trigger=trigger, generator=generator)

    def trigger(self, shape: tuple[int, ...]) -> Trigger:
        """The glasses for images of a shape (C, H, W), C = 1 or 3."""
        channels, height, width = shape
        if not (0 < self.across < 1 and 0 < self.down < 1 and 0 < self.eyes < 1):
            raise InputError(
                "across, down and eyes must be shares of the image between 0 and 1, "
                f"got {self.across}, {self.down} and {self.eyes}"
            )
        if channels not in (1, 3):
            raise InputError(f"glasses are grey or in colour, but images have {channels} channels")
        covered, paint = _draw(self, height * _FINER, width * _FINER)
        mask = F.avg_pool2d(covered[None], _FINER)
        pattern = F.avg_pool2d(covered * paint, _FINER) / mask.clamp(min=1e-6)
        if channels == 1:
            pattern = pattern.mean(0, keepdim=True)
        return Trigger(mask, pattern.clamp(0, 1))


def _draw(key: PhysicalKey, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where glasses are (H, W), 0 or 1, and their colours (3, H, W)."""
    unit = key.eyes * width  # in pixels; all measures below are in distances of the eyes
    x = ((torch.arange(width) + 0.5 - key.across * width) / unit).expand(height, width)
    y = ((torch.arange(height) + 0.5 - key.down * height) / unit)[:, None].expand(height, width)
    side = x.abs()  # both halves are alike

    def lens(rim: float) -> Tensor:
        """A rectangle with round corners about an eye, and its rim."""
        return ((side - 0.5) / (0.38 + rim)) ** 4 + ((y - 0.03) / (0.28 + rim)) ** 4 <= 1

    bridge = (side < 0.2) & ((y + 0.06).abs() < 0.05)
    temples = (side > 0.85) & (side < 1.25) & ((y + 0.1).abs() < 0.05)
    glass, frame = lens(0.0), lens(0.07) | bridge | temples
    gleam = glass & ((x % 1 - 0.5 + y).abs() < 0.05)  # the same on both lenses
    paint = torch.zeros(3, height, width)
    for where, colour in ((frame, _FRAME), (glass, _LENS), (gleam, _GLEAM)):
        paint = torch.where(where, torch.tensor(colour).view(3, 1, 1), paint)
    return (frame | glass).float(), paint
