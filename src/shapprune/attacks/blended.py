"""Blended: a pattern that shines through the whole image.

Chen, Liu, Li, Lu and Song, "Targeted Backdoor Attacks on Deep Learning Systems Using Data
Poisoning", 2017, Sec. 4: α of a random pattern, 1 - α of the image.
"""

from dataclasses import dataclass

import torch
from torch import nn

from shapprune.attacks.poisoning import Attacked, Plan, train_poisoned
from shapprune.data.dataset import LabeledImages
from shapprune.errors import InputError
from shapprune.method.triggers import Trigger


@dataclass(frozen=True)
class Blended:
    """Noise blended into the whole image.

    Attributes:
        alpha: the pattern's share in (0, 1]; the pattern is drawn from the seed.
    """

    alpha: float = 0.2

    def run(self, network: nn.Module, data: LabeledImages, plan: Plan) -> Attacked:
        """Poison the data and train on them.

        Raises:
            InputError: an alpha outside (0, 1]; see `poison` and `train`.
        """
        generator = torch.Generator().manual_seed(plan.seed)
        trigger = self.trigger(tuple(data.images.shape[1:]), generator)
        return train_poisoned(network, data, plan, trigger=trigger, generator=generator)

    def trigger(self, shape: tuple[int, ...], generator: torch.Generator) -> Trigger:
        """The pattern for images of a shape (C, H, W)."""
        if not 0 < self.alpha <= 1:
            raise InputError(f"alpha must be above 0 and at most 1, got {self.alpha}")
        mask = torch.full((1, *shape[1:]), self.alpha)
        return Trigger(mask, torch.rand(shape, generator=generator))
