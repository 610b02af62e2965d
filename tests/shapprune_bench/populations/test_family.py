"""Families and their siblings."""

from dataclasses import replace

from bench_files import TINY
from shapprune_bench.populations.family import group_of
from shapprune_bench.populations.population import FAMILIES, POPULATION


def test_siblings_are_never_split():
    for family in FAMILIES:
        assert len({group_of(member) for member in family.members()}) == 1
    groups = {recipe.name: group_of(recipe) for recipe in POPULATION}
    for recipe in POPULATION:
        for other in POPULATION:
            alike = (recipe.data, recipe.network, recipe.learning) == (
                *(other.data, other.network),
                other.learning,
            )
            if (alike and not (recipe.base or other.base)) or recipe.base == other:
                assert groups[recipe.name] == groups[other.name]
    assert len(set(groups.values())) >= 20


def test_more_epochs_or_another_seed_make_no_other_group():
    longer = replace(TINY, epochs=9, seed=4, rate=0.1, per_class=5)
    assert group_of(longer) == group_of(TINY)
    assert group_of(replace(TINY, base=longer, learning=replace(TINY.learning, shift=0))) == (
        group_of(TINY)
    )
    assert group_of(replace(TINY, data="others.npz")) != group_of(TINY)
