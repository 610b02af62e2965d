"""From a network and clean data to a backdoored classifier with its measured ACC and ASR."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from shapprune.attacks.badnets import Target, all_to_all, poison, square_trigger
from shapprune.attacks.training import train
from shapprune.data import LabeledImages
from shapprune.errors import InputError
from shapprune.metrics import accuracy, attack_success_rate
from shapprune.stamps import Trigger


@dataclass(frozen=True, eq=False)
class Backdoored:
    """A poisoned classifier and what was done to it.

    Attributes:
        model: trained, in eval mode, without gradients, on the device of the given network.
        trigger: the attacker's, on the CPU.
        recipe: the settings, of plain types that JSON holds.
        accuracy: ACC on the test images, in [0, 1].
        asr: ASR of the trigger on the test images, in [0, 1].
    """

    model: nn.Module
    trigger: Trigger
    recipe: dict[str, str | int | float | bool]
    accuracy: float
    asr: float


def make_backdoored(
    network: nn.Module,
    data: LabeledImages,
    test: LabeledImages,
    *,
    num_classes: int,
    target: int | None = 0,
    trigger_size: int = 3,
    rate: float = 0.1,
    epochs: int = 10,
    flip: bool = False,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Backdoored:
    """Poison the data with a white square in the corner, train on them, measure on the test part.

    Args:
        network: fresh or trained, maps images in [0, 1] to logits (n, num_classes); left as it was.
        data, test: clean images of the same shape.
        num_classes: classes that the network tells apart.
        target: the class of every stamped image; None for the all-to-all attack.
        trigger_size: side of the square, in pixels.
        rate: the poisoning rate, see `poison`; 0 makes a clean twin.
        epochs, flip: see `train`.
        seed: of all random draws.
        progress: called with the share of the training done.

    Raises:
        InputError: whatever does not fit, see `square_trigger`, `poison` and `train`.
    """
    if target is not None and not 0 <= target < num_classes:
        raise InputError(f"target must be a class in 0 .. {num_classes - 1}, got {target}")
    wanted: Target = all_to_all(num_classes) if target is None else target
    channels, height, width = data.images.shape[1:]
    trigger = square_trigger((channels, height, width), size=trigger_size)
    poisoned = poison(
        data.images,
        data.labels,
        trigger=trigger,
        target=wanted,
        rate=rate,
        generator=torch.Generator().manual_seed(seed),
    )
    model = train(
        network,
        poisoned.images,
        poisoned.labels,
        epochs=epochs,
        seed=seed,
        flip=flip,
        progress=progress,
    )
    device = next(model.parameters()).device
    images, labels = test.images.to(device), test.labels.to(device)
    there = Trigger(trigger.mask.to(device), trigger.pattern.to(device))
    return Backdoored(
        model,
        trigger,
        {
            "attack": "badnets",
            "target": "all-to-all" if target is None else target,
            "trigger_size": trigger_size,
            "rate": rate,
            "poisoned_images": len(poisoned.poisoned),
            "training_images": len(poisoned.images),
            "epochs": epochs,
            "flip": flip,
            "seed": seed,
        },
        accuracy(model, images, labels),
        attack_success_rate(model, images, labels, stamp=there.stamp, target=wanted),
    )
