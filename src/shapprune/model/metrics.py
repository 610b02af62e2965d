"""Accuracy (ACC) and attack success rate (ASR)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from shapprune.errors import InputError
from shapprune.model.checks import check_number
from shapprune.model.classifier import check_examples
from shapprune.model.inference import CHUNK, evaluating


def predict(model: nn.Module, images: Tensor) -> Tensor:
    """The classes (n,) that the model gives images (n, C, H, W), in eval mode."""
    with evaluating(model), torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in images.split(CHUNK)])


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """ACC: the share in [0, 1] of images (n, C, H, W) that the model gives their label (n,).

    Raises:
        InputError: no images, not as many labels, or what the model cannot take.
    """
    images, labels, _ = check_examples(model, images, labels)
    return float((predict(model, images) == labels).float().mean())


def attack_success_rate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    stamp: Callable[[Tensor], Tensor],
    target: int | Callable[[Tensor], Tensor],
) -> float:
    """ASR: the share in [0, 1] of stamped images that get the class the attacker wants.

    Args:
        images: clean, (n, C, H, W) in [0, 1].
        stamp: puts the trigger on a batch.
        target: the target class (all-to-one), or what gives each label (n,) its target
            (all-to-all). Images that are of their target class anyway are left out.

    Raises:
        InputError: every image is of its target class, or see `accuracy`.
    """
    images, labels, classes = check_examples(model, images, labels)
    if not callable(stamp):
        raise InputError(
            f"stamp must be a function of images, as Trigger.stamp is, got a {type(stamp).__name__}"
        )
    if not callable(target):
        check_number("target", target, 0, classes - 1)
    wanted = target(labels) if callable(target) else torch.full_like(labels, target)
    others = wanted != labels
    if not bool(others.any()):
        raise InputError("ASR needs an image of another class than the target")
    hits = [
        predict(model, stamp(part)) == want
        for part, want in zip(images[others].split(500), wanted[others].split(500), strict=True)
    ]
    return float(torch.cat(hits).float().mean())
