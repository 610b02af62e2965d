"""How a model's makers prepare an image: resized, then cropped from the centre."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}  # in the order of Pillow's numbers, which transformers writes


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before its numbers are normalised.

    Attributes:
        resize: (H, W) to resize to; None: not at all.
        fit: "exact" to have just that size, "cover" to keep the proportions and have no side
            smaller.
        interpolation: one of `INTERPOLATIONS`, as Pillow does it.
        crop: (H, W) cut from the centre, and black where the image is smaller; None: not at all.
    """

    resize: tuple[int, int] | None = None
    fit: Literal["exact", "cover"] = "exact"
    interpolation: str = "bilinear"
    crop: tuple[int, int] | None = None


def prepare(images: Tensor, how: Preprocessing | None, changes: Counter[str]) -> Tensor:
    """Images (n, C, h, w) in [0, 1] as ``how`` says; ``changes`` counts those that were changed."""
    if how is None:
        return images
    before, steps = images.shape, []
    if how.resize:
        images = _resized(images, _target(images, how), how.interpolation)
        kept = " or more" if how.fit == "cover" else ""
        steps.append(f"resized to {how.resize[0]}x{how.resize[1]}{kept} ({how.interpolation})")
    if how.crop:
        images = centre_crop(images, how.crop)
        steps.append(f"cropped to {how.crop[0]}x{how.crop[1]}")
    if steps and (images.shape != before or how.resize not in (None, how.crop)):
        changes[f"{' and '.join(steps)}, as the source states"] += len(images)
    return images


def _target(images: Tensor, how: Preprocessing) -> tuple[int, int]:
    assert how.resize
    if how.fit == "exact":
        return how.resize
    height, width = images.shape[2:]
    scale = max(how.resize[0] / height, how.resize[1] / width)
    # The shorter side is as wanted, the longer one is rounded down: as torchvision's Resize.
    return max(how.resize[0], int(height * scale)), max(how.resize[1], int(width * scale))


def _resized(images: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    if tuple(images.shape[2:]) == size:
        return images
    levels = (images * 255).round().to(torch.uint8)  # Pillow's sums are whole numbers, too
    planes = [
        np.asarray(Image.fromarray(plane).resize((size[1], size[0]), INTERPOLATIONS[interpolation]))
        for plane in levels.flatten(0, 1).numpy()
    ]
    return torch.from_numpy(np.stack(planes)).view(*images.shape[:2], *size).float() / 255


def centre_crop(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle of images (n, C, h, w); what lies outside of them is black.

    >>> centre_crop(torch.arange(5.0).view(1, 1, 1, 5), (1, 3)).flatten()
    tensor([1., 2., 3.])
    """
    lacking = [max(0, want - have) for want, have in zip(size, images.shape[2:], strict=True)]
    if any(lacking):
        (rows, columns) = lacking
        images = F.pad(images, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
    top, left = (
        round((have - want) / 2) for want, have in zip(size, images.shape[2:], strict=True)
    )
    return images[:, :, top : top + size[0], left : left + size[1]]
