"""How the attacks train their networks: one plain recipe for images of any kind."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.augmentation import augment
from shapprune.errors import InputError
from shapprune.randomness import own_random_state

_LABEL_SMOOTHING = 0.05
_WEIGHT_DECAY = 0.01


def train(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    seed: int,
    batch_size: int = 128,
    learning_rate: float = 5e-3,
    flip: bool = False,
    shift: float = 0.1,
    colour: float = 0.2,
    linear_only: bool = False,
    progress: Callable[[float], None] | None = None,
) -> nn.Module:
    """A trained copy of the network, in eval mode and without gradients.

    AdamW with the one-cycle schedule (Smith and Topin 2019) on augmented images, cross-entropy
    with smoothed labels. The same seed gives the same weights on the same CPU; the caller's
    network and the global random state stay as they are.

    Args:
        network: maps images in [0, 1] to logits (n, classes).
        images: float (n, C, H, W) in [0, 1], n at least 2.
        labels: int64 (n,).
        epochs: passes over the images.
        seed: of the order of the images, their augmentation and dropout.
        batch_size: at least 2; a last batch of one image waits for another epoch, since batch
            norms need two.
        learning_rate: the highest of the schedule.
        flip, shift, colour: see `augment`.
        linear_only: train the linear layers alone; norms keep their statistics.
        progress: called with the share of the work done.

    Raises:
        InputError: too few images, labels or epochs, or too small a batch.
    """
    if len(images) < 2 or len(labels) != len(images):
        raise InputError(
            f"training needs two images or more and a label for each, got {len(images)} images "
            f"and {len(labels)} labels"
        )
    if epochs < 1 or batch_size < 2:
        raise InputError(
            f"epochs must be at least 1 and batch_size at least 2, got {epochs} and {batch_size}"
        )
    model = deepcopy(network).requires_grad_(not linear_only).train(not linear_only)
    if linear_only:
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.requires_grad_(True)
    like = next(p for p in model.parameters() if p.is_floating_point())
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise InputError("there is no linear layer to train")
    optimizer = torch.optim.AdamW(trained, learning_rate, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        learning_rate,
        epochs=epochs,
        steps_per_epoch=batches_per_epoch(len(images), batch_size),
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.enable_grad(), own_random_state(seed, like.device):
        for batch in training_batches(
            images,
            labels,
            like=like,
            epochs=epochs,
            batch_size=batch_size,
            flip=flip,
            shift=shift,
            colour=colour,
            generator=generator,
        ):
            loss = F.cross_entropy(
                model(batch.images), batch.labels, label_smoothing=_LABEL_SMOOTHING
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if progress:
                progress(batch.share)
    return model.eval().requires_grad_(False)


@dataclass(frozen=True, eq=False)
class Batch:
    """Some augmented images (n, C, H, W), their labels (n,), the share of the work done with them.

    Both are where the network is.
    """

    images: Tensor
    labels: Tensor
    share: float


def training_batches(
    images: Tensor,
    labels: Tensor,
    *,
    like: Tensor,
    epochs: int,
    batch_size: int,
    flip: bool = False,
    shift: float = 0.1,
    colour: float = 0.2,
    generator: torch.Generator,
) -> Iterator[Batch]:
    """All images, augmented and in a new order in each epoch.

    Args:
        like: of the device and dtype that the images shall have.
        epochs, batch_size, flip, shift, colour: see `train`.
        generator: on the CPU.
    """
    per_epoch = batches_per_epoch(len(images), batch_size)
    for epoch in range(epochs):
        batches = torch.randperm(len(images), generator=generator).split(batch_size)
        for batch, rows in enumerate(batches[:per_epoch]):
            varied = augment(
                images[rows].to(like),
                generator=generator,
                shift=shift,
                flip=flip,
                colour=colour,
            )
            share = (epoch + (batch + 1) / per_epoch) / epochs
            yield Batch(varied, labels[rows].to(like.device), share)


def batches_per_epoch(images: int, batch_size: int) -> int:
    """So many batches make an epoch; one of a single image is left out."""
    return images // batch_size + (images % batch_size > 1)
