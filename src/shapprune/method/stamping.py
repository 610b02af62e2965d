"""What windows and perturbations share: drawing images of other classes, and measuring a stamp."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shapprune.data.augmentation import augment
from shapprune.errors import InputError
from shapprune.method.margins import margins_of
from shapprune.method.triggers import Stamp
from shapprune.model.inference import CHUNK, evaluating


def images_of_others(labels: Tensor, classes: Sequence[int]) -> list[Tensor]:
    """For each of these classes, which images are of another one.

    Raises:
        InputError: none is, for one of the classes.
    """
    found = [(labels != c).nonzero().flatten() for c in classes]
    if not all(map(len, found)):
        raise InputError("windows and perturbations need images of at least two classes")
    return found


def draw_images(
    images: Tensor, rows: Sequence[Tensor], group: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Varied images for a step of every search.

    Args:
        images: (n, C, H, W) in [0, 1].
        rows: of each group, the images that may be drawn.
        group: of each search (s,).
        count: images a search.
        generator: on the CPU.

    Returns:
        Which images were drawn (s, count), and their variations (s, count, C, H, W).
    """
    sizes = torch.tensor([len(mine) for mine in rows])[group.cpu()]
    table = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)[group]
    pick = (torch.rand(len(group), count, generator=generator) * sizes[:, None]).long()
    drawn = table.gather(1, pick.to(table.device))
    batch = augment(images[drawn.flatten()], generator=generator)
    return drawn, batch.view(*drawn.shape, *images.shape[1:])


@dataclass(frozen=True)
class Effect:
    """What stamps do to images of other classes, one a class.

    Attributes:
        margins: of the class, the mean.
        shares: of the images that are sent to it, in [0, 1].
        passes: image passes.
    """

    margins: tuple[float, ...]
    shares: tuple[float, ...]
    passes: int


def measure_stamps(
    model: nn.Module,
    images: Tensor,
    *,
    rows: Sequence[Tensor],
    classes: Sequence[int],
    stamps: Sequence[Stamp],
    views: int,
    generator: torch.Generator,
) -> Effect:
    """What each class's stamp does, on at most so many variations of its images.

    Args:
        model: maps images in [0, 1] to logits.
        images: (n, C, H, W) in [0, 1].
        rows: of each class, the images that its stamp is put on.
        classes, stamps: as many.
        views: images and variations together; of more images than that, so many are drawn.
        generator: on the CPU.
    """
    margins, shares, passes = [], [], 0
    with evaluating(model), torch.no_grad():
        for mine, c, stamp in zip(rows, classes, stamps, strict=True):
            seen = mine
            if len(mine) > views:
                seen = mine[torch.randperm(len(mine), generator=generator)[:views].to(mine.device)]
            some = images[seen].repeat(max(1, views // len(seen)), 1, 1, 1)
            parts = stamp.stamp(augment(some, generator=generator)).split(CHUNK)
            answers = torch.full((CHUNK,), c, device=images.device)
            margin = torch.cat([margins_of(model(x), answers[: len(x)]) for x in parts])
            margins.append(float(margin.mean()))
            shares.append(float((margin > 0).float().mean()))
            passes += len(some)
    return Effect(tuple(margins), tuple(shares), passes)
