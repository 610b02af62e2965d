"""BppAttack: fewer levels of brightness, with the rounding errors spread over the neighbours.

Wang, Zhai and Ma, "BppAttack: Stealthy and Efficient Trojan Attacks against Deep Neural Networks
via Image Quantization and Contrastive Adversarial Learning", CVPR 2022, Sec. 3.2. Here the images
are poisoned and the network is trained on them; the paper's contrastive part is left out.
"""

from dataclasses import dataclass

import torch
from torch import nn

from shapprune.attacks.poisoning import Attacked, Plan, train_poisoned
from shapprune.attacks.triggers import Dithering
from shapprune.data.dataset import LabeledImages
from shapprune.errors import InputError


@dataclass(frozen=True)
class Quantisation:
    """Dithered images.

    Attributes:
        levels: of each channel; at least 2. The paper's are 8.
    """

    levels: int = 8

    def run(self, network: nn.Module, data: LabeledImages, plan: Plan) -> Attacked:
        """Poison the data and train on them.

        Raises:
            InputError: fewer than two levels; see `poison` and `train`.
        """
        generator = torch.Generator().manual_seed(plan.seed)
        return train_poisoned(network, data, plan, trigger=self.trigger(), generator=generator)

    def trigger(self) -> Dithering:
        """What an image becomes."""
        if self.levels < 2:
            raise InputError(f"levels must be at least 2, got {self.levels}")
        return Dithering(torch.tensor(self.levels))
