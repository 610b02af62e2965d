"""BadNets with a pattern instead of one colour, as the triggers that are shared most often have.

Gu, Dolan-Gavitt and Garg, "BadNets: Identifying Vulnerabilities in the Machine Learning Model
Supply Chain", 2017, Fig. 3, shows a pattern of bright pixels beside a single one; checkerboards
and noise are those of many later studies.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.attacks.badnets import in_pixels, square_trigger
from shapprune.attacks.poisoning import Attacked, Plan, train_poisoned
from shapprune.data.dataset import LabeledImages
from shapprune.errors import InputError
from shapprune.method.triggers import Trigger

PATTERNS = ("checkerboard", "noise", "plain")
PLACES = ("corner", "centre", "random")


@dataclass(frozen=True)
class PatternPatch:
    """An opaque square with a pattern, at the same place on all images.

    Attributes:
        size: its side: below 1 a share of the image's shorter side, from 1 on pixels.
        pattern: "checkerboard" of black and white, "noise" or one "plain" colour, both drawn from
            the seed.
        place: "corner" (bottom right, a pixel from the borders), "centre" or "random", drawn from
            the seed.
    """

    size: float = 4
    pattern: Literal["checkerboard", "noise", "plain"] = "checkerboard"
    place: Literal["corner", "centre", "random"] = "corner"

    def run(self, network: nn.Module, data: LabeledImages, plan: Plan) -> Attacked:
        """Poison the data and train on them.

        Raises:
            InputError: a pattern or place that there is not; see `square_trigger`, `poison` and
                `train`.
        """
        generator = torch.Generator().manual_seed(plan.seed)
        trigger = self.trigger(tuple(data.images.shape[1:]), generator)
        return train_poisoned(network, data, plan, trigger=trigger, generator=generator)

    def trigger(self, shape: tuple[int, ...], generator: torch.Generator) -> Trigger:
        """The patch for images of a shape (C, H, W)."""
        channels, height, width = shape
        size = in_pixels(self.size, shape)
        if self.place not in PLACES:
            raise InputError(f"place must be one of {', '.join(PLACES)}, got {self.place!r}")
        corner = None
        if self.place != "corner" and size <= min(height, width):
            corner = ((height - size) // 2, (width - size) // 2)
        if self.place == "random" and corner:
            top, left = (
                int(torch.randint(side - size + 1, (), generator=generator))
                for side in (height, width)
            )
            corner = (top, left)
        mask = square_trigger((channels, height, width), size=size, corner=corner).mask
        patch = draw_pattern(self.pattern, (channels, size, size), generator)
        top, left = (int(mask.amax((0, axis)).argmax()) for axis in (2, 1))
        edges = (left, width - left - size, top, height - top - size)
        return Trigger(mask, F.pad(patch, edges))


def draw_pattern(pattern: str, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """A pattern of a shape (C, h, w), in [0, 1].

    >>> draw_pattern("checkerboard", (1, 2, 3), torch.Generator())
    tensor([[[1., 0., 1.],
             [0., 1., 0.]]])

    Raises:
        InputError: no such pattern.
    """
    if pattern not in PATTERNS:
        raise InputError(f"pattern must be one of {', '.join(PATTERNS)}, got {pattern!r}")
    channels, height, width = shape
    if pattern == "checkerboard":
        rows, columns = torch.arange(height)[:, None], torch.arange(width)
        return ((rows + columns + 1) % 2).float().expand(shape).clone()
    if pattern == "plain":
        return torch.rand(channels, 1, 1, generator=generator).expand(shape).clone()
    return torch.rand(shape, generator=generator)
