"""Plain fine-tuning on the few images: the floor of all defences, and the last step of several.

The recipe is that of BackdoorBench (Wu et al. 2022): SGD, learning rate 0.01 with a cosine
schedule, momentum 0.9, weight decay 5e-4, batches of up to 256 for 100 epochs, images shifted and,
where the model allows it, mirrored.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.data.augmentation import augment, flip_allowed
from shapprune.model.classifier import check_input
from shapprune.utils.rng import own_random_state

Progress: TypeAlias = Callable[[float], None]  # takes the share of the work done

_LEAST_BATCHES = 100


def plain_fine_tune(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int = 100,
    batch_size: int = 256,
    seed: int = 0,
    progress: Progress | None = None,
) -> nn.Module:
    """A copy fine-tuned on clean images.

    Args:
        model: maps images in [0, 1] to logits; left as it was.
        images, labels: clean, (n, C, H, W) in [0, 1] and int64 (n,).
        epochs: passes over the images.
        batch_size: at most; fewer images make smaller batches.
        seed: of all random draws.
        progress: called with the share of the work done.

    Raises:
        InputError: what does not fit, in one line.
    """
    images, labels, _ = check_input(model, images, labels)
    copy = deepcopy(model)
    train_on(
        copy, images, labels, epochs=epochs, batch_size=batch_size, seed=seed, progress=progress
    )
    return copy


def unlearn(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    stamps: Sequence[Callable[[Tensor], Tensor]],
    norms: Sequence[float],
    targets: Sequence[int],
    share: float = 0.2,
    epochs: int | None = None,
    batch_size: int = 32,
    seed: int,
    progress: Progress | None = None,
) -> nn.Module:
    """A copy that has seen a share of its images stamped, under their true labels.

    That is Neural Cleanse's unlearning (Sec. VI-B there), which its successors took over.

    Args:
        stamps: reversed triggers, one a class; those of the classes to `suspects` take turns in a
            batch.
        norms, targets: see `suspects`.
        share: of a batch that is stamped.
        epochs: None for the paper's one, but for 100 batches at least: an epoch of ten images is
            a single one.
        model, images, labels, batch_size, seed, progress: see `plain_fine_tune`.

    Raises:
        InputError: what does not fit, in one line.
    """
    images, labels, _ = check_input(model, images, labels)
    copy, guilty = deepcopy(model), [stamps[target] for target in suspects(norms, targets)]

    def stamped(batch: Tensor) -> Tensor:
        batch = batch.clone()
        for row in range(max(1, round(share * len(batch)))):
            batch[row] = guilty[row % len(guilty)](batch[row : row + 1])[0]
        return batch

    train_on(
        copy,
        images,
        labels,
        epochs=epochs or -(-_LEAST_BATCHES // -(-len(images) // batch_size)),
        batch_size=batch_size,
        change=stamped,
        seed=seed,
        progress=progress,
    )
    return copy


def suspects(norms: Sequence[float], targets: Sequence[int]) -> Sequence[int]:
    """The outlying classes that a scan found, or else the one with the smallest norm.

    Whoever asks for a repair has a suspicion; the scan tells the verdict.

    >>> suspects([3.0, 1.0, 2.0], []), suspects([3.0, 1.0, 2.0], [2])
    ([1], [2])
    """
    return targets or [min(range(len(norms)), key=norms.__getitem__)]


def train_on(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    batch_size: int,
    change: Callable[[Tensor], Tensor] | None = None,
    seed: int,
    progress: Progress | None = None,
) -> None:
    """Train a model of ours in place, in training mode: batch norms read the batch, and learn it.

    Args:
        change: what else is done to a batch of images.
        model, images, labels, epochs, batch_size, seed, progress: see `plain_fine_tune`.
    """
    generator = torch.Generator().manual_seed(seed)
    flip = flip_allowed(model, images)
    model.requires_grad_(True).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    with own_random_state(seed, images.device), torch.enable_grad():
        for epoch in range(epochs):
            for rows in batches(len(images), batch_size, generator):
                varied = augment(images[rows], generator=generator, flip=flip, colour=0.0)
                with torch.no_grad():
                    varied = change(varied) if change else varied
                optimizer.zero_grad()
                F.cross_entropy(model(varied), labels[rows]).backward()
                optimizer.step()
            schedule.step()
            if progress:
                progress((epoch + 1) / epochs)
    optimizer.zero_grad()
    model.requires_grad_(False).eval()


def batches(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """The rows 0 .. n - 1 in random order, in batches of much the same size, none above ``size``.

    With sizes from 3 on, none of two rows or more has a batch of one: batch norms need two.
    """
    yield from torch.randperm(n, generator=generator).tensor_split(-(-n // size))
