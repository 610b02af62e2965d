"""Defences and rankings as the experiments call them, on the toy network."""

from dataclasses import replace
from functools import cache, partial

import pytest
import torch

from shapprune.baselines.anp import neuron_masks
from shapprune.errors import InputError
from shapprune.method.recovery import Recovery
from shapprune.model.cost import counting
from shapprune.model.masking import remove_neurons
from shapprune.model.metrics import accuracy, attack_success_rate
from shapprune.model.neurons import find_neurons
from shapprune.pipeline import RepairResult, repair
from shapprune.utils.progress import Stage
from shapprune_bench.tables import rankings
from shapprune_bench.tables.defences import (
    OF_OURS,
    PAPERS,
    TOLD,
    UNREPAIRED,
    WITH_TRIGGER,
    Budget,
    defend,
)
from shapprune_bench.tables.measure import Timed
from shapprune_bench.tables.rankings import RANKINGS, Setup, set_up, sizes
from toys import TARGET, backdoored_net, snapshot, toy_images, true_trigger, unchanged

UNSEEN = toy_images(per_class=10, seed=1)
ATTACKER = (TARGET, true_trigger().stamp)
ATTACKERS = {  # of a method what it may look at; of the others nothing
    WITH_TRIGGER: ATTACKER,
    TOLD: (TARGET, lambda _: pytest.fail("a defence looks at the attacker's trigger")),
}


class Sealed(tuple):
    """An attacker's target and trigger that no defence may look at, under whatever name."""

    def __new__(cls):
        return super().__new__(cls, ATTACKER)

    def __iter__(self):
        pytest.fail("a defence looks at the attacker's target and trigger")

    def __getitem__(self, _):
        pytest.fail("a defence looks at the attacker's target or trigger")


def test_who_looks_at_the_attacker_is_caught():
    net, few = backdoored_net(), toy_images(per_class=1)
    with pytest.raises(pytest.fail.Exception, match="looks at the attacker"):
        defend(WITH_TRIGGER, net, *few, attacker=Sealed())


def asr(model: torch.nn.Module) -> float:
    return attack_success_rate(model, *UNSEEN, stamp=true_trigger().stamp, target=TARGET)


@pytest.mark.parametrize("name", [*OF_OURS, *PAPERS, WITH_TRIGGER])
def test_ours_and_the_papers_take_out_the_toys_backdoor(name):
    net, (images, labels) = backdoored_net(), toy_images(per_class=1)
    before, state, told = snapshot(net), torch.get_rng_state(), []
    done = defend(
        name,
        net,
        images,
        labels,
        attacker=ATTACKERS.get(name, Sealed()),
        budget=Budget(average_iterations=10),
        progress=lambda *what: told.append(what),
    )
    assert unchanged(net, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert asr(net) > 0.9
    assert asr(done.model) < 0.1
    assert accuracy(done.model, *UNSEEN) > 0.95
    assert told[-1][1] == 1
    assert list(done.facts["targets"]) == [TARGET]
    # What it pruned comes first in its order, and that alone breaks the backdoor.
    neurons = find_neurons(net, images)
    pruned = remove_neurons(net, neurons, done.order[: done.facts["pruned"]])
    assert asr(pruned) < 0.5
    assert len(set(done.order)) == len(done.order)


def test_fine_pruning_tells_its_order_and_others_have_none():
    net, few = backdoored_net(), toy_images(per_class=2)
    dormant = defend("fine-pruning", net, *few).order
    last = find_neurons(net, few[0]).layers[-1].size
    assert len(dormant) <= last
    assert defend("clp", net, *few).order == ()


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("gangsweep", "generator_steps"),
        ("gangsweep", "generator_batch"),
        (WITH_TRIGGER, "average_iterations"),
        ("paper", "average_iterations"),
    ],
)
def test_a_budget_is_kept(name, what):
    net, few = backdoored_net(), toy_images(per_class=1)

    def cost(spent: int) -> int:
        budget = replace(Budget(average_iterations=1, generator_steps=1), **{what: spent})
        with counting(net, few[0]) as passes:
            defend(name, net, *few, attacker=ATTACKER, budget=budget)
        return passes.count

    assert cost(1) < cost(4)


def test_a_defence_there_is_not():
    with pytest.raises(InputError, match=r"no defence 'magic': there are .*clp"):
        defend("magic", backdoored_net(), *toy_images())
    with pytest.raises(InputError, match="no defence 'paper-o'"):  # without the attacker's trigger
        defend(WITH_TRIGGER, backdoored_net(), *toy_images())
    with pytest.raises(InputError, match="no defence 'ours-plain'"):  # as version 0.1.0 had it
        defend("ours-plain", backdoored_net(), *toy_images())


def test_without_a_defence_the_model_is_what_it_was():
    net = backdoored_net()
    assert defend(UNREPAIRED, net, *toy_images()).model is net


def test_only_the_mixture_of_the_paper_plays_for_accuracy():
    told: dict[str, set[str]] = {name: set() for name in PAPERS}
    for name, stages in told.items():
        done = defend(
            name,
            backdoored_net(),
            *toy_images(per_class=1),
            budget=Budget(average_iterations=2),
            progress=lambda stage, _, stages=stages: stages.add(stage),
        )
        assert done.facts["outliers"] == (TARGET,)
        assert done.facts["anomaly_index"] > 2
    assert told["paper-mixture"] - told["paper"] == {"value neurons for ACC"}


def test_recovered_images_are_not_trusted(monkeypatch):
    """Ours must know that images are recovered, or it believes the original's answers to them."""
    images, labels = toy_images(per_class=1)
    done: list[tuple[dict[str, object], RepairResult]] = []

    def watched(*given, **options):
        done.append((options, repair(*given, **options)))
        return done[-1][1]

    monkeypatch.setattr("shapprune_bench.tables.defences.repair", watched)
    recovered = Recovery(images, labels, 1, 0.0, Stage("recover", 0.0))
    budget = Budget(average_iterations=7)
    defended = defend("ours", backdoored_net(), images, labels, recovered=recovered, budget=budget)
    ((options, result),) = done
    assert options["average_iterations"] == 7
    assert result.scan.judgement.basis == "recovered"
    assert defended.model is result.model
    assert defended.facts["targets"] == (TARGET,)


def test_stages_cost_what_was_spent_in_them():
    net, (images, _) = backdoored_net(), toy_images(per_class=1)
    with counting(net, images) as passes:
        timed = Timed(passes)
        timed("look", 0.0)
        net(images[:3])
        timed("look", 0.5)
        net(images[:1])
        timed("look", 1.0)
        timed("think", 0.0)
        net(images[:2])
        timed("think", 1.0)
    assert [(s["name"], s["passes"]) for s in timed.stages] == [("look", 4), ("think", 2)]
    assert all(stage["seconds"] > 0 for stage in timed.stages)


NET = backdoored_net()
FEW = toy_images(per_class=2)


@cache
def toy_setup() -> Setup:
    return set_up(NET, *FEW, target=TARGET, truth=20, seed=0)


@pytest.mark.parametrize("name", RANKINGS)
def test_rankings(name, monkeypatch):
    monkeypatch.setattr(rankings, "neuron_masks", partial(neuron_masks, iterations=40))
    played, before = toy_setup(), snapshot(NET)
    values = RANKINGS[name](played)
    assert values.shape == (len(played.neurons),)
    assert bool(values.isfinite().all())
    assert unchanged(NET, before)


@pytest.mark.parametrize("name", sorted(set(RANKINGS) - {"fine-pruning", "clp", "anp"}))
def test_shapley_values_find_the_backdoor(name):
    """Measures of other papers need not."""
    order = RANKINGS[name](toy_setup()).argsort(descending=True).tolist()
    neurons = toy_setup().neurons
    first, last = (remove_neurons(NET, neurons, some) for some in (order[:4], order[-4:]))
    assert asr(first) < asr(last) - 0.5


def test_the_trigger_of_a_ranking_does_not_depend_on_the_seed():
    setups = [toy_setup(), set_up(NET, *FEW, target=TARGET, truth=1, seed=1)]
    masks = [b.trigger.mask for b in setups]
    assert torch.equal(*masks)
    assert not torch.equal(*(torch.rand(3, generator=b.generator) for b in setups))


def test_sizes_of_the_best():
    assert sizes(448) == (50, 70)
    assert sizes(44)[0] < sizes(44)[1] < 44
