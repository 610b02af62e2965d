"""The attackers' triggers, and npz files of them, so that an attack can be measured again."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.errors import InputError
from shapprune.method.triggers import Perturbation, Trigger, check_stamped
from shapprune.model.inference import CHUNK
from shapprune.utils.text import describe, list_names


@dataclass(frozen=True, eq=False)
class Warp:
    """Where each pixel is read from, the same for all images.

    Attributes:
        grid: (H, W, 2), x and y in [-1, 1]; the centres of the corner pixels are at ±1.
    """

    grid: Tensor

    def stamp(self, images: Tensor) -> Tensor:
        """The images (n, C, H, W), warped, in a new tensor on their device.

        Raises:
            InputError: images of another size.
        """
        check_stamped(images, (*images.shape[1:2], *self.grid.shape[:2]))
        return warp_images(images, self.grid.expand(len(images), -1, -1, -1))


@dataclass(frozen=True, eq=False)
class RandomPlaces:
    """An opaque patch that is put on each image at a place of its own.

    The i-th image of a batch gets the i-th place of a fixed row of random ones, so that stamping
    the same batch again gives the same images.

    Attributes:
        patch: (C, h, w) in [0, 1].
        size: int64 (2,), height and width of the images.
        seed: int64, a single number that the places come from.
    """

    patch: Tensor
    size: Tensor
    seed: Tensor

    def stamp(self, images: Tensor) -> Tensor:
        """The images (n, C, H, W), each with the patch somewhere, in a new tensor on their device.

        Raises:
            InputError: images of another shape.
        """
        channels, high, wide = self.patch.shape
        height, width = (int(side) for side in self.size)
        check_stamped(images, (channels, height, width))
        generator = torch.Generator().manual_seed(int(self.seed))
        drawn = torch.rand(len(images), 2, generator=generator)
        corners = (drawn * torch.tensor([height - high + 1, width - wide + 1])).long()
        stamped, patch = images.clone(), self.patch.to(images)
        for image, (top, left) in zip(stamped, corners.tolist(), strict=True):
            image[:, top : top + high, left : left + wide] = patch
        return stamped


@dataclass(frozen=True, eq=False)
class Dithering:
    """Fewer levels a channel; what a pixel's rounding leaves goes to those right of it and below
    (Floyd and Steinberg 1976), so that areas keep their brightness.

    Attributes:
        levels: int64, a single number, at least 2.
    """

    levels: Tensor

    def stamp(self, images: Tensor) -> Tensor:
        """The images (n, C, H, W) in as many levels, in a new tensor on their device.

        Raises:
            InputError: no images.
        """
        check_stamped(images, tuple(images.shape[1:]))
        steps = int(self.levels) - 1
        height, width = images.shape[2:]
        left = F.pad(images, (1, 1, 0, 1))  # room for what runs over the edges
        for y in range(height):
            for x in range(1, width + 1):
                rounded = (left[..., y, x] * steps).round().clamp(0, steps) / steps
                error = left[..., y, x] - rounded
                left[..., y, x] = rounded
                left[..., y, x + 1] += error * 7 / 16
                for across, share in ((-1, 3), (0, 5), (1, 1)):
                    left[..., y + 1, x + across] += error * share / 16
        return left[..., :height, 1 : width + 1].clone()


class TriggerNetwork(nn.Module):
    """A small encoder and decoder: images in, a pattern or a mask of their size out, in [0, 1].

    Args:
        channels: of the images.
        outputs: channels of what is made.
        width: channels of the first layer, a multiple of 4.
    """

    def __init__(self, channels: int, outputs: int, width: int) -> None:
        super().__init__()
        self.first = _layer(channels, width)
        self.down = _layer(width, 2 * width, stride=2)
        self.middle = _layer(2 * width, 2 * width)
        self.up = _layer(2 * width, width)
        self.last = nn.Conv2d(width, outputs, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Float (n, outputs, H, W) in [0, 1] from images (n, C, H, W)."""
        x = self.middle(self.down(self.first(images)))
        made: Tensor = self.last(self.up(F.interpolate(x, images.shape[2:])))
        return made.sigmoid()


def _layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Group norms make each image's trigger independent of the batch that it comes in."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.GroupNorm(4, outputs), nn.ReLU()
    )


@dataclass(frozen=True, eq=False)
class GeneratedTrigger:
    """A pattern and a mask of its own for every image, as in Input-Aware attacks.

    Attributes:
        patterns: makes (n, C, H, W) of images (n, C, H, W).
        masks: makes (n, 1, H, W), which are sharpened.
    """

    patterns: TriggerNetwork
    masks: TriggerNetwork

    def pattern(self, images: Tensor) -> Tensor:
        """The images' patterns (n, C, H, W)."""
        made: Tensor = self.patterns(images)
        return made

    def mask(self, images: Tensor) -> Tensor:
        """The images' masks (n, 1, H, W), all but 0 or 1."""
        made: Tensor = self.masks(images)
        return (10 * (2 * made - 1)).sigmoid()

    @torch.no_grad()
    def stamp(self, images: Tensor) -> Tensor:
        """The images (n, C, H, W), each with its own trigger, in a new tensor on their device.

        Raises:
            InputError: images with another number of channels.
        """
        channels = self.patterns.last.out_channels
        check_stamped(images, (channels, *images.shape[2:]))
        here = self
        if self.patterns.last.weight.to(images) is not self.patterns.last.weight:
            here = GeneratedTrigger(
                deepcopy(self.patterns).to(images), deepcopy(self.masks).to(images)
            )
        parts = images.split(CHUNK)
        return torch.cat([(1 - m) * x + m * here.pattern(x) for x in parts for m in [here.mask(x)]])

    def finished(self) -> "GeneratedTrigger":
        """A copy on the CPU, without gradients."""
        patterns, masks = (
            deepcopy(part).cpu().eval().requires_grad_(False)
            for part in (self.patterns, self.masks)
        )
        return GeneratedTrigger(patterns, masks)


AttackTrigger: TypeAlias = (
    Trigger | Perturbation | Warp | RandomPlaces | Dithering | GeneratedTrigger
)


def warp_images(images: Tensor, grids: Tensor) -> Tensor:
    """Images (n, C, H, W) read at grids (n, H, W, 2), see `Warp`."""
    return F.grid_sample(images, grids.to(images), align_corners=True)


def trigger_bytes(trigger: AttackTrigger) -> bytes:
    """An npz file with all that is needed to stamp again."""
    buffer = BytesIO()
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in _tensors(trigger).items()}
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def load_trigger(path: Path) -> AttackTrigger:
    """The trigger of an npz file that holds what `trigger_bytes` makes, on the CPU.

    Raises:
        InputError: a file that is missing, damaged or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            tensors = {name: torch.from_numpy(archive[name]) for name in archive.files}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged archive can raise anything
        raise InputError(f"{path} is no whole npz file: {describe(error)}") from error
    try:
        trigger = _from_tensors(tensors)
    except (RuntimeError, ValueError):  # parts of a generator are missing or misshaped
        trigger = None
    if trigger is None:
        raise InputError(f"{path} holds no trigger, but {list_names(list(tensors))}")
    return trigger


def _tensors(trigger: AttackTrigger) -> dict[str, Tensor]:
    if isinstance(trigger, GeneratedTrigger):
        return {
            f"{name}.{key}": tensor
            for name, part in (("patterns", trigger.patterns), ("masks", trigger.masks))
            for key, tensor in part.state_dict().items()
        }
    return {field.name: getattr(trigger, field.name) for field in fields(trigger)}


def _from_tensors(tensors: Mapping[str, Tensor]) -> AttackTrigger | None:
    for kind in (Trigger, Perturbation, Warp, RandomPlaces, Dithering):
        if {field.name for field in fields(kind)} == set(tensors):
            return kind(**tensors)
    first = tensors.get("patterns.first.0.weight")
    if first is None or first.ndim != 4:
        return None
    width, channels = first.shape[:2]
    networks = []
    for name, outputs in (("patterns", channels), ("masks", 1)):
        with torch.random.fork_rng(devices=[]):
            network = TriggerNetwork(channels, outputs, width)
        own = {k.removeprefix(f"{name}."): t for k, t in tensors.items() if k.startswith(name)}
        network.load_state_dict(own)
        networks.append(network.eval().requires_grad_(False))
    return GeneratedTrigger(networks[0], networks[1])
