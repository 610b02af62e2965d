"""SIG: faint stripes on images of the target class, whose labels stay right.

Barni, Kallas and Tondi, "A New Backdoor Attack in CNNs by Training Set Corruption Without Label
Poisoning", ICIP 2019: v(i, j) = Δ sin(2π j f / m), j the column and m their number.
"""

from dataclasses import dataclass
from math import tau

import torch
from torch import nn

from shapprune.attacks.poisoning import Attacked, Plan, train_poisoned
from shapprune.data.dataset import LabeledImages
from shapprune.errors import InputError
from shapprune.method.triggers import Perturbation


@dataclass(frozen=True)
class Sig:
    """A horizontal sine wave added to the image: a clean-label attack.

    Attributes:
        strength: Δ, the wave's amplitude, for images in [0, 1].
        frequency: f, the waves across the image.
    """

    strength: float = 40 / 255
    frequency: float = 6.0

    def run(self, network: nn.Module, data: LabeledImages, plan: Plan) -> Attacked:
        """Stamp images of the target class and train on all.

        Raises:
            InputError: a target that is not one class, as stamped images carry no other label; a
                strength outside (0, 1] or a frequency of 0 or less; see `poison` and `train`.
        """
        if callable(plan.target):
            raise InputError("sig changes no labels: it needs one target class")
        generator = torch.Generator().manual_seed(plan.seed)
        trigger = self.trigger(tuple(data.images.shape[1:]))
        return train_poisoned(
            network, data, plan, trigger=trigger, clean_label=True, generator=generator
        )

    def trigger(self, shape: tuple[int, ...]) -> Perturbation:
        """The wave for images of a shape (C, H, W).

        >>> Sig(strength=0.5, frequency=1).trigger((1, 1, 4)).delta.round(decimals=2) + 0
        tensor([[[ 0.0000,  0.5000,  0.0000, -0.5000]]])
        """
        if not 0 < self.strength <= 1 or not self.frequency > 0:
            raise InputError(
                "strength must be above 0 and at most 1 and frequency above 0, "
                f"got {self.strength} and {self.frequency}"
            )
        wave = torch.sin(tau * self.frequency * torch.arange(shape[2]) / shape[2])
        return Perturbation((self.strength * wave).expand(shape).clone())
