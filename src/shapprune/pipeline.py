"""The main path, the boxes of the paper's Figure 1 in order: `scan` and `repair`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal
from warnings import warn

import torch
from torch import Tensor, nn

from shapprune.errors import InputError, InputWarning
from shapprune.method.attribution import Estimator, Mode, check_ways
from shapprune.method.case import Case, check_case
from shapprune.method.detection import Basis, Judgement, Verdict, judge, shipped
from shapprune.method.evidence import Evidence, gather
from shapprune.method.recovery import Recovery
from shapprune.method.repair import Repair, repair_case
from shapprune.method.settings import FALSE_ALARMS
from shapprune.method.triggers import Target, TargetMap, all_to_all, all_to_one, check_map
from shapprune.model.adapted import unwrap
from shapprune.model.checks import check_number, kind
from shapprune.model.compact import Compact, make_compact
from shapprune.model.inference import cast_like, copy_of, searching
from shapprune.model.neurons import find_neurons
from shapprune.utils.progress import Clock, Progress, Stage


@dataclass(frozen=True, eq=False)
class ScanResult:
    """Whether a classifier carries a backdoor.

    Attributes:
        judgement: the verdict with its scores, bounds and error rates.
        evidence: what it is made of.
        accuracy: ACC on the given images, in [0, 1].
        stages: what was done and its cost.
        seed: of all random draws.
        recovered: the images that the scan went by, where none were given.
        warnings: what does not seem to fit, told before the search too, as `InputWarning`.
    """

    judgement: Judgement
    evidence: Evidence
    accuracy: float
    stages: tuple[Stage, ...]
    seed: int
    recovered: Recovery | None = None
    warnings: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """ "backdoored", "suspicious" or "clean"."""
        return self.judgement.verdict

    @property
    def anomaly_index(self) -> float:
        """The highest score, which decides, under the name that version 0.1.0 had for such."""
        return self.judgement.score

    @property
    def targets(self) -> tuple[int, ...]:
        """The target classes, highest score first; none if the model is clean, or if the backdoor
        has no single target: then `mapping` tells where images go."""
        return self.judgement.targets

    @property
    def mapping(self) -> tuple[int | None, ...] | None:
        """See `Judgement.mapping`."""
        return self.judgement.mapping


@dataclass(frozen=True, eq=False)
class RepairResult:
    """A repaired classifier.

    Attributes:
        model: the repaired copy; the given model itself where nothing was repaired.
        scan: the scan that came first.
        repair: how it was repaired; None where nothing was.
        stages: what was done and its cost, the scan's stages first.
        compact: the repaired copy without the pruned channels, where it was asked for.
    """

    model: nn.Module
    scan: ScanResult
    repair: Repair | None
    stages: tuple[Stage, ...]
    compact: Compact | None = None

    @property
    def forced(self) -> bool:
        """Whether something else was repaired than what the scan names."""
        if self.repair is None:
            return False
        return set(self.repair.maps) != set(_suspected(self.scan))

    @property
    def unrepaired(self) -> bool:
        """Whether the model is not clean, and yet was left as it is."""
        return self.scan.verdict != "clean" and self.repair is None


@searching()
def scan(
    model: nn.Module,
    images: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    recovered: Recovery | None = None,
    false_alarms: float = FALSE_ALARMS,
    seed: int = 0,
    progress: Progress | None = None,
) -> ScanResult:
    """Tell whether a classifier carries a backdoor, from a few clean images or none.

    Evidence is gathered for every class, and for a backdoor without a single target; a small fixed
    model makes scores of it, and bounds from a population of models say how often a clean model
    gets as far (`shapprune.method.detection`). Nothing is repaired: a verdict does not depend on
    whether a repair works.

    Args:
        model: maps images in [0, 1] to logits (n, classes), at least three classes; left as it was.
            Of half precision, a float32 copy is examined.
        images: clean, float (n, C, H, W) in [0, 1], one a class is enough.
        labels: int64 (n,).
        recovered: from `recover_images`, instead of images and labels. Of a network without batch
            norm, the verdict stands on maximum margins alone, which need no images: it is never
            "clean", but at best "suspicious", as the data are too few to say.
        false_alarms: share of clean models that may be called backdoored.
        seed: of all random draws; the same seed gives the same result on the same machine.
        progress: called with a stage's name and the share of it done.

    Raises:
        InputError: what does not fit, in one line.
    """
    case = _case(model, images, labels, recovered, seed)
    return _scan(case, recovered, false_alarms=false_alarms, seed=seed, progress=progress)


def _case(
    model: nn.Module,
    images: Tensor | None,
    labels: Tensor | None,
    recovered: Recovery | None,
    seed: int,
) -> Case:
    check_number("seed", seed, -(2**63), 2**63 - 1)
    if recovered is not None:
        if not isinstance(recovered, Recovery):
            raise InputError(f"recovered must be of recover_images, got {kind(recovered)}")
        case = check_case(model, recovered.images, recovered.labels, real=False)
    else:
        case = check_case(model, images, labels)
    for warning in case.warnings:
        warn(warning, InputWarning, stacklevel=4)  # of who called `scan` or `repair`
    return case


def _scan(
    case: Case,
    recovered: Recovery | None,
    *,
    false_alarms: float,
    seed: int,
    progress: Progress | None,
) -> ScanResult:
    before = [recovered.stage] if recovered else []
    basis: Basis = "images" if recovered is None else "recovered" if recovered.layers else "margins"
    check_number("false alarms", false_alarms, 0.0, 1.0)
    shipped(basis).bound(false_alarms)  # told before the search
    clock = Clock(progress)
    evidence = gather(
        case.model,
        case.images,
        case.labels,
        classes=case.classes,
        margins_only=basis == "margins",
        seed=seed,
        clock=clock,
    )
    known = case.recognition
    return ScanResult(
        judge(
            evidence,
            basis=basis,
            false_alarms=false_alarms,
            recognised=known.accuracy if recovered else float(not known.guessed),
        ),
        evidence,
        known.accuracy,
        (*before, *clock.stages),
        seed,
        recovered,
        case.warnings,
    )


@searching()
def repair(
    model: nn.Module,
    images: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    recovered: Recovery | None = None,
    force_targets: Sequence[Target | Literal["y+1"]] = (),
    false_alarms: float = FALSE_ALARMS,
    unlearn: bool = True,
    estimator: Estimator = "multilinear",
    mode: Mode | None = None,
    average_iterations: float = 50,
    count: int | None = None,
    compact: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> RepairResult:
    """Scan a classifier and take out the backdoor that is found, or suspected.

    Where the data are too few to say and no class stands out, there is nothing to repair, and what
    has no neurons to prune or cannot be copied is only scanned, with a warning before the search
    (`RepairResult.unrepaired`); with ``force_targets`` or ``count`` that is an error.

    The repaired copy has the types of the model's tensors, be they of half precision.

    Args:
        model, images, labels, recovered: see `scan`; the model is left as it was.
        force_targets: what to repair whatever the verdict: classes that images of all others are
            sent to, or maps, which say for each class where its images are sent, None where they
            are left alone; "y+1" sends each to the next. None at all to trust the scan.
        false_alarms: see `scan`.
        unlearn: whether fine-tuning also unlearns the inverted triggers; without it the recipe
            is the paper's plain one.
        estimator, mode, average_iterations: of the Shapley values, see `estimate_shapley`.
        count: how many neurons to prune; None to choose on the given images.
        compact: whether to make a copy without the pruned channels too, see `make_compact`.
        seed, progress: see `scan`.

    Raises:
        InputError: what does not fit, in one line.
    """
    if not isinstance(force_targets, Sequence) or isinstance(force_targets, str):
        raise InputError(f"force_targets must be a list, got {force_targets!r}")
    check_ways(estimator, mode, average_iterations)
    case = _case(model, images, labels, recovered, seed)
    forced = [_map(target, case.classes) for target in force_targets]
    fault = _unrepairable(case, count)
    if fault is not None:
        if forced or count is not None:
            raise fault
        warning = f"scanned, but not to be repaired: {fault}"
        warn(warning, InputWarning, stacklevel=3)  # of who called
        case = replace(case, warnings=(*case.warnings, warning))
    scanned = _scan(case, recovered, false_alarms=false_alarms, seed=seed, progress=progress)
    maps = tuple(dict.fromkeys(forced)) or _suspected(scanned)
    if not maps or fault is not None:
        return RepairResult(model, scanned, None, scanned.stages)
    clock = Clock(progress)
    story = repair_case(
        case,
        maps,
        evidence=scanned.evidence,
        unlearn=unlearn,
        estimator=estimator,
        mode=mode,
        average_iterations=average_iterations,
        count=count,
        seed=seed,
        clock=clock,
    )
    story.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    smaller = None
    if compact:
        with clock.stage("take pruned channels away"):
            smaller = make_compact(
                story.model, case.images, neurons=story.neurons, removed=story.removed
            )
        smaller = replace(smaller, model=unwrap(smaller.model))
        cast_like(smaller.model, model)
    story = replace(story, model=unwrap(story.model))
    cast_like(story.model, model)
    return RepairResult(story.model, scanned, story, (*scanned.stages, *clock.stages), smaller)


def _unrepairable(case: Case, count: int | None) -> InputError | None:
    """Why the model cannot be repaired, if it cannot."""
    try:
        neurons = find_neurons(copy_of(case.model), case.images)
        if count is not None:
            check_number("count", count, 0, len(neurons))
    except InputError as error:
        return error
    return None


def _map(target: Target | Literal["y+1"], classes: int) -> TargetMap:
    if target == "y+1":
        return all_to_all(classes)
    if isinstance(target, int):
        return all_to_one(target, classes)
    return check_map(target, classes)


def _suspected(scanned: ScanResult) -> tuple[TargetMap, ...]:
    """What the verdict names: a map for each target, or the one map that there is."""
    classes = scanned.evidence.classes
    if scanned.mapping and any(to is not None for to in scanned.mapping):
        return (check_map(scanned.mapping, classes),)
    return tuple(all_to_one(target, classes) for target in scanned.targets)
