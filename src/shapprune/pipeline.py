"""The main path, the boxes of the paper's Figure 1 in order: `scan` and `repair`."""

from collections.abc import Sequence
from dataclasses import replace
from warnings import warn

import torch
from torch import Tensor, nn

from shapprune.errors import InputWarning
from shapprune.method.attribution import Estimator, check_ways
from shapprune.method.entry import Forced, enter, find_prunable, forced_maps
from shapprune.method.recovery import Recovery
from shapprune.method.repair import repair_case
from shapprune.method.repaired import RepairResult
from shapprune.method.scan import ScanResult, scan_case
from shapprune.method.settings import FALSE_ALARMS
from shapprune.model.adapted import unwrap
from shapprune.model.inference import cast_like, searching
from shapprune.utils.progress import Clock, Progress

__all__ = ["RepairResult", "ScanResult", "repair", "scan"]


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
    case = enter(model, images, labels, recovered, seed)
    return scan_case(case, recovered, false_alarms=false_alarms, seed=seed, progress=progress)


@searching()
def repair(
    model: nn.Module,
    images: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    recovered: Recovery | None = None,
    force_targets: Sequence[Forced] = (),
    false_alarms: float = FALSE_ALARMS,
    unlearn: bool = True,
    estimator: Estimator = "multilinear",
    average_iterations: float = 50,
    pruned: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> RepairResult:
    """Scan a classifier and take out the backdoor that is found, or suspected.

    Where the data are too few to say and no class stands out, there is nothing to repair, and what
    has no neurons to prune or cannot be copied is only scanned, with a warning before the search
    (`RepairResult.unrepaired`); with ``force_targets`` or ``pruned`` that is an error.

    The repaired copy has the types of the model's tensors, be they of half precision.

    Args:
        model, images, labels, recovered, false_alarms, seed, progress: see `scan`.
        force_targets: what to repair whatever the verdict: classes that images of all others are
            sent to, or maps, which say for each class where its images are sent, None where they
            are left alone; "y+1" sends each to the next; "first" is what the scan names, and where
            it names nothing the class of the highest score. None at all to trust the scan.
        unlearn: whether fine-tuning also unlearns the inverted triggers; without it the recipe
            is the paper's plain one.
        estimator, average_iterations: of the Shapley values, see `estimate_shapley`.
        pruned: how many neurons to prune; None to choose on the given images.

    Raises:
        InputError: what does not fit, in one line.
    """
    check_ways(estimator, average_iterations)
    case = enter(model, images, labels, recovered, seed)
    forced = forced_maps(force_targets, case.classes)
    case, neurons = find_prunable(case, pruned=pruned, forced=bool(forced))
    scanned = scan_case(case, recovered, false_alarms=false_alarms, seed=seed, progress=progress)
    told = [to for one in forced for to in (scanned.foremost if one == "first" else (one,))]
    if not (maps := tuple(dict.fromkeys(told)) or scanned.maps) or neurons is None:
        return RepairResult(model, scanned, None, scanned.stages)
    clock = Clock(progress)
    try:
        repaired = repair_case(
            case,
            maps,
            neurons=neurons,
            evidence=scanned.evidence,
            unlearn=unlearn,
            estimator=estimator,
            average_iterations=average_iterations,
            pruned=pruned,
            seed=seed,
            clock=clock,
        )
    except BaseException:  # Ctrl-C, too: the scan's verdict is not lost with the repair
        warn(f"not repaired; the scan before it said: {scanned.told}", InputWarning, stacklevel=3)
        raise
    repaired.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    repaired = replace(repaired, model=unwrap(repaired.model))
    cast_like(repaired.model, model)
    return RepairResult(repaired.model, scanned, repaired, (*scanned.stages, *clock.stages))
