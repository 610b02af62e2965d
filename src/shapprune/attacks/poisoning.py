"""Poisoned training sets, and what all attacks have in common: they draw, stamp and train."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shapprune.attacks.labels import Target, wanted_classes
from shapprune.attacks.training import OWN, Learning, train
from shapprune.attacks.triggers import AttackTrigger
from shapprune.data.dataset import LabeledImages
from shapprune.errors import InputError


@dataclass(frozen=True)
class Plan:
    """What every attack is told: whom it shall reach, and how to train.

    Attributes:
        target: the class that stamped images get.
        num_classes: classes that the network tells apart.
        rate: the poisoning rate, see `poison`.
        epochs, seed, flip, batch_size, learning_rate, learning: see `train`.
        cover: see `poison`.
        progress: called with the share of the work done.
    """

    target: Target
    num_classes: int
    rate: float
    epochs: int
    seed: int
    flip: bool = False
    batch_size: int = 128
    learning_rate: float = 5e-3
    progress: Callable[[float], None] | None = None
    learning: Learning = OWN
    cover: float = 0.0


@dataclass(frozen=True, eq=False)
class Attacked:
    """What an attack leaves behind: the trained model, the trigger, how many images carried it."""

    model: nn.Module
    trigger: AttackTrigger
    poisoned_images: int


@dataclass(frozen=True, eq=False)
class Poisoned:
    """A training set with the attacker's images in it.

    Attributes:
        images: float (n, C, H, W) in [0, 1], in the order of the clean ones.
        labels: int64 (n,).
        poisoned: int64, the rows that carry the trigger and the class that the attacker wants, in
            ascending order.
    """

    images: Tensor
    labels: Tensor
    poisoned: Tensor


def poison(
    images: Tensor,
    labels: Tensor,
    *,
    trigger: AttackTrigger,
    target: Target,
    rate: float,
    clean_label: bool = False,
    cover: float = 0.0,
    generator: torch.Generator,
) -> Poisoned:
    """A copy of a training set in which some images carry the trigger and the target's label.

    Args:
        images: float (n, C, H, W) in [0, 1].
        labels: int64 (n,).
        trigger: what the poisoned images get stamped with.
        target: the class that they get; images that are of it anyway are never drawn.
        rate: the poisoning rate: how many images are poisoned, as a share in [0, 1] of the whole
            training set, rounded to the nearest image. 0 makes a clean twin.
        clean_label: stamp images of the target class alone, whose labels are right.
        cover: stamped images that keep their labels, for each poisoned one, from the classes that
            the target leaves as they are: so a source-specific trigger learns whom not to move
            (Tang et al. 2021, "Demon in the Variant"). As many as there are, if these are fewer.
        generator: on the CPU.

    Raises:
        InputError: a target that is no class, a rate outside [0, 1] or beyond what the images
            allow that may be drawn, or a cover below 0.
    """
    wanted = wanted_classes(target, labels)
    candidates = ((wanted == labels) == clean_label).nonzero().flatten().cpu()
    most = len(candidates) / max(1, len(labels))
    if not 0 <= rate <= 1 or round(rate * len(labels)) > len(candidates):
        which = (
            "only images of the target class"
            if clean_label
            else "only images that get another class"
        )
        raise InputError(
            f"rate must be a share of the training set in 0 .. {most:.3g} ({which} can be "
            f"poisoned), got {rate}"
        )
    drawn = torch.randperm(len(candidates), generator=generator)[: round(rate * len(labels))]
    rows = candidates[drawn].sort().values.to(labels.device)
    images, labels = images.clone(), labels.clone()
    if not cover >= 0:
        raise InputError(f"cover must be 0 or more, got {cover}")
    if cover:
        rest = (wanted == labels).nonzero().flatten().cpu()
        stamped = torch.randperm(len(rest), generator=generator)[: round(cover * len(rows))]
        covers = rest[stamped].to(labels.device)
        images[covers] = trigger.stamp(images[covers])
    images[rows] = trigger.stamp(images[rows])
    labels[rows] = wanted[rows]
    return Poisoned(images, labels, rows)


def train_poisoned(
    network: nn.Module,
    data: LabeledImages,
    plan: Plan,
    *,
    trigger: AttackTrigger,
    clean_label: bool = False,
    generator: torch.Generator,
) -> Attacked:
    """Poison the data and train on them, as attacks by data alone do.

    Raises:
        InputError: see `poison` and `train`.
    """
    poisoned = poison_as_planned(data, plan, trigger, generator, clean_label=clean_label)
    model = train_as_planned(network, poisoned.images, poisoned.labels, plan)
    return Attacked(model, trigger, len(poisoned.poisoned))


def poison_as_planned(
    data: LabeledImages,
    plan: Plan,
    trigger: AttackTrigger,
    generator: torch.Generator,
    *,
    clean_label: bool = False,
) -> Poisoned:
    """The data poisoned with the plan's target and rate; see `poison`."""
    return poison(
        data.images,
        data.labels,
        trigger=trigger,
        target=plan.target,
        rate=plan.rate,
        clean_label=clean_label,
        cover=plan.cover,
        generator=generator,
    )


def train_as_planned(
    network: nn.Module, images: Tensor, labels: Tensor, plan: Plan, *, linear_only: bool = False
) -> nn.Module:
    """A copy of the network, trained with the plan's settings; see `train`."""
    return train(
        network,
        images,
        labels,
        epochs=plan.epochs,
        seed=plan.seed,
        batch_size=plan.batch_size,
        learning_rate=plan.learning_rate,
        flip=plan.flip,
        shift=plan.learning.shift,
        colour=plan.learning.colour,
        learning=plan.learning,
        linear_only=linear_only,
        progress=plan.progress,
    )
