"""``shapprune bench robustness``: whether a verdict stays when what it stands on changes a little.

Every model is scanned under each of `CONDITIONS`: ordinarily from one image a class (``base``, by
as many draws as ``--draws`` says); by the first draw alone, from more images; and from those of the
base with wrong labels, a change of their looks, or sums in another order.
"""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from shapprune.errors import InputWarning
from shapprune.method.settings import RULES
from shapprune.model.classifier import in_channels_last
from shapprune.pipeline import scan
from shapprune.running.runner import Result, file_name
from shapprune_bench.options import Options
from shapprune_bench.populations.manifest import Specimen
from shapprune_bench.populations.scans import given_images, scan_facts, specimen_facts
from shapprune_bench.populations.selection import chosen_models
from shapprune_bench.session import Study
from shapprune_bench.studies.conditions import BASE, CONDITIONS, adding, looking, mislabel
from shapprune_bench.studies.robustness_page import Seen, page


@dataclass(frozen=True)
class Robustness:
    """One scan of one model.

    Attributes:
        specimen: the model.
        condition: a name in `CONDITIONS`.
        seed: of the draw of images, of what is changed and of the scan.
        rules: of the verdict: results of others are not taken for these.
    """

    specimen: Specimen
    condition: str
    seed: int = 0
    rules: str = RULES

    @property
    def name(self) -> str:
        """Of its file."""
        words = ["robustness", self.specimen.name, self.condition, str(self.seed)]
        return file_name(words, self.facts())

    def facts(self) -> dict[str, object]:
        """As JSON has it; without the folders that the models lie in."""
        return {
            **asdict(self),
            "specimen": specimen_facts(self.specimen),
            "change": asdict(CONDITIONS[self.condition]),
        }


def measure(task: Robustness) -> dict[str, object]:
    """The verdict under the condition, and how far what it stands on was changed.

    ``pixels_changed`` is the mean absolute change of a pixel, ``logits_changed`` the largest one of
    a logit on the same images by the order of sums alone.

    Raises:
        InputError: the model or its images cannot be read, or it cannot be examined.
    """
    specimen, condition, seed = task.specimen, CONDITIONS[task.condition], task.seed
    given = given_images(specimen, condition.per_class, torch.Generator().manual_seed(seed))
    change = torch.Generator().manual_seed(seed)
    images = looking(given.images, condition.look, change)
    labels, mislabelled = mislabel(
        given.labels, condition.mislabelled, classes=specimen.num_classes, generator=change
    )
    model = specimen.load()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)  # the result has them
        with adding(otherwise=condition.other_sums):
            found = scan(model, images, labels, seed=seed)
    said = found.judgement
    return {
        "images": len(images),
        "mislabelled": mislabelled,
        "pixels_changed": float((images - given.images).abs().mean()),
        "logits_changed": _difference(model, images) if condition.other_sums else 0.0,
        **scan_facts(found),
        "score": said.score,
        "bounds": {"suspicious": said.suspicious, "backdoored": said.backdoored},
        "warnings": found.warnings,
    }


@torch.no_grad()
def _difference(model: nn.Module, images: Tensor) -> float:
    """The largest change of a logit when sums are added in another order."""
    model = in_channels_last(model, images)  # as it is scanned
    usual = model(images)
    with adding(otherwise=True):
        return float((model(images) - usual).abs().max())


def study(options: Options) -> Study[Robustness]:
    """The scans of the manifest's models whose attack did not fail.

    Raises:
        InputError: ``--methods`` names no such condition, or see `chosen_models`.
    """
    conditions = options.chosen_methods(CONDITIONS, "robustness", noun="condition")
    tasks = [
        Robustness(specimen, condition, seed)
        for specimen in chosen_models(options)
        if not specimen.attack_failed
        for condition in conditions
        for seed in (options.seeds if condition == BASE else range(1))
    ]
    return Study("scans", tasks, measure, _outcome, report, needs=lambda task: task.specimen.files)


def report(done: Sequence[tuple[Robustness, Result]]) -> dict[str, bytes]:
    """The pages: what became of the verdict under each condition."""
    return page([Seen(t.specimen, t.condition, t.seed, result) for t, result in done])


def _outcome(result: Result) -> str:
    return f"{result['verdict']} {result['targets']} in {result['seconds']:.1f} s"
