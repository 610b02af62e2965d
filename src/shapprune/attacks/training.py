"""How the attacks train their networks: one plain recipe for images of any kind."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.data.augmentation import augment
from shapprune.errors import InputError
from shapprune.utils.rng import own_random_state

_FAST_STEP = 1.25  # of the largest change, as Wong et al. take it


@dataclass(frozen=True)
class Learning:
    """How a network learns; the defaults are the project's own recipe.

    Attributes:
        optimizer: "adamw", or "sgd" with Nesterov's momentum of 0.9.
        schedule: of the learning rate, "one-cycle" (Smith and Topin 2019) or "constant".
        weight_decay: of the optimizer.
        label_smoothing: share of the answer that goes to all classes alike.
        shift, colour: see `augment`; 0 for images as they are.
        adversarial: largest change of a pixel by which every training image is made harder, by a
            fast gradient step from a random start (Wong, Rice and Kolter 2020); 0 for none.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    weight_decay: float = 0.01
    label_smoothing: float = 0.05
    shift: float = 0.1
    colour: float = 0.2
    adversarial: float = 0.0

    def check(self) -> None:
        """Raise InputError for what cannot be learnt with."""
        known = {"optimizer": ("adamw", "sgd"), "schedule": ("one-cycle", "constant")}
        for name, several in known.items():
            if getattr(self, name) not in several:
                raise InputError(
                    f"{name} must be {' or '.join(several)}, got {getattr(self, name)!r}"
                )
        for name in ("weight_decay", "label_smoothing", "shift", "colour", "adversarial"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InputError(f"{name} must be in [0, 1], got {value}")


OWN = Learning()


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
    learning: Learning = OWN,
    linear_only: bool = False,
    progress: Callable[[float], None] | None = None,
) -> nn.Module:
    """A trained copy of the network, in eval mode and without gradients.

    On augmented images, by cross-entropy; the rest is in `Learning`. The same seed gives the same
    weights on the same CPU; the caller's network and the global random state stay as they are.

    Args:
        network: maps images in [0, 1] to logits (n, classes).
        images: float (n, C, H, W) in [0, 1], n at least 2.
        labels: int64 (n,).
        epochs: passes over the images.
        seed: of the order of the images, their augmentation and dropout.
        batch_size: at least 2; a last batch of one image waits for another epoch, since batch
            norms need two.
        learning_rate: the highest of the schedule.
        flip, shift, colour: see `augment`; those of ``learning`` are for who calls this.
        learning: the optimizer, its schedule and the loss.
        linear_only: train the linear layers alone; norms keep their statistics.
        progress: called with the share of the work done.

    Raises:
        InputError: too few images, labels or epochs, too small a batch, or see `Learning`.
    """
    learning.check()
    if len(images) < 2 or len(labels) != len(images):
        raise InputError(
            f"training needs two images or more and a label for each, got {len(images)} images "
            f"and {len(labels)} labels"
        )
    if epochs < 1 or batch_size < 2:
        raise InputError(
            f"epochs must be at least 1 and batch_size at least 2, got {epochs} and {batch_size}"
        )
    model = _trainable(network, linear_only=linear_only)
    like = next(p for p in model.parameters() if p.is_floating_point())
    optimizer = _optimizer(model, learning_rate, learning)
    schedule = None
    if learning.schedule == "one-cycle":
        steps = batches_per_epoch(len(images), batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, learning_rate, epochs=epochs, steps_per_epoch=steps
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
            loss = _loss(model, batch.images, batch.labels, learning, generator)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if schedule:
                schedule.step()
            if progress:
                progress(batch.share)
    return model.eval().requires_grad_(False)


def _trainable(network: nn.Module, *, linear_only: bool) -> nn.Module:
    """A copy in train mode; or, in eval mode, with gradients for the linear layers alone."""
    model = deepcopy(network).requires_grad_(not linear_only).train(not linear_only)
    if linear_only:
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.requires_grad_(True)
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError("there is no linear layer to train")
    return model


def _optimizer(model: nn.Module, learning_rate: float, learning: Learning) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    if learning.optimizer == "adamw":
        return torch.optim.AdamW(trained, learning_rate, weight_decay=learning.weight_decay)
    return torch.optim.SGD(
        trained, learning_rate, momentum=0.9, nesterov=True, weight_decay=learning.weight_decay
    )


def _loss(
    model: nn.Module, images: Tensor, labels: Tensor, learning: Learning, generator: torch.Generator
) -> Tensor:
    if learning.adversarial:
        images = _harder(model, images, labels, learning.adversarial, generator)
    return F.cross_entropy(model(images), labels, label_smoothing=learning.label_smoothing)


def _harder(
    model: nn.Module, images: Tensor, labels: Tensor, most: float, generator: torch.Generator
) -> Tensor:
    """The images (n, C, H, W), changed by at most so much a pixel against the model."""
    start = most * (2 * torch.rand(images.shape, generator=generator) - 1)
    change = start.to(images).requires_grad_()
    loss = F.cross_entropy(model((images + change).clamp(0, 1)), labels)
    (slope,) = torch.autograd.grad(loss, change)
    change = (change.detach() + _FAST_STEP * most * slope.sign()).clamp(-most, most)
    return (images + change).clamp(0, 1)


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
