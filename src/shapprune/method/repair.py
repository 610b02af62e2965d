"""From suspected maps to a repaired copy: the second half of the paper's Figure 1."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

from shapprune.method.attribution import Estimator, NeuronValues, estimate_shapley
from shapprune.method.case import Case
from shapprune.method.evaluation import Evaluator, Proxies
from shapprune.method.evidence import Evidence
from shapprune.method.finetuning import distillation_pool, fine_tune
from shapprune.method.inversion import KINDS, InvertedTrigger, Kind, invert_triggers
from shapprune.method.pruning import Pruning, prune
from shapprune.method.selection import Candidate, Way, choose
from shapprune.method.settings import EVALUATION, KINDS_OF_TRIGGER, REFINEMENT, SELECTION
from shapprune.method.triggers import Stamp, TargetMap, targets_of
from shapprune.model.inference import copy_of
from shapprune.model.masking import remove_neurons
from shapprune.model.neurons import Neurons
from shapprune.utils.progress import Clock, part_of


@dataclass(frozen=True, eq=False)
class Repair:
    """A repaired copy of a model and how it came about.

    Attributes:
        model: the copy.
        maps: of the backdoors that were removed.
        triggers: the triggers that the repair worked with.
        neurons: all prunable neurons.
        values: their Shapley values.
        pruning: the pruning curve of the score by which the copy's neurons were pruned.
        candidates: all networks that were measured.
        chosen: the place of the copy among them.
        sufficient: whether its ASR is low enough, at the upper end of the interval.
        unlearned: whether fine-tuning unlearned the triggers too.
        before, after: proxies of the original and of the copy.
    """

    model: nn.Module
    maps: tuple[TargetMap, ...]
    triggers: tuple[InvertedTrigger, ...]
    neurons: Neurons
    values: NeuronValues
    pruning: Pruning
    candidates: tuple[Candidate, ...]
    chosen: int
    sufficient: bool
    unlearned: bool
    before: Proxies
    after: Proxies

    @property
    def targets(self) -> tuple[int, ...]:
        """The classes that images were sent to."""
        return targets_of(self.maps)

    @property
    def pruned(self) -> tuple[int, ...]:
        """The copy's pruned neurons, most harmful first."""
        return self.candidates[self.chosen].pruned


def repair_case(
    case: Case,
    maps: Sequence[TargetMap],
    *,
    neurons: Neurons,
    evidence: Evidence,
    unlearn: bool = True,
    estimator: Estimator = "multilinear",
    average_iterations: float = 50,
    pruned: int | None = None,
    seed: int,
    clock: Clock,
) -> Repair:
    """Take backdoors out of a model; see `shapprune.repair` for the rest.

    Args:
        case: left as it was.
        maps: of the backdoors, at least one.
        neurons: of the model, see `find_neurons`.
        evidence: of the scan; its best windows and perturbations join the inverted triggers.
        clock: gets the stages.

    Raises:
        InputError: no image that a map attacks.
    """

    def generator() -> torch.Generator:
        """A stage's own: its draws do not depend on the stages before it."""
        return torch.Generator().manual_seed(seed)

    triggers = repair_triggers(case, maps, evidence=evidence, seed=seed, clock=clock)
    of = _classes(targets_of(maps))
    with clock.stage(f"estimate Shapley values for {of}") as report:
        single = [mapping for mapping in maps if len(targets_of([mapping])) == 1]
        surest = torch.tensor(targets_of(single), dtype=torch.int64, device=case.labels.device)
        values = estimate_shapley(
            case.model,
            case.images,
            case.labels,
            neurons=neurons,
            triggers=[(trigger.mapping, trigger.stamp) for trigger in triggers],
            extremes=(evidence.margins.inputs[surest], surest) if len(surest) else None,
            estimator=estimator,
            average_iterations=average_iterations,
            flip=case.flip_allowed,
            generator=generator(),
            progress=report,
        )
        clock.count(values.passes)
    evaluator = Evaluator(case, triggers, neurons=neurons, generator=generator())
    candidates: list[Candidate] = []
    prunings: list[Pruning] = []
    with clock.stage(f"prune for {of}") as report:
        for i, score in enumerate(values.scores):
            part = part_of(report, i, len(values.scores))
            prunings.append(
                prune(case.model, score=score, evaluator=evaluator, pruned=pruned, progress=part)
            )
            candidates += [
                Candidate("pruned", i, prunings[i].first(point.pruned), 1, point.proxies)
                for point in prunings[i].curve
                if pruned in (None, point.pruned)
            ]
    networks: dict[int, nn.Module] = {}  # by the candidate's place; others are made when chosen
    with clock.stage(f"fine-tune for {of}") as report:
        pool = distillation_pool(case, maps, generator=generator())
        starts = _starts(candidates, pruned)
        for i, (start, stamped) in enumerate(starts):
            tuned = fine_tune(
                case.model,
                pool,
                neurons=neurons,
                pruned=start.pruned,
                stamps=[trigger.stamp for trigger in triggers] if unlearn else (),
                stamped=stamped,
                generator=generator(),
                progress=part_of(report, i, len(starts)),
            )
            start_network = remove_neurons(case.model, neurons, start.pruned)
            weights = (*SELECTION.between, 1.0) if start.pruned and unlearn else (1.0,)
            for weight in weights:
                network = interpolated(start_network, tuned, weight)
                networks[len(candidates)] = network
                way: Way = "tuned" if weight == 1 else "between"
                candidates.append(
                    Candidate(way, start.score, start.pruned, weight, evaluator(network))
                )
    before = evaluator(case.model)
    # The plain recipe prunes, then fine-tunes on clean images: only what was tuned is its result.
    places = list(range(len(candidates)) if unlearn else networks)
    place, sufficient = choose([candidates[i] for i in places], original=before)
    chosen = places[place]
    taken = candidates[chosen]
    model = networks.get(chosen)
    if model is None:
        model = remove_neurons(case.model, neurons, taken.pruned)
    return Repair(
        model,
        tuple(maps),
        tuple(triggers),
        neurons,
        values,
        prunings[taken.score],
        tuple(candidates),
        chosen,
        sufficient,
        unlearn,
        before,
        taken.proxies,
    )


def _starts(candidates: Sequence[Candidate], pruned: int | None) -> list[tuple[Candidate, float]]:
    """What is tuned, and the share of a batch that is stamped meanwhile.

    Of the pruned networks that keep enough, the one with the least ASR; the more is left, the
    more is stamped. Only where pruning costs too much is the original tuned as it is, with few
    and with many: what is left of a backdoor whose neurons are all there does not show under the
    triggers that it was tuned on.
    """
    low, high = SELECTION.least_stamped, SELECTION.most_stamped
    some = [c for c in candidates if c.pruned and c.proxies.kept.value >= SELECTION.start_kept]
    if pruned is not None:
        some = [c for c in candidates if len(c.pruned) == pruned]
    if not some:
        return [(candidates[0], low), (candidates[0], high)]
    start = min(some, key=lambda c: c.proxies.asr.value)
    return [(start, low + start.proxies.asr.value * (high - low))]


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
    with clock.stage(f"refine the triggers of {_classes(targets_of(maps))}") as report:
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


@torch.no_grad()
def interpolated(one: nn.Module, other: nn.Module, weight: float) -> nn.Module:
    """A network whose weights lie between those of two of the same kind (WiSE-FT, Wortsman et al.
    2022): 0 is the one, 1 the other."""
    between = copy_of(other)
    for mine, start in zip(between.parameters(), one.parameters(), strict=True):
        mine.copy_(start.lerp(mine, weight))
    return between


def _classes(targets: Sequence[int]) -> str:
    return f"class {', '.join(map(str, targets))}"
