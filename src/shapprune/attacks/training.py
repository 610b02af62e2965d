"""How the attacks train their networks: one plain recipe for images of any kind."""

from collections.abc import Callable
from copy import deepcopy

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
    model = deepcopy(network).requires_grad_(True).train()
    like = next(p for p in model.parameters() if p.is_floating_point())
    per_epoch = len(images) // batch_size + (len(images) % batch_size > 1)
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, epochs=epochs, steps_per_epoch=per_epoch
    )
    generator = torch.Generator().manual_seed(seed)
    with own_random_state(seed, like.device):
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
                loss = F.cross_entropy(
                    model(varied), labels[rows].to(like.device), label_smoothing=_LABEL_SMOOTHING
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                if progress:
                    progress((epoch + (batch + 1) / per_epoch) / epochs)
    return model.eval().requires_grad_(False)
