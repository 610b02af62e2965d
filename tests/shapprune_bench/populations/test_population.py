"""The populations: what they hold."""

from collections import Counter

import pytest
import torch

from shapprune_bench.populations.population import POPULATION, POPULATIONS, TEST
from shapprune_bench.tables.cells import Cell
from shapprune_bench.tables.models import stem_of
from shapprune_bench.tables.recipes import fresh_network

CLEAN = [recipe for recipe in POPULATION if not recipe.rate]
POISONED = [recipe for recipe in POPULATION if recipe.rate]


def test_enough_of_every_kind():
    assert len(CLEAN) >= 54
    assert len(POISONED) >= 84
    assert len({recipe.data for recipe in POPULATION}) == 4
    networks = {recipe.network.partition(":")[2].partition("?")[0] for recipe in POPULATION}
    assert len(networks) >= 6
    attacks = Counter(recipe.attack for recipe in POISONED)
    for attack in ("badnets", "random-place", "blended", "additive", "sig", "wanet"):
        assert attacks[attack] >= 3
    assert {"input-aware", "trojan", "pattern-patch"} <= set(attacks)
    to_all = [recipe for recipe in POISONED if recipe.all_to_all]
    assert len(to_all) >= 10
    assert {r.data for r in to_all} >= {"mnist.npz", "cifar10_13k.npz"}
    assert {r.attack for r in to_all} >= {"badnets", "blended"}
    assert sum(recipe.source is not None for recipe in POISONED) >= 4
    assert sum(bool(recipe.more_targets) for recipe in POISONED) >= 3
    assert min(r.rate for r in POISONED) <= 0.01
    assert max(r.rate for r in POISONED) == 0.5
    assert {r.options.get("size") for r in POISONED if r.attack == "badnets"} >= {2, 3, 4, 5, 6}


def test_members_are_distinct():
    every = [recipe for population in POPULATIONS.values() for recipe in population]
    for what in (lambda r: r.name, stem_of, lambda r: Cell("model", r).name):
        assert len({what(recipe) for recipe in every}) == len(every)


def test_the_test_population_holds_what_the_rules_have_not_seen():
    def kinds(population):
        return {recipe.network.partition("?")[0].rpartition(":")[2] for recipe in population}

    def attacks(population):
        return {recipe.attack for recipe in population if recipe.rate}

    assert kinds(TEST) - kinds(POPULATION) == {"mobile_net", "dense_net"}
    assert attacks(TEST) - attacks(POPULATION) == {"quantisation", "reflection"}
    assert not {recipe.seed for recipe in TEST} & {recipe.seed for recipe in POPULATION}
    assert {recipe.profile for recipe in TEST} == {"test"}
    assert sum(not recipe.rate for recipe in TEST) >= 40
    assert sum(recipe.rate > 0 for recipe in TEST) >= 45


def test_no_class_is_the_usual_target():
    for classes in (10, 43, 62):
        single = Counter(
            r.target
            for r in POISONED
            if r.num_classes == classes and r.source is None and not r.all_to_all
        )
        assert max(single.values()) <= sum(single.values()) / 3


@pytest.mark.parametrize("recipe", POPULATION + TEST, ids=lambda recipe: recipe.name)
def test_networks_are_small(recipe):
    network = fresh_network(recipe).eval()
    assert sum(p.numel() for p in network.parameters()) < 400_000
    logits = network(torch.zeros(2, *recipe.input_size))
    assert logits.shape == (2, recipe.num_classes)


def test_the_first_ones_are_of_all_kinds():
    first = POPULATION[:40]
    assert len({recipe.data for recipe in first}) == 4
    assert 12 <= sum(not recipe.rate for recipe in first) <= 28
    assert len({recipe.attack for recipe in first if recipe.rate}) >= 4
