"""The triggers that a repair works with: inverted with more care than a scan takes."""

from collections.abc import Sequence
from statistics import median

import torch

from shapprune.method.case import Case
from shapprune.method.evidence import Evidence
from shapprune.method.inversion import KINDS, InvertedTrigger, Kind, invert_triggers
from shapprune.method.settings import EVALUATION, KINDS_OF_TRIGGER, REFINEMENT
from shapprune.method.triggers import Stamp, TargetMap, name_classes, targets_of
from shapprune.utils.progress import Clock, part_of


def repair_triggers(
    case: Case, maps: Sequence[TargetMap], *, evidence: Evidence, seed: int, clock: Clock
) -> tuple[InvertedTrigger, ...]:
    """What a repair works with.

    For a single target, triggers that are inverted with more care than a scan takes, and the
    scan's best window and perturbation. For a map of several, the scan's triggers without a
    target: they move all images, and where to is what the map says.

    Args:
        maps: at least one.
        evidence: of the scan.
        clock: gets the stages.
    """
    moving = evidence.untargeted.triggers if evidence.untargeted else ()
    several = [mapping for mapping in maps if len(targets_of([mapping])) > 1 and moving]
    others = [mapping for mapping in maps if mapping not in several]
    found = [
        InvertedTrigger(mapping, trigger.stamp, trigger.norm, trigger.moved, 0)
        for mapping in several
        for trigger in moving
    ]
    kinds = _kinds_of(case, others, evidence, seed=seed, clock=clock) if others else []
    with clock.stage(f"refine the triggers of {name_classes(targets_of(maps))}") as report:
        passes = 0
        for i, kind in enumerate(kinds):
            inversion = invert_triggers(
                case.model,
                case.images,
                case.labels,
                targets=others * REFINEMENT.starts,
                kind=kind,
                steps=REFINEMENT.steps,
                per_step=REFINEMENT.images,
                gate=REFINEMENT.gate,
                give_up=False,
                flip=case.flip_allowed,
                generator=torch.Generator().manual_seed(seed),
                progress=part_of(report, i, len(kinds)),
            )
            found += inversion.triggers
            passes += inversion.passes
        clock.count(passes)
    return (*found, *_found_by_scan(others, evidence, kinds))


def _found_by_scan(
    maps: Sequence[TargetMap], evidence: Evidence, kinds: Sequence[Kind]
) -> list[InvertedTrigger]:
    """The best windows of targets whose patches are small, and the best perturbations likewise.

    Those that move nearly all images: they cost nothing more, and an attacker's square is more
    like an opaque window than like the smallest mask that works. What moves half of them is no
    short cut, and to unlearn it costs accuracy.
    """
    found = []
    for kind, best in (("patch", evidence.windows), ("perturbation", evidence.perturbations)):
        for mapping in maps if best and kind in kinds else ():
            target = targets_of([mapping])[0]
            if best and len(targets_of([mapping])) == 1 and target in best.classes:
                place = best.classes.index(target)
                stamp: Stamp = best.triggers[place]
                share = best.shares[place]
                if share >= EVALUATION.works:
                    found.append(InvertedTrigger(mapping, stamp, stamp.norm, share, 0))
    return found


def _kinds_of(
    case: Case, maps: Sequence[TargetMap], evidence: Evidence, *, seed: int, clock: Clock
) -> list[Kind]:
    """The kinds of trigger of which a target's is small; all, if none is.

    A trigger of the other kinds is the class itself: natural, and to be left alone.
    """
    targets, margins = targets_of(maps), evidence.margins.values
    ordinary = [
        c for c in sorted(range(case.classes), key=lambda c: margins[c]) if c not in targets
    ]
    found = []
    for kind in KINDS:
        with clock.stage(f"invert a {kind} for the targets and ordinary classes") as report:
            inversion = invert_triggers(
                case.model,
                case.images,
                case.labels,
                targets=[*maps, *ordinary[: KINDS_OF_TRIGGER.ordinary]],
                kind=kind,
                steps=KINDS_OF_TRIGGER.steps,
                per_step=KINDS_OF_TRIGGER.images,
                flip=case.flip_allowed,
                generator=torch.Generator().manual_seed(seed),
                progress=report,
            )
            clock.count(inversion.passes)
        usual = median(inversion.norms[len(maps) :] or inversion.norms)
        if min(inversion.norms[: len(maps)]) <= KINDS_OF_TRIGGER.small * usual:
            found.append(kind)
    return found or list(KINDS)
