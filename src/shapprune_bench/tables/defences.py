"""Every defence by its name, ours, the paper's and the others', as the experiments call them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from shapprune.baselines import DEFENCES as OTHERS
from shapprune.baselines.fine_pruning import dormant_first
from shapprune.baselines.gangsweep import gangsweep
from shapprune.errors import InputError
from shapprune.method.paper import Pruned, prune_backdoor, shap_pruning
from shapprune.method.recovery import Recovery
from shapprune.method.settings import PAPER
from shapprune.model.neurons import find_neurons
from shapprune.pipeline import repair
from shapprune.utils.progress import Progress

PAPERS = ("paper", "paper-mixture")  # its Table 1, and its Sec. 3.4 for images that are recovered
OURS = "ours"
FIRST = "ours-first"  # ours, of the class that stands out most, whatever its verdict
TOLD = "ours-target"  # ours, told the attacker's target: its repair whatever its verdict
OF_OURS = (OURS, FIRST, TOLD)
WITH_TRIGGER = "paper-o"  # the paper's "ShapPruning/o", given the attacker's trigger
METHODS = (*OTHERS, *PAPERS, *OF_OURS, WITH_TRIGGER)
UNREPAIRED = "none"  # what happens to the model without any defence

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
        method: one of `METHODS`, or `UNREPAIRED`.
        model: left as it was.
        images, labels: all that the defender has, (n, C, H, W) in [0, 1] and int64 (n,).
        recovered: where these images come from, if they are not real.
        attacker: looked at by "paper-o" and, but for the trigger, by "ours-target" alone.
        budget: of what costs most.
        seed: of all random draws.
        progress: called with a stage's name and the share of it done.

    Raises:
        InputError: no such defence, or what it says itself.
    """
    given = _Given(model, images, labels, recovered, attacker, budget, seed, progress)
    if method == UNREPAIRED:
        return Defended(model)
    if method == WITH_TRIGGER and attacker:
        return _with_trigger(given, attacker)
    if method in PAPERS:
        return _papers(given, mixture=method == "paper-mixture")
    if method == OURS:
        return _ours(given)
    if method == FIRST:
        return _ours(given, targets=["first"])
    if method == TOLD and attacker:
        return _ours(given, targets=attacker[:1])
    if method not in OTHERS:
        raise InputError(f"no defence {method!r}: there are {', '.join(METHODS)}")
    return _others(given, method)


@dataclass(frozen=True, eq=False)
class _Given:
    """What `defend` is."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    recovered: Recovery | None
    attacker: Attacker | None
    budget: Budget
    seed: int
    progress: Progress | None


def _with_trigger(given: _Given, attacker: Attacker) -> Defended:
    target, stamp = attacker
    pruned = prune_backdoor(
        given.model,
        given.images,
        given.labels,
        target=target,
        stamp=stamp,
        settings=PAPER.lasting(given.budget.average_iterations),
        generator=torch.Generator().manual_seed(given.seed),
        progress=given.progress,
    )
    return _of_paper(pruned, target)


def _papers(given: _Given, *, mixture: bool) -> Defended:
    whole = shap_pruning(
        given.model,
        given.images,
        given.labels,
        mixture=mixture,
        settings=PAPER.lasting(given.budget.average_iterations),
        seed=given.seed,
        progress=given.progress,
    )
    found = whole.detection
    facts = {"outliers": found.targets, "anomaly_index": found.anomaly_index}
    return _of_paper(whole.pruned, whole.trigger.target, facts)


def _ours(given: _Given, targets: Sequence[int | Literal["first"]] = ()) -> Defended:
    found = repair(
        given.model,
        given.images,
        given.labels,
        recovered=given.recovered,
        force_targets=targets,
        average_iterations=given.budget.average_iterations,
        seed=given.seed,
        progress=given.progress,
    )
    if found.repair is None:
        return Defended(found.model, facts={"targets": [], "pruned": 0})
    pruning = found.repair.pruning
    order = pruning.score.argsort(descending=True)
    order = order[pruning.score[order].isfinite()]  # "mixture" leaves some alone
    facts = {"targets": found.repair.targets, "pruned": len(found.repair.pruned)}
    return Defended(found.model, tuple(order.tolist()), facts)


def _others(given: _Given, method: str) -> Defended:
    def report(share: float) -> None:
        if given.progress:
            given.progress(method, share)

    defence, budget = OTHERS[method], given.budget
    if method == "gangsweep":
        defence = partial(
            gangsweep,
            steps=budget.generator_steps,
            learning_rate=budget.generator_rate,
            batch_size=budget.generator_batch,
        )
    model, images = given.model, given.images
    repaired = defence(model, images, given.labels, seed=given.seed, progress=report)
    if method != "fine-pruning":
        return Defended(repaired)
    dormant = dormant_first(model, images, neurons=find_neurons(model, images))
    return Defended(repaired, tuple(dormant))


def _of_paper(pruned: Pruned, target: int, facts: Mapping[str, object] | None = None) -> Defended:
    told = {"targets": [target], "pruned": len(pruned.pruned), **(facts or {})}
    return Defended(pruned.model, pruned.order, told)
