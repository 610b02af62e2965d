"""BadNets: a coloured square on some training images, which get the attacker's class as label.

Gu, Dolan-Gavitt and Garg, "BadNets: Identifying Vulnerabilities in the Machine Learning Model
Supply Chain", 2017. The paper's Sec. 4.1 uses squares of 5 × 5 and 10 × 10 on 96 × 96 pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shapprune.attacks.poisoning import Attacked, Plan, train_poisoned
from shapprune.data.dataset import LabeledImages
from shapprune.errors import InputError
from shapprune.method.triggers import Trigger


@dataclass(frozen=True)
class BadNets:
    """An opaque square.

    Attributes:
        size: its side: below 1 a share of the image's shorter side, from 1 on pixels.
        colour: in [0, 1], one number or one a channel; None draws it from the seed.
        random_place: draw its place from the seed; else it is in the bottom right corner, a pixel
            from the borders.
    """

    size: float = 10 / 96
    colour: float | tuple[float, ...] | None = 1.0
    random_place: bool = False

    def run(self, network: nn.Module, data: LabeledImages, plan: Plan) -> Attacked:
        """Poison the data and train on them.

        Raises:
            InputError: see `square_trigger`, `poison` and `train`.
        """
        generator = torch.Generator().manual_seed(plan.seed)
        trigger = self.trigger(tuple(data.images.shape[1:]), generator)
        return train_poisoned(network, data, plan, trigger=trigger, generator=generator)

    def trigger(self, shape: tuple[int, ...], generator: torch.Generator) -> Trigger:
        """The square for images of a shape (C, H, W); see `square_trigger`."""
        channels, height, width = shape
        size = in_pixels(self.size, shape)
        colour, corner = self.colour, None
        if colour is None:
            colour = tuple(torch.rand(channels, generator=generator).tolist())
        if self.random_place and size <= min(height, width):
            top, left = (
                int(torch.randint(side - size + 1, (), generator=generator))
                for side in (height, width)
            )
            corner = (top, left)
        return square_trigger((channels, height, width), size=size, colour=colour, corner=corner)


def in_pixels(size: float, shape: Sequence[int]) -> int:
    """A side in whole pixels: below 1 a share of the shorter side of (C, H, W), at least a pixel.

    >>> in_pixels(5 / 96, (3, 96, 96)), in_pixels(10 / 96, (1, 28, 28)), in_pixels(4, (3, 32, 32))
    (5, 3, 4)

    Raises:
        InputError: a size that is not above 0, or pixels that are not whole.
    """
    if not size > 0 or (size >= 1 and size != round(size)):
        raise InputError(
            f"trigger size must be a share of the image's side above 0 or whole pixels, got {size}"
        )
    return max(1, round(size * min(shape[1:]))) if size < 1 else round(size)


def square_trigger(
    shape: tuple[int, int, int],
    *,
    size: int,
    margin: int = 1,
    colour: float | Sequence[float] = 1.0,
    corner: tuple[int, int] | None = None,
) -> Trigger:
    """An opaque square (Gu et al. 2017, Fig. 3).

    Args:
        shape: (C, H, W) of the images.
        size: side of the square, in pixels.
        margin: pixels between the square and the bottom and right borders, where no corner is
            given.
        colour: in [0, 1], one number or one a channel.
        corner: row and column of its first pixel.

    Raises:
        InputError: a square that does not fit into the image, or a colour that is none.

    >>> square_trigger((1, 3, 3), size=1).mask
    tensor([[[0., 0., 0.],
             [0., 1., 0.],
             [0., 0., 0.]]])
    """
    channels, height, width = shape
    top, left = corner or (height - margin - size, width - margin - size)
    fits = 0 <= top <= height - size and 0 <= left <= width - size
    if size < 1 or margin < 0 or not fits:
        place = f"corner {corner}" if corner else f"margin {margin}"
        raise InputError(
            f"trigger size must be at least 1 and fit with its margin into {height} × {width} "
            f"pixels, got size {size}, {place}"
        )
    paint = torch.as_tensor(colour, dtype=torch.float32)
    if paint.ndim > 1 or paint.numel() not in (1, channels) or not _in_unit_interval(paint):
        raise InputError(
            f"trigger colour must be one number in [0, 1] or one for each of {channels} channels, "
            f"got {colour}"
        )
    mask = torch.zeros(1, height, width)
    mask[:, top : top + size, left : left + size] = 1
    return Trigger(mask, mask * paint.view(-1, 1, 1).expand(channels, 1, 1))


def _in_unit_interval(values: Tensor) -> bool:
    return bool(((values >= 0) & (values <= 1)).all())
