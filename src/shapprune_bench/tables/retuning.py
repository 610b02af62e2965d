"""What comes back after a repair, when its user goes on training (Min et al., arXiv 2410.09838).

A low ASR can be superficial: what hides a backdoor may be undone by a few steps of fine-tuning. The
authors' retuning attack does 5 epochs of SGD at 0.01 on 2 % of the training images, with a few
poisoned ones among them. Here there are none: who tunes a repaired model is its user, not an
attacker, and what comes back by clean images alone was never gone. A thousand images are 2 % of
CIFAR-10's; the rate is theirs, and that of plain fine-tuning; the number of steps is ours.
"""

from copy import deepcopy
from dataclasses import replace

import torch
from torch import nn

from shapprune.baselines.plain_finetuning import train_on
from shapprune.data.dataset import LabeledImages
from shapprune.errors import InputError

IMAGES = 1000
_EPOCHS, _BATCHES = 10, 10
STEPS = _EPOCHS * _BATCHES


def retune(model: nn.Module, data: LabeledImages, *, seed: int) -> nn.Module:
    """A copy after 100 steps of SGD on clean images: ten epochs of ten batches.

    The recipe is that of plain fine-tuning: learning rate 0.01 with a cosine schedule, momentum,
    weight decay, images shifted and mirrored, batch norms in training mode.

    Args:
        model: left as it was.
        data: clean images that the repair has not seen.
        seed: of the order and the variations.

    Raises:
        InputError: fewer than 100 images.
    """
    if len(data.images) < _BATCHES**2:  # of fewer, ten batches cannot be made
        raise InputError(f"retuning needs at least {_BATCHES**2} images, got {len(data.images)}")
    copy = deepcopy(model)
    batch_size = -(-len(data.images) // _BATCHES)
    train_on(copy, data.images, data.labels, epochs=_EPOCHS, batch_size=batch_size, seed=seed)
    return copy


def unseen(
    data: LabeledImages, seen: LabeledImages, *, count: int = IMAGES, generator: torch.Generator
) -> LabeledImages:
    """At most ``count`` images of the data, drawn at random, none of which is among those seen."""
    left = torch.ones(len(data.images), dtype=torch.bool, device=data.images.device)
    for image in seen.images:
        left &= (data.images != image).flatten(1).any(1)
    rows = left.nonzero().flatten()
    rows = rows[torch.randperm(len(rows), generator=generator)[:count].to(rows.device)]
    return replace(data, images=data.images[rows], labels=data.labels[rows])
