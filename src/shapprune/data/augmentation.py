"""Random variations of the few images, so that what is learned on them holds on others."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.model.metrics import predict


def flip_allowed(model: nn.Module, images: Tensor) -> bool:
    """Whether mirrored images keep their meaning: the model answers nine in ten as before.

    Signs and digits lose theirs, animals and cars do not; the model knows which it was taught.

    Args:
        images: (n, C, H, W) in [0, 1].
    """
    same = predict(model, images) == predict(model, images.flip(-1))
    return bool(same.float().mean() >= 0.9)


def augment(
    images: Tensor,
    *,
    generator: torch.Generator,
    shift: float = 0.1,
    flip: bool = False,
    colour: float = 0.2,
) -> Tensor:
    """Each image shifted, mirrored and recoloured at random.

    Args:
        images: (n, C, H, W) in [0, 1].
        generator: on the CPU, whatever the device of the images.
        shift: largest shift each way, as a share of the image's sides; the border is repeated.
        flip: mirror every other image.
        colour: contrast varies by this much, the brightness of each channel by half of it.

    Returns:
        (n, C, H, W) in [0, 1], a new tensor.
    """
    n, channels, height, width = images.shape
    device = images.device

    def pick(side: int) -> Tensor:
        reach = round(side * shift)
        start = torch.randint(-reach, reach + 1, (n, 1), generator=generator)
        return (start + torch.arange(side)).clamp(0, side - 1).to(device)

    rows, columns = pick(height), pick(width)
    if flip:
        mirrored = torch.rand(n, 1, generator=generator) < 0.5
        columns = torch.where(mirrored.to(device), columns.flip(1), columns)
    each = torch.arange(n, device=device)[:, None, None]
    shifted = images.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]]
    shifted = shifted.permute(0, 3, 1, 2)
    contrast = 1 + colour * (2 * torch.rand(n, 1, 1, 1, generator=generator) - 1)
    brightness = colour / 2 * (2 * torch.rand(n, channels, 1, 1, generator=generator) - 1)
    mean = shifted.mean((1, 2, 3), keepdim=True)
    varied = (shifted - mean) * contrast.to(images) + mean + brightness.to(images)
    return varied.clamp(0, 1).contiguous()


def warp(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Each image turned by up to 25°, zoomed by 0.6 to 1.3 and moved at random.

    Farther from the given images than `augment` goes.

    Args:
        images: (n, C, H, W).
        generator: on the CPU.
    """
    n = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    angle, scale, aspect = uniform(-0.44, 0.44), uniform(0.6, 1.3), uniform(0.8, 1.2)
    margin = 0.3 * (1 - scale).clamp(min=0.1)
    across, down = margin * uniform(-1, 1), margin * uniform(-1, 1)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    rows = torch.stack([cos * aspect, -sin, across, sin, cos / aspect, down], 1)
    grid = F.affine_grid(rows.view(n, 2, 3).to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def mix(
    images: Tensor, others: Tensor, *, generator: torch.Generator, share: float = 0.5
) -> Tensor:
    """A share of the images mixed with others: half of it blended, half with a pasted rectangle.

    A teacher answers such images as well as real ones, and ten images make thousands of them
    (mixup, Zhang et al. 2018; CutMix, Yun et al. 2019).

    Args:
        images, others: (n, C, H, W).
    """
    n, _, height, width = images.shape
    kind = torch.rand(n, 1, 1, 1, generator=generator)
    blend = torch.rand(n, 1, 1, 1, generator=generator)
    inside = torch.ones(n, 1, 1, 1, dtype=torch.bool)
    for side, shape in ((height, (1, 1, -1, 1)), (width, (1, 1, 1, -1))):
        centre = side * torch.rand(n, 1, 1, 1, generator=generator)
        extent = side * torch.rand(n, 1, 1, 1, generator=generator)
        inside = inside & ((torch.arange(side).view(shape) - centre).abs() <= extent / 2)
    weight = torch.where(kind < share / 2, blend, 1 - inside.float())
    weight = torch.where(kind < share, weight, 1.0).to(images)
    return weight * images + (1 - weight) * others


def bend(
    images: Tensor, *, generator: torch.Generator, nodes: int = 5, strength: float = 0.12
) -> Tensor:
    """Each image bent smoothly, by a field of its own: an elastic distortion (Simard et al. 2003).

    Objects of other shapes, as other hands write digits.

    Args:
        images: (n, C, H, W).
        generator: on the CPU.
        nodes: a side, whose random shifts are interpolated.
        strength: standard deviation of the shifts at most, as a share of half of a side.
    """
    n, _, height, width = images.shape
    size = strength * torch.rand(n, 1, 1, 1, generator=generator)
    shifts = size * torch.randn(n, 2, nodes, nodes, generator=generator)
    field = F.interpolate(shifts, (height, width), mode="bicubic", align_corners=True)
    still = torch.eye(2, 3).expand(n, 2, 3)
    grid = F.affine_grid(still, [n, 1, height, width], align_corners=False)
    grid = (grid + field.permute(0, 2, 3, 1)).to(images)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
