"""``shapprune bench clean-repair``: what a repair costs a model that needs none.

Clean models are repaired as by ``shapprune repair --force-target first``: what the scan names, and
where it names nothing the class of the highest score.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

import torch

from shapprune.method.settings import REPAIR_RULES, RULES
from shapprune.model.metrics import accuracy
from shapprune.pipeline import repair
from shapprune.running.runner import Result, file_name
from shapprune_bench.options import Options
from shapprune_bench.page import Table, pages
from shapprune_bench.populations.manifest import Specimen
from shapprune_bench.populations.repairs import middle, shares
from shapprune_bench.populations.scans import (
    TEST_IMAGES,
    given_images,
    specimen_facts,
    unseen_images,
)
from shapprune_bench.populations.selection import chosen_models
from shapprune_bench.session import Study


@dataclass(frozen=True)
class CleanRepair:
    """One repair of one clean model, from one image a class.

    Attributes:
        specimen: the model.
        seed: of the draw of images and of the repair.
        rules: of the repair: results of others are not taken for these.
        verdict_rules: of the verdict, whose scores pick the class.
    """

    specimen: Specimen
    seed: int = 0
    rules: str = REPAIR_RULES
    verdict_rules: str = RULES

    @property
    def name(self) -> str:
        """Of its file."""
        return file_name(["clean-repair", self.specimen.name, str(self.seed)], self.facts())

    def facts(self) -> dict[str, object]:
        """As JSON has it; without the folders that the models lie in."""
        return {**asdict(self), "specimen": specimen_facts(self.specimen)}


def measure(task: CleanRepair) -> dict[str, object]:
    """The accuracy on unseen images before and after, in [0, 1].

    Raises:
        InputError: the model or its images cannot be read, or it cannot be repaired.
    """
    specimen, generator = task.specimen, torch.Generator().manual_seed(task.seed)
    few = given_images(specimen, 1, generator)
    model = specimen.load()
    result = repair(model, few.images, few.labels, force_targets=("first",), seed=task.seed)
    assert result.repair is not None
    images, labels = unseen_images(specimen)
    mended = result.stages[len(result.scan.stages) :]
    return {
        "before": {"accuracy": accuracy(model, images, labels)},
        "after": {"accuracy": accuracy(result.model, images, labels)},
        "verdict": result.scan.verdict,
        "treated": [list(mapping) for mapping in result.repair.maps],
        "pruned": len(result.repair.pruned),
        "sufficient": result.repair.sufficient,
        "spoiled": result.spoiled,
        "stages": [asdict(stage) for stage in result.stages],
        "seconds": sum(stage.seconds for stage in mended),
        "passes": sum(stage.passes or 0 for stage in mended),
    }


def study(options: Options) -> Study[CleanRepair]:
    """The repairs of the manifest's clean models.

    Raises:
        InputError: see `chosen_models`.
    """
    tasks = [
        CleanRepair(specimen, seed)
        for specimen in chosen_models(options)
        for seed in options.seeds
        if not specimen.backdoored and specimen.data
    ]
    return Study("repairs", tasks, measure, _outcome, report, needs=lambda t: t.specimen.files)


def report(done: Sequence[tuple[CleanRepair, Result]]) -> dict[str, bytes]:
    """The page: a row a model."""
    names = dict.fromkeys(task.specimen.name for task, _ in done)
    found = {n: [r for task, r in done if task.specimen.name == n] for n in names}
    rows = [
        [
            name,
            str(len(results)),
            f"{100 * shares(results[0], 'before')['accuracy']:.1f}",
            middle([lost(r) for r in results]),
            f"{sum(bool(r['sufficient']) for r in results)}",
            f"{median(float(str(r['seconds'])) for r in results):.0f}",
        ]
        for name, results in found.items()
    ]
    rows.append(
        [f"all {len(found)}", str(len(done)), "", middle([lost(r) for _, r in done]), "", ""]
    )
    note = (
        "Made by `shapprune bench clean-repair`. Clean models under `--force-target first`, one "
        f"image a class. ACC in per cent on the first {TEST_IMAGES:,} of the test part; lost: in "
        "points, the median of the draws and in brackets the worst. Sufficient: by the defender's "
        "own measure."
    )
    head = ["model", "draws", "ACC before", "lost", "sufficient", "seconds"]
    return pages([Table("Accuracy lost", note, head, rows)], "Repairs of clean models")


def lost(result: Result) -> float:
    """Accuracy lost, as a share."""
    return shares(result, "before")["accuracy"] - shares(result, "after")["accuracy"]


def _outcome(result: Result) -> str:
    return f"{100 * lost(result):.1f} points lost"
