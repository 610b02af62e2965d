"""The main path, the boxes of the paper's Figure 1 in order: `scan` and `repair`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor, nn

from shapprune.compact import Compact, make_compact
from shapprune.errors import InputError
from shapprune.estimation import Estimator, Mode
from shapprune.mending import Repair, mend, refine_triggers
from shapprune.method.detection import Basis, Judgement, Verdict, judge, shipped
from shapprune.method.evidence import Evidence, gather
from shapprune.method.settings import FALSE_ALARMS, KINDS_OF_TRIGGER
from shapprune.metrics import accuracy
from shapprune.model.adapted import unwrap
from shapprune.model.examination import examine
from shapprune.models import cast_like, check_input, in_channels_last, in_full_precision
from shapprune.recovery import Recovery
from shapprune.stages import Clock, Progress, Stage
from shapprune.triggers import KINDS, Kind, invert_triggers


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
    """

    judgement: Judgement
    evidence: Evidence
    accuracy: float
    stages: tuple[Stage, ...]
    seed: int
    recovered: Recovery | None = None

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
    def unrepaired(self) -> bool:
        """Whether the model is not clean, and yet was left as it is."""
        return self.scan.verdict != "clean" and self.repair is None


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
    case = _checked(model, images, labels, recovered)
    return _scan(case, false_alarms=false_alarms, seed=seed, progress=progress)


@dataclass(frozen=True, eq=False)
class _Case:
    """What is examined, checked once.

    Attributes:
        model: fit for the search: of full precision, answering in logits with gradients.
        images, labels: on its device and of its type.
        classes: that it tells apart.
        recovered: where the images come from, if they were not given.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    classes: int
    recovered: Recovery | None


def _checked(
    model: nn.Module, images: Tensor | None, labels: Tensor | None, recovered: Recovery | None
) -> _Case:
    if recovered:
        images, labels = recovered.images, recovered.labels
    model = in_full_precision(model)
    images, labels, classes = check_input(model, images, labels)
    model = examine(model, images, labels=None if recovered else labels)
    return _Case(in_channels_last(model, images), images, labels, classes, recovered)


def _scan(case: _Case, *, false_alarms: float, seed: int, progress: Progress | None) -> ScanResult:
    recovered = case.recovered
    before = [recovered.stage] if recovered else []
    basis: Basis = "images" if recovered is None else "recovered" if recovered.layers else "margins"
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
    right = accuracy(case.model, case.images, case.labels)
    return ScanResult(
        judge(
            evidence,
            basis=basis,
            false_alarms=false_alarms,
            recognised=right if recovered else 1.0,
        ),
        evidence,
        right,
        (*before, *clock.stages),
        seed,
        recovered,
    )


def _kinds_of(
    case: _Case, scanned: ScanResult, targets: Sequence[int], *, seed: int, clock: Clock
) -> list[Kind]:
    """The kinds of trigger of which a target's is small; all, if none is.

    A trigger of the other kinds is the class itself: natural, and to be left alone.
    """
    ordinary = [c for c in reversed(scanned.judgement.ranking) if c not in targets]
    found = []
    for kind in KINDS:
        with clock.stage(f"invert a {kind} for the targets and ordinary classes") as report:
            inversion = invert_triggers(
                case.model,
                case.images,
                case.labels,
                targets=[*targets, *ordinary[: KINDS_OF_TRIGGER.ordinary]],
                kind=kind,
                steps=KINDS_OF_TRIGGER.steps,
                per_step=KINDS_OF_TRIGGER.images,
                generator=torch.Generator().manual_seed(seed),
                progress=report,
            )
            clock.count(inversion.passes)
        usual = median(inversion.norms[len(targets) :] or inversion.norms)
        if min(inversion.norms[: len(targets)]) <= KINDS_OF_TRIGGER.small * usual:
            found.append(kind)
    return found or list(KINDS)


def repair(
    model: nn.Module,
    images: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    recovered: Recovery | None = None,
    force_targets: Sequence[int] = (),
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

    A backdoor without a single target is found but not repaired yet, and where the data are too few
    to say and no class stands out, there is nothing to repair (`RepairResult.unrepaired`).
    The repaired copy has the types of the model's tensors, be they of half precision.

    Args:
        model, images, labels, recovered: see `scan`; the model is left as it was.
        force_targets: classes to repair whatever the verdict; none to trust the scan.
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
    case = _checked(model, images, labels, recovered)
    for target in force_targets:
        if not 0 <= target < case.classes:
            raise InputError(f"class {target} cannot be a target: expected 0 .. {case.classes - 1}")
    scanned = _scan(case, false_alarms=false_alarms, seed=seed, progress=progress)
    targets = tuple(dict.fromkeys(force_targets)) or scanned.targets
    if not targets:
        return RepairResult(model, scanned, None, scanned.stages)
    clock = Clock(progress)
    triggers = refine_triggers(
        case.model,
        case.images,
        case.labels,
        targets=targets,
        kinds=_kinds_of(case, scanned, targets, seed=seed, clock=clock),
        seed=seed,
        clock=clock,
    )
    story = mend(
        case.model,
        case.images,
        case.labels,
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
                story.model, case.images, neurons=story.neurons, removed=story.pruning.removed
            )
        smaller = replace(smaller, model=unwrap(smaller.model))
        cast_like(smaller.model, model)
    story = replace(story, model=unwrap(story.model))
    cast_like(story.model, model)
    return RepairResult(story.model, scanned, story, (*scanned.stages, *clock.stages), smaller)
