"""The main path, the boxes of the paper's Figure 1 in order: `scan` and `repair`."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

import torch
from torch import Tensor, nn

from shapprune.compact import Compact, make_compact
from shapprune.detection import Detection, detect, find_suspects, fitting_method
from shapprune.errors import InputError
from shapprune.estimation import Estimator, Mode
from shapprune.mending import Repair, mend, refine_triggers
from shapprune.metrics import accuracy
from shapprune.models import cast_like, check_input, in_channels_last, in_full_precision
from shapprune.proxies import WORKS
from shapprune.recovery import Recovery
from shapprune.stages import Clock, Progress, Stage
from shapprune.triggers import KINDS, Inversion, Kind, invert_triggers

_MOST_TRIALS = 3
# Of the first target's index: below it, what a trial convicts may be small by nature.
_NEAR = 0.75
_TELLING = 0.75  # of the median: a larger trigger of a suspect is no short cut
_FAILS = 0.1  # ASR proxy, for sure once a backdoor is removed
_AGREES = 0.75  # of the answers, for sure: what costs more to remove was no backdoor


@dataclass(frozen=True, eq=False)
class ScanResult:
    """Whether a classifier carries a backdoor.

    Attributes:
        targets: the target classes, most anomalous first; empty if the model is clean.
        inversions: the inverted triggers of every class, one inversion a kind of trigger.
        detections: what the norms of each inversion say alone.
        detection: what they say together, which decides on the suspects.
        trials: a repair of each suspected class, most anomalous first; the targets are those
            whose trigger could be removed.
        accuracy: ACC on the given images, in [0, 1].
        stages: what was done and its cost.
        seed: of all random draws.
        recovered: the images that the scan went by, where none were given.
    """

    targets: tuple[int, ...]
    inversions: tuple[Inversion, ...]
    detections: tuple[Detection, ...]
    detection: Detection
    trials: tuple[Repair, ...]
    accuracy: float
    stages: tuple[Stage, ...]
    seed: int
    recovered: Recovery | None = None

    @property
    def anomaly_index(self) -> float:
        """The largest of all classes."""
        return self.detection.anomaly_index

    @property
    def verdict(self) -> Literal["backdoored", "clean"]:
        return "backdoored" if self.targets else "clean"


@dataclass(frozen=True, eq=False)
class RepairResult:
    """A repaired classifier.

    Attributes:
        model: the repaired copy; the given model itself where there was nothing to repair.
        scan: the scan that came first.
        repair: how it was repaired; None where there was nothing to repair.
        stages: what was done and its cost, the scan's stages first.
        compact: the repaired copy without the pruned channels, where it was asked for.
    """

    model: nn.Module
    scan: ScanResult
    repair: Repair | None
    stages: tuple[Stage, ...]
    compact: Compact | None = None


def scan(
    model: nn.Module,
    images: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    recovered: Recovery | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> ScanResult:
    """Tell whether a classifier carries a backdoor, from a few clean images or none.

    Triggers of two kinds are inverted for every class. A class whose triggers are abnormally small
    is suspected, and put on trial by a repair: made stronger, a backdoor's trigger works on every
    image, and once the backdoor is removed, on none. Some classes have small triggers by nature,
    as an 8 that takes few strokes from any digit; made stronger, such a trigger becomes the class
    itself, which cannot be removed, or only with many of the model's other answers, or it ceases to
    work. Once a target is found, classes whose index is far below its own are not tried: what looks
    like a second backdoor there is mostly a class that is near to others by nature. Scan the
    repaired model for more.

    Args:
        model: maps images in [0, 1] to logits (n, classes), at least three classes; left as it was.
            Of half precision, a float32 copy is examined.
        images: clean, float (n, C, H, W) in [0, 1], one a class is enough.
        labels: int64 (n,).
        recovered: from `recover_images`, instead of images and labels.
        seed: of all random draws; the same seed gives the same result on the same machine.
        progress: called with a stage's name and the share of it done.

    Raises:
        InputError: what does not fit, in one line.
    """
    if recovered:
        images, labels = recovered.images, recovered.labels
    model = in_full_precision(model)
    images, labels, classes = check_input(model, images, labels)
    model = in_channels_last(model, images)
    before = [recovered.stage] if recovered else []
    clock = Clock(progress)
    inversions = []
    for kind in KINDS:
        with clock.stage(f"invert a {kind} for every class") as report:
            inversion = invert_triggers(
                model,
                images,
                labels,
                targets=range(classes),
                kind=kind,
                generator=torch.Generator().manual_seed(seed),
                progress=report,
            )
            clock.count(inversion.passes)
        inversions.append(inversion)
    norms = [inversion.norms for inversion in inversions]
    detections = tuple(detect(kind, method=fitting_method(classes)) for kind in norms)
    detection = find_suspects(norms)
    trials: list[Repair] = []
    targets: list[int] = []
    for suspect in detection.targets[:_MOST_TRIALS]:
        if targets and detection.indices[suspect] < _NEAR * detection.indices[targets[0]]:
            break
        kinds = _telling_kinds(inversions, [suspect])
        triggers = refine_triggers(
            model, images, labels, targets=[suspect], kinds=kinds, seed=seed, clock=clock
        )
        trusted = recovered is None
        trials.append(
            mend(model, images, labels, triggers=triggers, trusted=trusted, seed=seed, clock=clock)
        )
        if _convicts(trials[-1], trusted):
            targets.append(suspect)
    return ScanResult(
        tuple(targets),
        tuple(inversions),
        detections,
        detection,
        tuple(trials),
        accuracy(model, images, labels),
        (*before, *clock.stages),
        seed,
        recovered,
    )


def _telling_kinds(inversions: Sequence[Inversion], targets: Sequence[int]) -> list[Kind]:
    """The kinds of which a target's trigger is small; all, if none is.

    A trigger of the other kinds is the class itself: natural, and to be left alone.
    """
    telling = [
        inversion.kind
        for inversion in inversions
        if min(inversion.norms[target] for target in targets) <= _TELLING * median(inversion.norms)
    ]
    return telling or list(KINDS)


def _convicts(trial: Repair, trusted: bool) -> bool:
    agrees = trial.after.agreement >= _AGREES or not trusted
    return trial.before.asr >= WORKS and trial.after.asr <= _FAILS and agrees


def repair(
    model: nn.Module,
    images: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    recovered: Recovery | None = None,
    force_targets: Sequence[int] = (),
    unlearn: bool = True,
    estimator: Estimator = "multilinear",
    mode: Mode | None = None,
    average_iterations: float = 50,
    count: int | None = None,
    compact: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> RepairResult:
    """Scan a classifier and take out the backdoor that is found.

    The repaired copy has the types of the model's tensors, be they of half precision.

    Args:
        model, images, labels, recovered: see `scan`; the model is left as it was.
        force_targets: classes to repair whatever the verdict; none to trust the scan.
        unlearn: whether fine-tuning also unlearns the inverted triggers; without it the recipe
            is the paper's plain one.
        estimator, mode, average_iterations: of the Shapley values, see `estimate_shapley`.
        count: how many neurons to prune; None to choose on the given images.
        compact: whether to make a copy without the pruned channels too, see `make_compact`.
        seed, progress: see `scan`.

    Raises:
        InputError: what does not fit, in one line.
    """
    if recovered:
        images, labels = recovered.images, recovered.labels
    given, model = model, in_full_precision(model)
    images, labels, classes = check_input(model, images, labels)
    for target in force_targets:
        if not 0 <= target < classes:
            raise InputError(f"class {target} cannot be a target: expected 0 .. {classes - 1}")
    scanned = scan(model, images, labels, recovered=recovered, seed=seed, progress=progress)
    targets = tuple(dict.fromkeys(force_targets)) or scanned.targets
    if not targets:
        return RepairResult(given, scanned, None, scanned.stages)
    as_tried = unlearn and estimator == "multilinear" and mode is None and count is None
    tried = next((trial for trial in scanned.trials if trial.targets == targets), None)
    clock = Clock(progress)
    if tried and as_tried:
        story = tried
    else:
        fast = in_channels_last(model, images)
        kinds = _telling_kinds(scanned.inversions, targets)
        triggers = (
            tried.triggers
            if tried
            else refine_triggers(
                fast, images, labels, targets=targets, kinds=kinds, seed=seed, clock=clock
            )
        )
        story = mend(
            fast,
            images,
            labels,
            triggers=triggers,
            unlearn=unlearn,
            estimator=estimator,
            mode=mode,
            average_iterations=average_iterations,
            count=count,
            trusted=recovered is None,
            seed=seed,
            clock=clock,
        )
    story.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    smaller = None
    if compact:
        with clock.stage("take pruned channels away"):
            smaller = make_compact(
                story.model, images, neurons=story.neurons, removed=story.pruning.removed
            )
        cast_like(smaller.model, given)
    cast_like(story.model, given)
    return RepairResult(story.model, scanned, story, (*scanned.stages, *clock.stages), smaller)
