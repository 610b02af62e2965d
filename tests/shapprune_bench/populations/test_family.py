"""Families and their siblings."""

from dataclasses import replace
from itertools import combinations

from bench_files import TINY
from shapprune_bench.populations.family import group_of
from shapprune_bench.populations.population import FAMILIES, POPULATION


def test_siblings_are_never_split():
    for family in FAMILIES:
        assert len({group_of(member) for member in family.members()}) == 1
    groups = {recipe.name: group_of(recipe) for recipe in POPULATION}
    trained = [recipe for recipe in POPULATION if not recipe.base]
    siblings = [
        (recipe, other)
        for recipe, other in combinations(trained, 2)
        if (recipe.data, recipe.network, recipe.learning)
        == (other.data, other.network, other.learning)
    ]
    tuned = [(recipe, recipe.base) for recipe in POPULATION if recipe.base in POPULATION]
    assert siblings
    assert tuned
    for recipe, other in siblings + tuned:
        assert groups[recipe.name] == groups[other.name]
    assert len(set(groups.values())) >= 20


def test_more_epochs_or_another_seed_make_no_other_group():
    longer = replace(TINY, epochs=9, seed=4, rate=0.1, per_class=5)
    assert group_of(longer) == group_of(TINY)
    assert group_of(replace(TINY, base=longer, learning=replace(TINY.learning, shift=0))) == (
        group_of(TINY)
    )
    assert group_of(replace(TINY, data="others.npz")) != group_of(TINY)
