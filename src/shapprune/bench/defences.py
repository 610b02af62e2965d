"""Every defence by its name, ours beside the others, as the experiments call them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias, TypedDict

import torch
from torch import Tensor, nn

from shapprune.baselines import DEFENCES as OTHERS
from shapprune.baselines.fine_pruning import dormant_first
from shapprune.baselines.gangsweep import gangsweep
from shapprune.errors import InputError
from shapprune.game import NeuronGame
from shapprune.method.attribution import Estimator, Mode
from shapprune.method.case import check_case
from shapprune.method.finetuning import distillation_pool, fine_tune
from shapprune.method.settings import SELECTION
from shapprune.neurons import find_neurons
from shapprune.pipeline import repair
from shapprune.recovery import Recovery
from shapprune.shapley import algorithm1
from shapprune.stages import Progress

_MOST = 0.15  # of the neurons
_FAILS = 0.01  # ASR on the defender's images


class _Form(TypedDict, total=False):
    unlearn: bool
    estimator: Estimator
    mode: Mode


# The paper's forms: Algorithm 1, pruning, and fine-tuning on clean images; "mixture" is that of
# Sec. 3.4 for images that are recovered. Our default: gradients, and unlearning while fine-tuning.
_OURS: Mapping[str, _Form] = {
    "ours-plain": {"unlearn": False, "estimator": "algorithm1"},
    "ours-mixture": {"unlearn": False, "estimator": "algorithm1", "mode": "mixture"},
    "ours": {},
}
WITH_TRIGGER = "ours-o"  # given the attacker's trigger, for comparison only
METHODS = (*OTHERS, *_OURS, WITH_TRIGGER)

Attacker: TypeAlias = tuple[int, Callable[[Tensor], Tensor]]  # the target, and what stamps images


@dataclass(frozen=True)
class Budget:
    """What the most expensive defences may spend.

    Attributes:
        average_iterations: of Algorithm 1.
        generator_steps, generator_rate, generator_batch: of GangSweep, a class.
    """

    average_iterations: float = 50  # the paper's
    generator_steps: int = 500
    generator_rate: float = 1e-4  # the paper's
    generator_batch: int = 32


FULL = Budget()


@dataclass(frozen=True, eq=False)
class Defended:
    """What a defence made of a model.

    Attributes:
        model: the copy.
        order: all the neurons that it would prune, the first one first; empty where it does not
            prune one after another.
        facts: what else it tells, as JSON has it.
    """

    model: nn.Module
    order: tuple[int, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)


def defend(
    method: str,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    recovered: Recovery | None = None,
    attacker: Attacker | None = None,
    budget: Budget = FULL,
    seed: int = 0,
    progress: Progress | None = None,
) -> Defended:
    """Carry out a defence.

    Args:
        method: one of `METHODS`.
        model: left as it was.
        images, labels: all that the defender has, (n, C, H, W) in [0, 1] and int64 (n,).
        recovered: where these images come from, if they are not real.
        attacker: looked at by "ours-o" alone.
        budget: of what costs most.
        seed: of all random draws.
        progress: called with a stage's name and the share of it done.

    Raises:
        InputError: no such defence, or what it says itself.
    """

    def report(share: float) -> None:
        if progress:
            progress(method, share)

    if method == WITH_TRIGGER and attacker:
        return _with_trigger(model, images, labels, *attacker, budget, seed, report)
    if method in _OURS:
        found = repair(
            model,
            images,
            labels,
            recovered=recovered,
            average_iterations=budget.average_iterations,
            seed=seed,
            progress=progress,
            **_OURS[method],
        )
        if found.repair is None:
            return Defended(found.model, facts={"targets": [], "pruned": 0})
        pruning = found.repair.pruning
        order = pruning.score.argsort(descending=True)
        order = order[pruning.score[order].isfinite()]  # "mixture" leaves some alone
        facts = {"targets": found.repair.targets, "pruned": len(found.repair.removed)}
        return Defended(found.model, tuple(order.tolist()), facts)
    if method not in OTHERS:
        raise InputError(f"no defence {method!r}: there are {', '.join(METHODS)}")
    other = OTHERS[method]
    if method == "gangsweep":
        other = partial(
            gangsweep,
            steps=budget.generator_steps,
            learning_rate=budget.generator_rate,
            batch_size=budget.generator_batch,
        )
    repaired = other(model, images, labels, seed=seed, progress=report)
    if method != "fine-pruning":
        return Defended(repaired)
    dormant = dormant_first(model, images, neurons=find_neurons(model, images))
    return Defended(repaired, tuple(dormant))


def _with_trigger(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    target: int,
    stamp: Callable[[Tensor], Tensor],
    budget: Budget,
    seed: int,
    progress: Callable[[float], None],
) -> Defended:
    """ "ShapPruning/o" of Table 1: the attacker's trigger is given, for comparison only.

    Algorithm 1 ranks the neurons on stamped images; the smallest number is pruned that leaves an
    ASR of at most 1 % on them, of 15 % of the neurons at most; then fine-tuning on clean images.
    """
    case = check_case(model, images, labels)
    model, images, labels = case.model, case.images, case.labels
    others = images[labels != target]
    if len(others) == 0:
        raise InputError("no image of another class than the target: give images of more classes")
    neurons = find_neurons(model, images)
    answers = torch.full((len(others),), target, device=images.device)
    game = NeuronGame(model, neurons, stamp(others), answers)
    generator = torch.Generator().manual_seed(seed)
    average = budget.average_iterations
    values = algorithm1(
        game, average_iterations=average, generator=generator, progress=progress
    ).values
    order = values.argsort(descending=True)
    limit = max(1, int(_MOST * len(neurons)))
    counts = [count for count in SELECTION.counts if count <= limit]
    present = torch.ones(len(counts), len(neurons), dtype=torch.bool, device=images.device)
    for row, count in enumerate(counts):
        present[row, order[:count].to(images.device)] = False
    rates = game(present).tolist()
    enough = [count for count, rate in zip(counts, rates, strict=True) if rate <= _FAILS]
    best = enough[0] if enough else counts[rates.index(min(rates))]
    removed = tuple(order[:best].tolist())
    pool = distillation_pool(case, generator=generator)
    tuned = fine_tune(model, pool, neurons=neurons, removed=removed, generator=generator)
    return Defended(tuned, tuple(order.tolist()), {"targets": [target], "pruned": best})
