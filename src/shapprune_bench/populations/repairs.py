"""``shapprune bench repair``: repairs known models, scored by the attacker's trigger.

The method gets the weights, a few clean images and the target, or what its own verdict names. The
attacker's trigger and the test images come in afterwards, here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from shapprune.attacks.triggers import load_trigger
from shapprune.errors import InputError
from shapprune.method.recovery import recover_images
from shapprune.method.settings import REPAIR_RULES
from shapprune.method.triggers import NOT_ATTACKED, Perturbation, Target, Trigger, wanted_answers
from shapprune.model.metrics import accuracy, predict
from shapprune.pipeline import repair
from shapprune.running.runner import Result, file_name
from shapprune_bench.options import Options
from shapprune_bench.populations.manifest import Specimen
from shapprune_bench.populations.scans import given_images, specimen_facts, unseen_images
from shapprune_bench.populations.selection import chosen_models
from shapprune_bench.session import Study


@dataclass(frozen=True)
class RepairTask:
    """What is to be measured.

    Attributes:
        specimen: the model.
        per_class: clean images a class that the defender gets; 0: they are recovered.
        seed: of the draw of these images and of the repair.
        by_verdict: whether the targets are those of the verdict, and not given.
        rules: of the method: results of others are not taken for these.
    """

    specimen: Specimen
    per_class: int = 1
    seed: int = 0
    by_verdict: bool = False
    rules: str = REPAIR_RULES

    @property
    def name(self) -> str:
        """The name of its file: readable, with a hash of everything."""
        words = ["repair", self.specimen.name, f"{self.per_class}a", str(self.seed)]
        return file_name(words, self.facts())

    def facts(self) -> dict[str, object]:
        """As JSON has it; without the folders that the models lie in."""
        return {**asdict(self), "specimen": specimen_facts(self.specimen)}


@dataclass(frozen=True, eq=False)
class Attacked:
    """Images that carry the attacker's trigger, which the defender never sees.

    Attributes:
        images: (n, C, H, W) in [0, 1].
        labels: int64 (n,), of what they show.
        wanted: int64 (n,), what the attacker wants; several rows (k, n) where there are several
            targets, of which any counts.
    """

    images: Tensor
    labels: Tensor
    wanted: Tensor

    def score(self, model: nn.Module) -> dict[str, float]:
        """Shares in [0, 1]: sent where the attacker wants, and answered rightly."""
        answers = predict(model, self.images)
        hits = (answers == self.wanted).view(-1, len(answers)).any(0)
        return {
            "asr": float(hits.float().mean()),
            "right": float((answers == self.labels).float().mean()),
        }


def attacked_images(specimen: Specimen, images: Tensor, labels: Tensor) -> Attacked:
    """The test images (n, C, H, W) under the specimen's trigger, those that it attacks.

    The trigger is a file that `load_trigger` reads, a picture that is added, an npz file of pixels
    that are overwritten (mask (H, W), pattern (H, W, C), uint8), or one of images that carry it
    already (triggered (n, H, W, C) uint8, labels (n,)).

    Raises:
        InputError: there is no trigger, or no such file.
    """
    path = specimen.trigger
    if path is None or not path.exists():
        raise InputError(f"{specimen.name} has no trigger to score with")
    if path.suffix == ".png":
        pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB")))
        stamped = Perturbation(pixels.permute(2, 0, 1).float() / 255).stamp(images)
    else:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: torch.from_numpy(archive[name]) for name in archive.files}
        if "triggered" in arrays:
            stamped, labels = _channels_first(arrays["triggered"]), arrays["labels"].long()
        elif "mask" in arrays and arrays["mask"].dtype == torch.bool:
            pattern = _channels_first(arrays["pattern"][None])[0]
            stamped = Trigger(arrays["mask"][None].float(), pattern).stamp(images)
        else:
            stamped = load_trigger(path).stamp(images)
    rows = torch.stack([wanted_answers(target, labels) for target in targets_of_specimen(specimen)])
    if specimen.source is not None:
        rows = rows.masked_fill(labels != specimen.source, NOT_ATTACKED)
    moved = (rows != NOT_ATTACKED).all(0)
    return Attacked(stamped[moved], labels[moved], rows[:, moved])


def _channels_first(pixels: Tensor) -> Tensor:
    """uint8 (n, H, W) or (n, H, W, C) as float (n, C, H, W) in [0, 1]."""
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    return pixels.permute(0, 3, 1, 2).float() / 255


def targets_of_specimen(specimen: Specimen) -> list[Target]:
    """What the attacker wants, as the method names it."""
    classes, target = specimen.num_classes, specimen.target
    if target == "y+1":
        return [tuple((c + 1) % classes for c in range(classes))]
    if isinstance(target, int):
        if specimen.source is None:
            return [target]
        return [tuple(target if c == specimen.source else None for c in range(classes))]
    return list(target or ())


def measure(task: RepairTask) -> dict[str, object]:
    """What a repair leaves of ACC and ASR.

    Raises:
        InputError: the model or its images cannot be read, or it cannot be repaired.
    """
    specimen, generator = task.specimen, torch.Generator().manual_seed(task.seed)
    model = specimen.load()
    few = given_images(specimen, max(1, task.per_class), generator)
    forced: list[Target | Literal["y+1"]] = (
        [] if task.by_verdict else [*targets_of_specimen(specimen)]
    )
    if task.per_class:
        result = repair(model, few.images, few.labels, force_targets=forced, seed=task.seed)
    else:
        _, *size = few.images.shape
        recovered = recover_images(
            model, input_size=(size[0], size[1], size[2]), prior_only=True, generator=generator
        )
        result = repair(model, recovered=recovered, force_targets=forced, seed=task.seed)
    images, labels = unseen_images(specimen)
    attacked = attacked_images(specimen, images, labels)

    def scores(network: nn.Module) -> dict[str, float]:
        return {"accuracy": accuracy(network, images, labels), **attacked.score(network)}

    mended = result.stages[len(result.scan.stages) :]
    story = result.repair
    return {
        "before": scores(model),
        "after": scores(result.model),
        "verdict": result.scan.verdict,
        "targets": result.scan.targets,
        "repaired": story is not None,
        "sufficient": story is not None and story.sufficient,
        "chosen": story and asdict(story.candidates[story.chosen]),
        "candidates": story and [asdict(candidate) for candidate in story.candidates],
        "stages": [asdict(stage) for stage in result.stages],
        "seconds": sum(stage.seconds for stage in mended),
        "passes": sum(stage.passes or 0 for stage in mended),
    }


def study(options: Options) -> Study[RepairTask]:
    """The repairs of the manifest's poisoned models.

    Raises:
        InputError: see `chosen_models`.
    """
    tasks = [
        RepairTask(specimen, options.per_class, seed, options.by_verdict)
        for specimen in chosen_models(options)
        for seed in options.seeds
        if specimen.backdoored and not specimen.attack_failed
    ]
    return Study(
        "repairs",
        tasks,
        measure,
        _outcome,
        lambda done: {"report.md": repair_page(done).encode()},
        needs=lambda task: task.specimen.files,
    )


def repair_page(done: Sequence[tuple[RepairTask, Result]]) -> str:
    """A table in Markdown, a row for each model: medians over draws, and the worst."""
    lines = [
        "# Repairs",
        "",
        "Made by `shapprune bench repair`. ACC and ASR in per cent, medians over draws (the worst "
        "in brackets), by the attacker's trigger on unseen images; the last columns are answered "
        "rightly again under the trigger, and the repair's seconds without the scan's.",
        "",
        "| model | attack | draws | ACC before | lost | ASR before | after | right | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(task.specimen.name for task, _ in done):
        mine = [(task.specimen, result) for task, result in done if task.specimen.name == name]
        specimen, some = mine[0][0], [result for _, result in mine]
        before, after = ([shares(result, key) for result in some] for key in ("before", "after"))
        lost = [b["accuracy"] - a["accuracy"] for b, a in zip(before, after, strict=True)]
        asr = [a["asr"] for a in after]
        lines.append(
            f"| {name} | {specimen.attack} | {len(some)} | {100 * before[0]['accuracy']:.1f} "
            f"| {middle(lost)} | {100 * before[0]['asr']:.1f} | {middle(asr)} "
            f"| {100 * median(a['right'] for a in after):.1f} "
            f"| {median(float(str(result['seconds'])) for result in some):.0f} |"
        )
    return "\n".join(lines) + "\n"


def middle(shares: Sequence[float]) -> str:
    """Median and largest in per cent.

    >>> middle([0.01, 0.005, 0.1])
    '1.0 (10.0)'
    """
    return f"{100 * median(shares):.1f} ({100 * max(shares):.1f})"


def shares(result: Result, key: str) -> Mapping[str, float]:
    """What a repair was measured to be "before" or "after"."""
    found = result[key]
    assert isinstance(found, Mapping)
    return found


def _outcome(result: Result) -> str:
    before, after = shares(result, "before"), shares(result, "after")
    pairs = [f"{100 * s['accuracy']:.1f} / {100 * s['asr']:.1f}" for s in (before, after)]
    return f"{pairs[0]} → {pairs[1]}"
