"""Random place: a patch that is put on every image at another place.

Salem, Wen, Backes, Ma and Zhang, "Dynamic Backdoor Attacks Against Machine Learning Models",
2020, Sec. 4.1 (Random Backdoor), with one patch and a place drawn from the whole image.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from shapprune.attacks.badnets import in_pixels
from shapprune.attacks.patterns import draw_pattern
from shapprune.attacks.poisoning import Attacked, Plan, train_poisoned
from shapprune.attacks.triggers import RandomPlaces
from shapprune.data.dataset import LabeledImages
from shapprune.errors import InputError


@dataclass(frozen=True)
class RandomPlace:
    """An opaque square, drawn once, at a place of its own on every image.

    Attributes:
        size, pattern: see `PatternPatch`.
    """

    size: float = 5
    pattern: Literal["checkerboard", "noise", "plain"] = "noise"

    def run(self, network: nn.Module, data: LabeledImages, plan: Plan) -> Attacked:
        """Poison the data and train on them.

        Raises:
            InputError: a pattern that there is not, or a patch larger than the images; see `poison`
                and `train`.
        """
        generator = torch.Generator().manual_seed(plan.seed)
        trigger = self.trigger(tuple(data.images.shape[1:]), generator)
        return train_poisoned(network, data, plan, trigger=trigger, generator=generator)

    def trigger(self, shape: tuple[int, ...], generator: torch.Generator) -> RandomPlaces:
        """The patch for images of a shape (C, H, W)."""
        channels, height, width = shape
        size = in_pixels(self.size, shape)
        if size > min(height, width):
            raise InputError(f"trigger size must be at most {min(height, width)}, got {size}")
        patch = draw_pattern(self.pattern, (channels, size, size), generator)
        seed = torch.randint(2**31, (), generator=generator)
        return RandomPlaces(patch, torch.tensor([height, width]), seed)
