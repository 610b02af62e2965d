"""What is done for a cell. Only here the attacker's trigger and the test images come in."""

from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn

from shapprune.bench.cells import Cell
from shapprune.bench.defences import DEFENCES, ours_with_trigger
from shapprune.bench.experiments import METHODS, WITH_TRIGGER
from shapprune.bench.models import Subject, subject
from shapprune.bench.recipes import Recipe, load_split
from shapprune.data import LabeledImages, draw_per_class
from shapprune.errors import InputError
from shapprune.metrics import accuracy, attack_success_rate
from shapprune.models import in_channels_last
from shapprune.passes import counting
from shapprune.triggers import KINDS, invert_triggers


def measure(cell: Cell, *, root: Path, cache: Path) -> dict[str, object]:
    """The cell's result, as JSON holds it; shares are in [0, 1].

    Args:
        root: the folder that the data are in.
        cache: the folder of trained models.

    Raises:
        InputError: data that are missing, or a method that there is not.
    """
    given = subject(cell.recipe, root=root, cache=cache)
    if cell.kind == "model":
        return given.facts
    few = draw_per_class(
        load_split(cell.recipe, "train", root=root),
        per_class=cell.per_class,
        generator=torch.Generator().manual_seed(cell.seed),
    )
    found: dict[str, object] = {}
    defended: nn.Module | None = None
    with counting(given.model, few.images) as passes:
        start = perf_counter()
        if cell.kind == "scan":
            found["norms"] = _norms(given.model, few, cell.seed)
        else:
            defended = _defended(cell, given, few)
        found |= {"seconds": perf_counter() - start, "passes": passes.count}
    if defended:
        hidden = load_split(cell.recipe, "test", root=root)
        found["before"] = _score(given.model, given.stamp, cell.recipe, hidden)
        found["after"] = _score(defended, given.stamp, cell.recipe, hidden)
    return found


def _defended(cell: Cell, given: Subject, few: LabeledImages) -> nn.Module:
    if cell.method == WITH_TRIGGER:
        return ours_with_trigger(
            given.model,
            few.images,
            few.labels,
            target=cell.recipe.target,
            stamp=given.stamp,
            seed=cell.seed,
        )
    if cell.method not in DEFENCES:
        raise InputError(f"no defence {cell.method!r}: there are {', '.join(METHODS)}")
    return DEFENCES[cell.method](given.model, few.images, few.labels, seed=cell.seed)


def _norms(model: nn.Module, few: LabeledImages, seed: int) -> dict[str, tuple[float, ...]]:
    """The norms of every class's inverted triggers, by kind of trigger."""
    model = in_channels_last(model, few.images)
    classes = model(few.images[:1]).shape[1]
    return {
        kind: invert_triggers(
            model,
            few.images,
            few.labels,
            targets=range(classes),
            kind=kind,
            generator=torch.Generator().manual_seed(seed),
        ).norms
        for kind in KINDS
    }


def _score(
    model: nn.Module, stamp: Callable[[Tensor], Tensor], recipe: Recipe, hidden: LabeledImages
) -> dict[str, float]:
    images, labels = hidden.images, hidden.labels
    return {
        "accuracy": accuracy(model, images, labels),
        "asr": attack_success_rate(model, images, labels, stamp=stamp, target=recipe.target),
    }
