"""Under what a verdict must hold: how many images are given, what is wrong with them, how the
machine adds."""

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from shapprune.errors import InputError

Look: TypeAlias = Literal["as they are", "other source", "jpeg"]
QUALITY = 30  # of JPEG


@dataclass(frozen=True)
class Condition:
    """What is other than in an ordinary scan.

    Attributes:
        per_class: images a class.
        mislabelled: share of the images whose label is another class's.
        look: what befell the images.
        other_sums: whether float32 sums are added in another order.
    """

    per_class: int = 1
    mislabelled: float = 0.0
    look: Look = "as they are"
    other_sums: bool = False


BASE = "base"
CONDITIONS: Mapping[str, Condition] = {
    BASE: Condition(),
    "2-a-class": Condition(per_class=2),
    "5-a-class": Condition(per_class=5),
    "10-a-class": Condition(per_class=10),
    "mislabelled-10": Condition(mislabelled=0.1),
    "mislabelled-30": Condition(mislabelled=0.3),
    "other-source": Condition(look="other source"),
    "jpeg-30": Condition(look="jpeg"),
    "order-of-sums": Condition(other_sums=True),
}


def mislabel(
    labels: Tensor, share: float, *, classes: int, generator: torch.Generator
) -> tuple[Tensor, int]:
    """Labels of which a share, at least one, is replaced by another class, all drawn at random.

    Args:
        labels: int64 (n,), each below ``classes``.
        share: in [0, 1]; none of them where it is 0.
        classes: at least two.

    Returns:
        The labels, a new tensor, and how many were replaced.
    """
    count = max(1, round(share * len(labels))) if share else 0
    rows = torch.randperm(len(labels), generator=generator)[:count]
    found = labels.clone()
    found[rows] += torch.randint(1, classes, (count,), generator=generator)
    return found % classes, count


def looking(images: Tensor, look: Look, generator: torch.Generator) -> Tensor:
    """Images as a condition has them, a new tensor of the same shape in [0, 1].

    Args:
        images: (n, C, H, W) in [0, 1].

    Raises:
        InputError: JPEG has no such number of channels.
    """
    if look == "other source":
        return other_source(images, generator)
    return as_jpeg(images) if look == "jpeg" else images.clone()


def other_source(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images as one other camera would have taken them, a new tensor in [0, 1].

    In this order, the same for all images: a slight blur (binomial, 1 2 1 each way, the border
    repeated); resized to three quarters of the sides and back (bilinear, antialiased); each channel
    times a factor from 0.85 to 1.15 (of grey images this is exposure); contrast around 0.5 times
    0.75 to 1.25; -0.1 to 0.1 added. The five numbers of colour images, three of grey ones, are
    drawn uniformly.

    Args:
        images: (n, C, H, W) in [0, 1].
    """
    channels, height, width = images.shape[1:]
    cast, contrast, brightness = (
        reach * (2 * torch.rand(n, generator=generator) - 1)
        for reach, n in ((0.15, channels), (0.25, 1), (0.1, 1))
    )
    line = torch.tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(line, line).expand(channels, 1, 3, 3)
    taken = F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel, groups=channels)
    for size in ((3 * height // 4, 3 * width // 4), (height, width)):
        taken = F.interpolate(taken, size=size, mode="bilinear", antialias=True)
    taken = taken * (1 + cast)[:, None, None]
    return ((taken - 0.5) * (1 + contrast) + 0.5 + brightness).clamp(0, 1)


def as_jpeg(images: Tensor, quality: int = QUALITY) -> Tensor:
    """Each image written as JPEG and read again, a new tensor in [0, 1].

    Args:
        images: (n, C, H, W) in [0, 1], with one channel or three.

    Raises:
        InputError: another number of channels.
    """
    if images.shape[1] not in (1, 3):
        raise InputError(f"JPEG has one channel or three, got images of {images.shape[1]}")
    found = []
    for pixels in (255 * images).round().byte().permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(
            file, "JPEG", quality=quality
        )
        read = np.asarray(Image.open(file), dtype=np.float32) / 255
        found.append(torch.from_numpy(read).reshape(pixels.shape).permute(2, 0, 1))
    return torch.stack(found)


@contextmanager
def adding(*, otherwise: bool) -> Iterator[None]:
    """Float32 sums in the usual order inside the block, or in another one.

    The other order is PyTorch's own convolutions instead of oneDNN's, which add the same products
    otherwise. (Memory format would be no such change: a scan chooses it itself.) Where PyTorch
    comes without oneDNN, and in networks without convolutions, nothing is other: results tell.
    """
    if not otherwise:
        yield
        return
    with warnings.catch_warnings():  # the flags speak of Intel's GPUs when they are set
        warnings.filterwarnings("ignore", message="TF32 acceleration", category=UserWarning)
        with torch.backends.mkldnn.flags(enabled=False):
            yield
