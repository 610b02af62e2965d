"""What is done for a cell. Only here the attacker's trigger and the test images come in."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

from shapprune.data.dataset import LabeledImages, draw_per_class
from shapprune.errors import InputError
from shapprune.method.inversion import KINDS, invert_triggers
from shapprune.method.recovery import Recovery, recover_images
from shapprune.method.settings import SELECTION
from shapprune.model.cost import Passes, counting
from shapprune.model.masking import masked
from shapprune.model.metrics import accuracy, attack_success_rate
from shapprune.model.neurons import find_neurons
from shapprune.utils.progress import Progress
from shapprune_bench.tables.cells import Cell
from shapprune_bench.tables.defences import FULL, Budget, defend
from shapprune_bench.tables.models import Subject, subject
from shapprune_bench.tables.rankings import RANKINGS, set_up
from shapprune_bench.tables.recipes import Recipe, load_split
from shapprune_bench.tables.retuning import retune, unseen

_SCORED = 1000  # test images that pruning curves are measured on
_MOST = 0.25  # of the neurons on a curve, as in Fig. 3
_COUNTS = (*SELECTION.counts, 384, 512, 768, 1024, 1536, 2048)
# Average iterations of the truth about a ranking: the paper's 5,000, and what two cores can do.
_TRUTH = {"smoke": 100, "cpu": 500, "zoo": 500, "paper": 5000}
# At full length, Algorithm 1 and GangSweep would take two cores some hours each.
_SMALL = Budget(average_iterations=10, generator_steps=200, generator_rate=3e-4, generator_batch=8)
_BUDGETS = {
    "smoke": FULL,
    "cpu": _SMALL,
    "zoo": replace(_SMALL, average_iterations=FULL.average_iterations),
    "paper": FULL,
}
# Of more neurons, 10 average iterations take a core half an hour, or more beside other work.
_LARGE = 1000
_SMALLEST = replace(_SMALL, average_iterations=2)


class Timed:
    """A `Progress` that keeps what each stage cost, in seconds and in passes by arithmetic.

    Attributes:
        stages: in order, as JSON has them.
    """

    def __init__(self, passes: Passes) -> None:
        self.stages: list[dict[str, Any]] = []
        self._passes, self._at = passes, (perf_counter(), 0)

    def __call__(self, stage: str, share: float = 1.0) -> None:
        """What was spent since the last call is this stage's."""
        if not self.stages or self.stages[-1]["name"] != stage:
            self.stages.append({"name": stage, "seconds": 0.0, "passes": 0})
        now = perf_counter(), self._passes.count
        self.stages[-1]["seconds"] += now[0] - self._at[0]
        self.stages[-1]["passes"] += now[1] - self._at[1]
        self._at = now


def measure(
    cell: Cell, *, root: Path, cache: Path, device: torch.device | str = "cpu"
) -> dict[str, object]:
    """The cell's result, as JSON holds it; shares are in [0, 1].

    Args:
        root: the folder that the data are in.
        cache: the folder of trained models.
        device: where to train and to measure.

    Raises:
        InputError: data that are missing, or a method that there is not.
    """
    recipe = cell.recipe
    given = subject(recipe, root=root, cache=cache, device=device)
    if cell.kind == "model":
        facts = given.facts or _measured(given, recipe, _split(recipe, "test", root, device))
        return facts | {"weights": given.weights}
    # Rankings are compared on one game: the seed is that of the ranking alone.
    draw = torch.Generator().manual_seed(0 if cell.kind == "rank" else cell.seed)
    few, recovered = None, None
    if cell.per_class:
        few = draw_per_class(
            _split(recipe, "train", root, device), per_class=cell.per_class, generator=draw
        )
    with counting(given.model, torch.zeros(1, *recipe.input_size, device=device)) as passes:
        timed = Timed(passes)
        if few is None:
            recovered = recover_images(
                given.model, input_size=recipe.input_size, generator=draw, progress=timed
            )
            few = LabeledImages(recovered.images, recovered.labels)
        found, model, order = _carried_out(cell, given, few, recovered, timed)
        if timed.stages:  # up to the end, of which nothing may have been told
            timed(timed.stages[-1]["name"])
    found |= {"weights": given.weights, "stages": timed.stages}
    found |= {key: sum(s[key] for s in timed.stages) for key in ("seconds", "passes")}
    hidden = _split(recipe, "test", root, device)
    if model:
        found["before"] = _score(given.model, given, recipe, hidden)
        found["after"] = _score(model, given, recipe, hidden)
    if model and cell.kind == "retune":
        data = unseen(_split(recipe, "train", root, device), few, generator=draw)
        found["retuned"] = _score(retune(model, data, seed=cell.seed), given, recipe, hidden)
    elif order:
        found["curve"] = _curve(given, recipe, order, hidden)
    return found


def _measured(given: Subject, recipe: Recipe, hidden: LabeledImages) -> dict[str, object]:
    """The facts of a checkpoint, which nobody here trained."""
    return {**_score(given.model, given, recipe, hidden), "seconds": 0.0}


def _carried_out(
    cell: Cell,
    given: Subject,
    few: LabeledImages,
    recovered: Recovery | None,
    timed: Timed,
) -> tuple[dict[str, object], nn.Module | None, Sequence[int]]:
    """What the defender found, the defended copy, and neurons to prune in order, if there are."""
    if cell.kind == "scan":
        return {"norms": _norms(given.model, few, cell.seed, timed)}, None, ()
    if cell.kind == "rank":
        if cell.method not in RANKINGS:
            raise InputError(f"no ranking {cell.method!r}: there are {', '.join(RANKINGS)}")
        setup = set_up(
            given.model,
            few.images,
            few.labels,
            target=cell.recipe.target,
            truth=_TRUTH[cell.recipe.profile],
            seed=cell.seed,
            progress=timed,
        )
        values = RANKINGS[cell.method](setup).cpu()
        timed("rank")
        shown = [round(value, 6) for value in values.tolist()]
        return {"values": shown}, None, values.argsort(descending=True).tolist()
    budget = _BUDGETS[cell.recipe.profile]
    if budget == _SMALL and len(find_neurons(given.model, few.images)) > _LARGE:
        budget = _SMALLEST
    done = defend(
        cell.method,
        given.model,
        few.images,
        few.labels,
        recovered=recovered,
        attacker=(cell.recipe.target, given.stamp),
        budget=budget,
        seed=cell.seed,
        progress=timed,
    )
    return {**done.facts, "budget": asdict(budget)}, done.model, done.order


def _norms(
    model: nn.Module, few: LabeledImages, seed: int, progress: Progress
) -> dict[str, tuple[float, ...]]:
    """The norms of every class's inverted triggers, by kind of trigger."""
    classes = model(few.images[:1]).shape[1]
    return {
        kind: invert_triggers(
            model,
            few.images,
            few.labels,
            targets=range(classes),
            kind=kind,
            generator=torch.Generator().manual_seed(seed),
            progress=partial(progress, f"invert a {kind} for every class"),
        ).norms
        for kind in KINDS
    }


def _split(recipe: Recipe, split: str, root: Path, device: torch.device | str) -> LabeledImages:
    data = load_split(recipe, split, root=root)
    return replace(data, images=data.images.to(device), labels=data.labels.to(device))


def _score(
    model: nn.Module, given: Subject, recipe: Recipe, hidden: LabeledImages
) -> dict[str, float]:
    images, labels = hidden.images, hidden.labels
    return {
        "accuracy": accuracy(model, images, labels),
        "asr": attack_success_rate(model, images, labels, stamp=given.stamp, target=recipe.target),
    }


def _curve(
    given: Subject, recipe: Recipe, order: Sequence[int], hidden: LabeledImages
) -> list[list[float]]:
    """[neurons removed, ACC, ASR] while neurons go in this order, without fine-tuning."""
    rows = torch.randperm(len(hidden.images), generator=torch.Generator().manual_seed(0))
    rows = rows[:_SCORED].to(hidden.images.device)
    some = replace(hidden, images=hidden.images[rows], labels=hidden.labels[rows])
    neurons = find_neurons(given.model, some.images)
    limit = min(len(order), int(_MOST * len(neurons)))
    points: list[list[float]] = []
    for removed in (count for count in _COUNTS if count <= limit):
        keep = torch.ones(1, len(neurons), device=some.images.device)
        keep[:, order[:removed]] = 0
        with masked(given.model, neurons, keep):
            score = _score(given.model, given, recipe, some)
        points.append([removed, round(score["accuracy"], 4), round(score["asr"], 4)])
    return points
