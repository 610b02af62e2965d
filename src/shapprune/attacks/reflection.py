"""Refool: the reflection of another picture, as in a window of two panes.

Liu, Ma, Bailey and Lu, "Reflection Backdoor: A Natural Backdoor Attack on Deep Neural Networks",
ECCV 2020, Sec. 3.2, "ghost effect": a picture is added to the image twice, a few pixels apart, the
second time more weakly. The picture is one of the training images. The paper poisons images of the
target class alone and takes many pictures; here it is one, and labels change as in other attacks.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shapprune.attacks.poisoning import Attacked, Plan, train_poisoned
from shapprune.data.dataset import LabeledImages
from shapprune.errors import InputError
from shapprune.method.triggers import Trigger


@dataclass(frozen=True)
class Reflection:
    """A picture reflected in each image.

    Attributes:
        alpha: the reflection's share in (0, 1].
        shift: pixels between its two copies, down and to the right; from 0 on.
        second: how strong the second copy is, in [0, 1] of the whole.
    """

    alpha: float = 0.3
    shift: int = 3
    second: float = 0.35

    def run(self, network: nn.Module, data: LabeledImages, plan: Plan) -> Attacked:
        """Poison the data and train on them.

        Raises:
            InputError: an alpha, shift or second out of range; see `poison` and `train`.
        """
        generator = torch.Generator().manual_seed(plan.seed)
        drawn = int(torch.randint(len(data.images), (), generator=generator))
        trigger = self.trigger(data.images[drawn].cpu())
        return train_poisoned(network, data, plan, trigger=trigger, generator=generator)

    def trigger(self, picture: Tensor) -> Trigger:
        """The reflection of a picture (C, H, W) in [0, 1]."""
        most = min(picture.shape[1:]) - 1
        if not (0 < self.alpha <= 1 and 0 <= self.second <= 1 and 0 <= self.shift <= most):
            raise InputError(
                f"alpha must be in (0, 1], second in [0, 1] and shift in 0 .. {most}, "
                f"got {self.alpha}, {self.second} and {self.shift}"
            )
        again = picture.roll((self.shift, self.shift), (1, 2))
        ghost = (1 - self.second) * picture + self.second * again
        return Trigger(torch.full((1, *picture.shape[1:]), self.alpha), ghost)
