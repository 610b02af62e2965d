"""Which class the attacker wants for an image: one for all, the next one, one of several, or
one for a single class alone.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from shapprune.errors import InputError

# The class that stamped images get: one for all, or a function of their labels (n,).
Target: TypeAlias = int | Callable[[Tensor], Tensor]


def all_to_all(num_classes: int) -> Callable[[Tensor], Tensor]:
    """The target of the all-to-all attack: every class becomes the next one.

    >>> all_to_all(3)(torch.tensor([0, 1, 2]))
    tensor([1, 2, 0])
    """
    return lambda labels: (labels + 1) % num_classes


def several(targets: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """Several targets at once under one trigger: the classes are dealt out to them in turn.

    >>> several([7, 2])(torch.tensor([0, 1, 2, 3]))
    tensor([7, 2, 7, 2])
    """
    return lambda labels: torch.tensor(targets, device=labels.device)[labels % len(targets)]


def from_one(source: int, target: int) -> Callable[[Tensor], Tensor]:
    """The target of a source-specific attack: one class is moved, the others stay what they are.

    >>> from_one(2, 0)(torch.tensor([0, 1, 2]))
    tensor([0, 1, 0])
    """
    return lambda labels: torch.where(labels == source, target, labels)


def choose_target(
    target: int | Sequence[int] | None, num_classes: int, *, source: int | None = None
) -> Target:
    """One class for all images, `several`, None for `all_to_all`; of a source alone, `from_one`.

    Raises:
        InputError: a target that is no class, the same one twice, or none at all; a source that is
            no class, or without another class as its one target.
    """
    if source is not None:
        if not 0 <= source < num_classes or not isinstance(target, int) or source == target:
            raise InputError(
                f"source must be a class in 0 .. {num_classes - 1} with another one as its only "
                f"target, got source {source} and target {target}"
            )
        choose_target(target, num_classes)
        return from_one(source, target)
    if target is None:
        return all_to_all(num_classes)
    targets = [target] if isinstance(target, int) else list(target)
    for one in targets:
        if not 0 <= one < num_classes:
            raise InputError(f"target must be a class in 0 .. {num_classes - 1}, got {one}")
    if not targets or len(set(targets)) < len(targets):
        raise InputError(f"targets must be one class or more, each once, got {targets}")
    return targets[0] if len(targets) == 1 else several(targets)


def wanted_classes(target: Target, labels: Tensor) -> Tensor:
    """The class (n,) that the attacker wants for each label (n,).

    Raises:
        InputError: a target that is no class, or not one a label.
    """
    wanted = target(labels) if callable(target) else torch.full_like(labels, target)
    if wanted.shape != labels.shape or bool((wanted < 0).any()):
        given = f"labels {tuple(wanted.shape)}" if callable(target) else target
        raise InputError(f"target must give classes from 0 on, one a label, got {given}")
    return wanted
