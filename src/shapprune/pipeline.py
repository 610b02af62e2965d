"""The main path, the boxes of the paper's Figure 1 in order: `scan` and `repair`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from shapprune.detection import Detection, detect, suspects
from shapprune.errors import InputError
from shapprune.estimation import Estimator, NeuronValues, estimate_shapley
from shapprune.finetuning import fine_tune
from shapprune.metrics import accuracy
from shapprune.models import check_classifier
from shapprune.neurons import Neurons, find_neurons
from shapprune.proxies import Proxies, Yardstick
from shapprune.pruning import Pruning, prune
from shapprune.triggers import Inversion, InvertedTrigger, Kind, invert_triggers

Progress: TypeAlias = Callable[[str, float], None]  # a stage's name and the share of it done

_KINDS: tuple[Kind, ...] = ("patch", "perturbation")


@dataclass(frozen=True)
class Stage:
    """What a stage cost.

    Attributes:
        name: in plain words.
        seconds: wall-clock time.
        passes: image passes through the network, a backward pass counted as two; None where
            they were not counted.
    """

    name: str
    seconds: float
    passes: int | None = None


@dataclass(frozen=True, eq=False)
class ScanResult:
    """Whether a classifier carries a backdoor.

    Attributes:
        targets: the suspected target classes, most anomalous first; empty if the model is clean.
        inversions: the inverted triggers of every class, one inversion a kind of trigger.
        detections: what the norms of each inversion say.
        accuracy: ACC on the given images, in [0, 1].
        stages: what was done and its cost.
        seed: of all random draws.
    """

    targets: tuple[int, ...]
    inversions: tuple[Inversion, ...]
    detections: tuple[Detection, ...]
    accuracy: float
    stages: tuple[Stage, ...]
    seed: int

    @property
    def anomaly_index(self) -> float:
        """The largest of all classes and kinds of trigger."""
        return max(detection.anomaly_index for detection in self.detections)

    @property
    def verdict(self) -> Literal["backdoored", "clean"]:
        return "backdoored" if self.targets else "clean"


@dataclass(frozen=True, eq=False)
class Repair:
    """How a model was repaired.

    Attributes:
        targets: the classes whose backdoor was removed: the scan's, or the forced ones.
        triggers: the inverted triggers that the repair worked with, refined for these classes.
        neurons: all prunable neurons.
        values: their Shapley values.
        pruning: the pruned copy before fine-tuning, and the pruning curve.
        unlearned: whether fine-tuning unlearned the triggers too.
        before, pruned, after: proxies of the original, the pruned and the repaired model.
    """

    targets: tuple[int, ...]
    triggers: tuple[InvertedTrigger, ...]
    neurons: Neurons
    values: NeuronValues
    pruning: Pruning
    unlearned: bool
    before: Proxies
    pruned: Proxies
    after: Proxies


@dataclass(frozen=True, eq=False)
class RepairResult:
    """A repaired classifier.

    Attributes:
        model: the repaired copy; the given model itself where there was nothing to repair.
        scan: the scan that came first.
        repair: how it was repaired; None where there was nothing to repair.
        stages: what was done and its cost, the scan's stages first.
    """

    model: nn.Module
    scan: ScanResult
    repair: Repair | None
    stages: tuple[Stage, ...]


def scan(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> ScanResult:
    """Tell whether a classifier carries a backdoor, from a few clean images.

    A trigger is inverted for every class, of two kinds; a class whose trigger is abnormally small
    is a suspected target.

    Args:
        model: maps images in [0, 1] to logits (n, classes), at least three classes; left as it was.
        images: clean, float (n, C, H, W) in [0, 1], one a class is enough.
        labels: int64 (n,).
        seed: of all random draws; the same seed gives the same result on the same machine.
        progress: called with a stage's name and the share of it done.

    Raises:
        InputError: what does not fit, in one line.
    """
    images, labels, classes = _check(model, images, labels)
    clock = _Clock(progress)
    inversions = []
    for kind in _KINDS:
        with clock.stage(f"invert a {kind} for every class") as report:
            inversion = invert_triggers(
                model,
                images,
                labels,
                targets=range(classes),
                kind=kind,
                generator=_generator(seed),
                progress=report,
            )
            clock.count(inversion.passes)
        inversions.append(inversion)
    detections = tuple(detect(inversion.norms) for inversion in inversions)
    return ScanResult(
        suspects(detections),
        tuple(inversions),
        detections,
        accuracy(model, images, labels),
        tuple(clock.stages),
        seed,
    )


def repair(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    force_targets: Sequence[int] = (),
    unlearn: bool = True,
    estimator: Estimator = "multilinear",
    count: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> RepairResult:
    """Scan a classifier and take out the backdoor that is found.

    Args:
        model, images, labels: see `scan`; the model is left as it was.
        force_targets: classes to repair whatever the verdict; none to trust the scan.
        unlearn: whether fine-tuning also unlearns the inverted triggers; without it the recipe
            is the paper's plain one.
        estimator: of the Shapley values, see `estimate_shapley`.
        count: how many neurons to prune; None to choose on the given images.
        seed, progress: see `scan`.

    Raises:
        InputError: what does not fit, in one line.
    """
    images, labels, classes = _check(model, images, labels)
    for target in force_targets:
        if not 0 <= target < classes:
            raise InputError(f"class {target} cannot be a target: expected 0 .. {classes - 1}")
    scanned = scan(model, images, labels, seed=seed, progress=progress)
    targets = tuple(dict.fromkeys(force_targets)) or scanned.targets
    if not targets:
        return RepairResult(model, scanned, None, scanned.stages)
    clock = _Clock(progress, scanned.stages)

    with clock.stage("refine the suspects' triggers") as report:
        refined = [
            invert_triggers(
                model,
                images,
                labels,
                targets=targets * 2,
                kind=kind,
                per_step=32,
                gate=0.97,
                give_up=False,
                generator=_generator(seed),
                progress=partial(_part, report, i),
            )
            for i, kind in enumerate(_KINDS)
        ]
        clock.count(sum(inversion.passes for inversion in refined))
    found = tuple(trigger for inversion in refined for trigger in inversion.triggers)
    triggers = [(trigger.target, trigger.stamp) for trigger in found]

    with clock.stage("estimate Shapley values") as report:
        neurons = find_neurons(model, images)
        values = estimate_shapley(
            model,
            images,
            labels,
            neurons=neurons,
            triggers=triggers,
            estimator=estimator,
            generator=_generator(seed),
            progress=report,
        )
        clock.count(values.passes)
    with clock.stage("prune") as report:
        pruning = prune(
            model,
            images,
            labels,
            neurons=neurons,
            score=values.score,
            triggers=triggers,
            count=count,
            generator=_generator(seed),
            progress=report,
        )
    with clock.stage("fine-tune") as report:
        tuned = fine_tune(
            model,
            pruning,
            images,
            neurons=neurons,
            triggers=triggers if unlearn else (),
            generator=_generator(seed),
            progress=report,
        )
    with clock.stage("measure"):
        yardstick = Yardstick(model, images, labels, triggers=triggers, generator=_generator(seed))
        before, pruned, after = map(yardstick, (model, pruning.model, tuned))
    story = Repair(targets, found, neurons, values, pruning, unlearn, before, pruned, after)
    return RepairResult(tuned, scanned, story, tuple(clock.stages))


class _Clock:
    """Times the stages and passes their progress on."""

    def __init__(self, progress: Progress | None, earlier: Sequence[Stage] = ()) -> None:
        self.stages = list(earlier)
        self._progress = progress
        self._passes: int | None = None

    def count(self, passes: int) -> None:
        """Set the passes of the stage that runs."""
        self._passes = passes

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[float], None]]:
        def report(share: float) -> None:
            if self._progress:
                self._progress(name, share)

        self._passes = None
        start = perf_counter()
        report(0.0)
        yield report
        report(1.0)
        self.stages.append(Stage(name, perf_counter() - start, self._passes))


def _part(report: Callable[[float], None], kind: int, share: float) -> None:
    report((kind + share) / len(_KINDS))


def _generator(seed: int) -> torch.Generator:
    """A stage's own: its draws do not depend on the stages before it."""
    return torch.Generator().manual_seed(seed)


def _check(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, int]:
    """The images and labels on the model's device and of its type, and the number of classes.

    Raises:
        InputError: whatever the stages could trip over.
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
        raise InputError(f"images must be a float tensor (n, C, H, W), got {_kind(images)}")
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
        raise InputError(f"labels must be an int64 tensor (n,), got {_kind(labels)}")
    if not 0 < len(images) == len(labels):
        raise InputError(f"{len(images)} images and {len(labels)} labels: expected as many, > 0")
    if not bool(((images >= 0) & (images <= 1)).all()):  # NaN is refused too
        raise InputError(
            f"images must be in [0, 1], got {float(images.min()):g} to {float(images.max()):g}: "
            "normalisation belongs into the model (see Classifier)"
        )
    like = next((p for p in model.parameters() if p.is_floating_point()), images)
    images, labels = images.detach().to(like), labels.to(like.device)
    classes = check_classifier(model, images=images)
    if classes < 3:
        raise InputError(f"detection compares classes: expected at least 3, got {classes}")
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(
            f"labels must be in 0 .. {classes - 1}, got {int(labels.min())} to {int(labels.max())}"
        )
    if len(labels.unique()) < 2:
        raise InputError("expected images of at least two classes, got one")
    return images, labels, classes


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)}"
    return type(value).__name__
