"""What a verdict costs, beside Neural Cleanse's detection on the same models in the same run.

A model is scanned from one image a class; then triggers are reversed as Neural Cleanse does by its
authors' settings: 31 batches of 32 clean images a step, up to 1,000 steps a class. After ten
minutes it is stopped, and the rest is told from the steps that the classes took until then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

from shapprune.baselines.neural_cleanse import neural_cleanse_scan
from shapprune.pipeline import scan
from shapprune.running.runner import Result
from shapprune_bench.options import Options
from shapprune_bench.page import Table, pages
from shapprune_bench.populations.manifest import Specimen
from shapprune_bench.populations.scans import given_images, specimen_facts
from shapprune_bench.populations.selection import chosen_models
from shapprune_bench.session import Study

BUDGET = 600.0  # seconds for Neural Cleanse
IMAGES, STEPS = 31 * 32, 1000  # that it has, and takes at most for a class
FEWEST = 26  # steps of a class: after 25 without a smaller mask it may end


@dataclass(frozen=True)
class Cost:
    """Both detections on one model."""

    specimen: Specimen

    @property
    def name(self) -> str:
        """Of its file."""
        return self.specimen.name

    def facts(self) -> dict[str, object]:
        """As JSON has it."""
        return {"kind": "detection-cost", "specimen": specimen_facts(self.specimen)}


class BudgetSpentError(Exception):
    """The budget is spent."""


class Steps:
    """Counts the steps of each class by the progress that Neural Cleanse tells.

    Attributes:
        over: of the classes that came to their end.
        current: of the class that is at work.
    """

    def __init__(self, classes: int, budget: float) -> None:
        self.over: list[int] = []
        self.current = 0
        self._classes, self._until = classes, perf_counter() + budget

    def progress(self, share: float) -> None:
        """Takes the share done after each step, and that of a whole class after its last one."""
        done = round(share * self._classes * STEPS) - STEPS * len(self.over)
        if done == STEPS:
            # The last of all steps tells the same share as the end does.
            self.over.append(STEPS if self.current == STEPS - 1 else self.current)
            self.current = 0
        elif done > 0:
            self.current = done
        if perf_counter() > self._until:
            raise BudgetSpentError


def measure(task: Cost) -> dict[str, object]:
    """What both cost.

    Raises:
        InputError: the model or its images cannot be read, or it cannot be examined.
    """
    model, classes = task.specimen.load(), task.specimen.num_classes
    found = scan(model, *_images(task.specimen, 1), seed=0)
    many, labels = _images(task.specimen, -(-IMAGES // classes))
    drawn = torch.randperm(len(many), generator=torch.Generator().manual_seed(0))[:IMAGES]
    steps, start = Steps(classes, BUDGET), perf_counter()
    try:
        neural_cleanse_scan(
            model, many[drawn], labels[drawn], steps=STEPS, seed=0, progress=steps.progress
        )
        whole = True
    except BudgetSpentError:
        whole = False
    seconds = perf_counter() - start
    return {
        "classes": classes,
        "scan": {
            "verdict": found.verdict,
            "targets": found.targets,
            "passes": sum(stage.passes or 0 for stage in found.stages),
            "seconds": round(sum(stage.seconds for stage in found.stages), 1),
        },
        "neural_cleanse": {"images": IMAGES, "whole": whole, **_spent(steps, classes, seconds)},
    }


def _images(specimen: Specimen, per_class: int) -> tuple[Tensor, Tensor]:
    few = given_images(specimen, per_class, torch.Generator().manual_seed(0))
    return few.images, few.labels


def _spent(steps: Steps, classes: int, seconds: float) -> dict[str, object]:
    """What Neural Cleanse took, and what it would take in all by the mean of whole classes."""
    over, taken, per_step = steps.over, sum(steps.over) + steps.current, 2 * IMAGES
    usual = sum(over) / len(over) if over else None
    left = classes - len(over) - bool(steps.current)  # of which no step was seen
    return {
        "seconds": round(seconds, 1),
        "passes": per_step * taken,
        "steps_of_whole_classes": over,
        "steps_of_the_class_that_was_stopped": steps.current,
        "passes_in_all": usual and round(per_step * classes * usual),
        "seconds_in_all": usual and round(seconds / taken * classes * usual),
        "passes_at_least": per_step * (taken + FEWEST * left),
        "passes_at_most": per_step * classes * STEPS,
    }


def study(options: Options) -> Study[Cost]:
    """Both detections on the manifest's models.

    Raises:
        InputError: see `chosen_models`.
    """
    tasks = [Cost(specimen) for specimen in chosen_models(options)]
    return Study(
        "models",
        tasks,
        measure,
        lambda result: f"{result['scan']}",
        report,
        needs=lambda task: task.specimen.files,
    )


def report(done: Sequence[tuple[Cost, Result]]) -> dict[str, bytes]:
    """The pages: a row a model."""
    rows = []
    for task, result in done:
        ours, theirs = result["scan"], result["neural_cleanse"]
        assert isinstance(ours, dict)
        assert isinstance(theirs, dict)
        in_all = theirs["passes_in_all"]
        least = f"at least {theirs['passes_at_least']:,}"
        rows.append(
            [
                task.name,
                str(task.specimen.num_classes),
                str(ours["verdict"]),
                f"{ours['passes']:,}",
                f"{ours['seconds']}",
                f"{in_all:,}" if in_all else least,
                f"{theirs['seconds_in_all']}" if in_all else f"more than {theirs['seconds']}",
            ]
        )
    note = (
        f"From one image a class; Neural Cleanse's by its authors' settings, {IMAGES} images a "
        f"step and up to {STEPS:,} steps a class. What was stopped is told by the mean of the "
        "classes that came to their end, or by what no class can do without. One thread."
    )
    head = ["model", "classes", "verdict", "passes", "seconds", "Neural Cleanse: passes", "seconds"]
    return pages([Table("Costs", note, head, rows)], "What a verdict costs, beside Neural Cleanse")
