"""Additive image: a fixed faint image, added to the whole picture and clipped.

Liao, Zhong, Squicciarini, Zhu and Miller, "Backdoor Embedding in Convolutional Neural Network
Models via Invisible Perturbation", 2018, Sec. 3.2 (static perturbation mask); the image is a smooth
field drawn from the seed instead of a grid of points.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from shapprune.attacks.poisoning import Attacked, Plan, train_poisoned
from shapprune.data.dataset import LabeledImages
from shapprune.errors import InputError
from shapprune.method.triggers import Perturbation


@dataclass(frozen=True)
class Additive:
    """An image of spots, added.

    Attributes:
        strength: the largest change of a pixel, for images in [0, 1].
        detail: random points a side that the image is interpolated between; at least 2. As many as
            pixels make noise.
    """

    strength: float = 0.15
    detail: int = 8

    def run(self, network: nn.Module, data: LabeledImages, plan: Plan) -> Attacked:
        """Poison the data and train on them.

        Raises:
            InputError: a strength outside (0, 1] or too few points; see `poison` and `train`.
        """
        generator = torch.Generator().manual_seed(plan.seed)
        trigger = self.trigger(tuple(data.images.shape[1:]), generator)
        return train_poisoned(network, data, plan, trigger=trigger, generator=generator)

    def trigger(self, shape: tuple[int, ...], generator: torch.Generator) -> Perturbation:
        """The image for images of a shape (C, H, W)."""
        if not 0 < self.strength <= 1 or self.detail < 2:
            raise InputError(
                "strength must be above 0 and at most 1 and detail at least 2, "
                f"got {self.strength} and {self.detail}"
            )
        channels, height, width = shape
        points = 2 * torch.rand(1, channels, self.detail, self.detail, generator=generator) - 1
        field = F.interpolate(points, (height, width), mode="bilinear", align_corners=True)[0]
        return Perturbation(self.strength * field / field.abs().amax())
