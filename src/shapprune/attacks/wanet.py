"""WaNet: a slight warp of the whole image, the same for all.

Nguyen and Tran, "WaNet: Imperceptible Warping-based Backdoor Attack", ICLR 2021: a field of k × k
random vectors (Eq. 4), scaled by s, upsampled to the image (Eq. 5). In the noise mode (Sec. 3.3)
other images keep their labels under warps of their own, so that only the one field opens the door.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from shapprune.attacks.poisoning import Attacked, Plan, poison_as_planned, train_as_planned
from shapprune.attacks.triggers import Warp, warp_images
from shapprune.data.dataset import LabeledImages
from shapprune.errors import InputError


@dataclass(frozen=True)
class WaNet:
    """A warp drawn from the seed.

    Attributes:
        points: k, control points a side.
        strength: s, the mean shift at the control points, in half pixels of an image's height.
        noise: images with noisy warps and their own labels, for each poisoned one.
    """

    points: int = 4
    strength: float = 0.5
    noise: float = 2.0

    def run(self, network: nn.Module, data: LabeledImages, plan: Plan) -> Attacked:
        """Poison the data, warp others by noise, and train on all.

        Raises:
            InputError: no control points, a strength of 0 or less, noise below 0 or for more images
                than are left; see `poison` and `train`.
        """
        generator = torch.Generator().manual_seed(plan.seed)
        trigger = self.trigger(tuple(data.images.shape[1:]), generator)
        poisoned = poison_as_planned(data, plan, trigger, generator)
        clean = torch.ones(len(poisoned.labels), dtype=torch.bool)
        clean[poisoned.poisoned.cpu()] = False
        rest = clean.nonzero().flatten()
        noisy = round(self.noise * len(poisoned.poisoned))
        if not 0 <= noisy <= len(rest):
            raise InputError(
                f"noise must be 0 or more and leave images: {noisy} of {len(rest)} clean ones "
                f"would be warped, got {self.noise} at rate {plan.rate}"
            )
        rows = rest[torch.randperm(len(rest), generator=generator)[:noisy]]
        rows = rows.to(poisoned.images.device)
        shake = 2 * torch.rand(noisy, *trigger.grid.shape, generator=generator) - 1
        grids = (trigger.grid + shake / trigger.grid.shape[0]).clamp(-1, 1)
        poisoned.images[rows] = warp_images(poisoned.images[rows], grids)
        model = train_as_planned(network, poisoned.images, poisoned.labels, plan)
        return Attacked(model, trigger, len(poisoned.poisoned))

    def trigger(self, shape: tuple[int, ...], generator: torch.Generator) -> Warp:
        """The warp for images of a shape (C, H, W)."""
        if self.points < 2 or not self.strength > 0:
            raise InputError(
                f"points must be at least 2 and strength above 0, got {self.points} and "
                f"{self.strength}"
            )
        height, width = shape[1:]
        control = 2 * torch.rand(1, 2, self.points, self.points, generator=generator) - 1
        control = control / control.abs().mean()
        field = F.interpolate(control, (height, width), mode="bicubic", align_corners=True)
        y, x = torch.meshgrid(
            torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
        )
        shift = self.strength / height * field[0].permute(1, 2, 0)
        return Warp((torch.stack([x, y], -1) + shift).clamp(-1, 1))
