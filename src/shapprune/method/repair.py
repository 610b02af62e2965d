"""From suspected maps to a repaired copy: the second half of the paper's Figure 1."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shapprune.method.attribution import Estimator, NeuronValues, estimate_shapley
from shapprune.method.case import Case
from shapprune.method.evaluation import Evaluator, Proxies
from shapprune.method.evidence import Evidence
from shapprune.method.finetuning import distillation_pool, fine_tune
from shapprune.method.inversion import InvertedTrigger
from shapprune.method.pruning import Pruning, prune
from shapprune.method.refinement import repair_triggers
from shapprune.method.selection import Candidate, choose
from shapprune.method.settings import SELECTION
from shapprune.method.triggers import Stamp, TargetMap, name_classes, targets_of
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
    values = _values(
        case,
        maps,
        triggers,
        evidence=evidence,
        neurons=neurons,
        estimator=estimator,
        average_iterations=average_iterations,
        generator=generator(),
        clock=clock,
    )
    evaluator = Evaluator(case, triggers, neurons=neurons, generator=generator())
    with clock.stage(f"prune for {name_classes(targets_of(maps))}") as report:
        prunings, candidates = _pruned(case.model, values.scores, evaluator, pruned, report)
    tuned = _tuned(
        case,
        maps,
        tuning_starts(candidates, pruned),
        stamps=[trigger.stamp for trigger in triggers] if unlearn else [],
        neurons=neurons,
        evaluator=evaluator,
        seed=seed,
        clock=clock,
    )
    # Pruned alone, a network may answer to none of our triggers and to the attacker's as before.
    place, sufficient = choose([what for what, _ in tuned], original=evaluator(case.model))
    taken, network = tuned[place]
    return Repair(
        network,
        tuple(maps),
        triggers,
        neurons,
        values,
        prunings[taken.score],
        (*candidates, *(what for what, _ in tuned)),
        len(candidates) + place,
        sufficient,
        unlearn,
        evaluator(case.model),
        taken.proxies,
    )


def _values(
    case: Case,
    maps: Sequence[TargetMap],
    triggers: Sequence[InvertedTrigger],
    *,
    evidence: Evidence,
    neurons: Neurons,
    estimator: Estimator,
    average_iterations: float,
    generator: torch.Generator,
    clock: Clock,
) -> NeuronValues:
    """The games on the stamped images, and on the maximum-margin inputs of single targets."""
    with clock.stage(f"estimate Shapley values for {name_classes(targets_of(maps))}") as report:
        values = estimate_shapley(
            case.model,
            case.images,
            case.labels,
            neurons=neurons,
            triggers=[(trigger.mapping, trigger.stamp) for trigger in triggers],
            extremes=extremes_of(case, maps, evidence),
            estimator=estimator,
            average_iterations=average_iterations,
            flip=case.flip_allowed,
            generator=generator,
            progress=report,
        )
        clock.count(values.passes)
    return values


def extremes_of(
    case: Case, maps: Sequence[TargetMap], evidence: Evidence
) -> tuple[Tensor, Tensor] | None:
    """The maximum-margin inputs of single targets, and these targets; None where there are none."""
    single = [mapping for mapping in maps if len(targets_of([mapping])) == 1]
    surest = torch.tensor(targets_of(single), dtype=torch.int64, device=case.labels.device)
    return (evidence.margins.inputs[surest], surest) if len(surest) else None


def _pruned(
    model: nn.Module,
    scores: Sequence[Tensor],
    evaluator: Evaluator,
    pruned: int | None,
    progress: Callable[[float], None],
) -> tuple[list[Pruning], list[Candidate]]:
    """The pruning curve of each score, and their points as candidates."""
    prunings, candidates = [], []
    for i, score in enumerate(scores):
        part = part_of(progress, i, len(scores))
        curve = prune(model, score=score, evaluator=evaluator, pruned=pruned, progress=part)
        prunings.append(curve)
        candidates += [
            Candidate("pruned", i, curve.first(point.pruned), point.proxies)
            for point in curve.curve
            if pruned in (None, point.pruned)
        ]
    return prunings, candidates


def _tuned(
    case: Case,
    maps: Sequence[TargetMap],
    starts: Sequence[tuple[Candidate, float]],
    *,
    stamps: Sequence[Stamp],
    neurons: Neurons,
    evaluator: Evaluator,
    seed: int,
    clock: Clock,
) -> list[tuple[Candidate, nn.Module]]:
    """Each start tuned, and what is known of what it became."""
    found = []
    with clock.stage(f"fine-tune for {name_classes(targets_of(maps))}") as report:
        pool = distillation_pool(case, maps, generator=torch.Generator().manual_seed(seed))
        for i, (start, stamped) in enumerate(starts):
            student = fine_tune(
                case.model,
                pool,
                neurons=neurons,
                pruned=start.pruned,
                stamps=stamps,
                stamped=stamped,
                generator=torch.Generator().manual_seed(seed),
                progress=part_of(report, i, len(starts)),
            )
            what = Candidate("tuned", start.score, start.pruned, evaluator(student))
            found.append((what, student))
    return found


def tuning_starts(
    candidates: Sequence[Candidate], pruned: int | None
) -> list[tuple[Candidate, float]]:
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
