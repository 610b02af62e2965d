"""Which cells a table is made of."""

import pytest

from shapprune_bench.tables.cells import Cell
from shapprune_bench.tables.experiments import EXPERIMENTS, TABLE1, models_of, rows
from shapprune_bench.tables.rankings import FURTHER, RANKINGS


@pytest.mark.parametrize("profile", ["cpu", "paper"])
def test_rows_are_the_papers(profile):
    assert [recipe.name for recipe in rows(profile, TABLE1)] == list(TABLE1)
    assert {cell.recipe.profile for e in EXPERIMENTS.values() for cell in e.cells(profile)} == {
        profile
    }


def test_clean_twins_are_shared_by_rows_of_the_same_data_and_network():
    models = [cell.recipe for cell in models_of(list(EXPERIMENTS["table1"].cells("cpu")))]
    assert sum(recipe.rate > 0 for recipe in models) == 9
    twins = [recipe.name for recipe in models if not recipe.rate]
    assert len(twins) == len(set(twins)) == 6
    assert models[0].clean_twin().clean_twin() == models[0].clean_twin()


def test_estimators_that_no_table_of_the_paper_has_are_ranked_on_the_zoo_alone():
    ranked = {
        profile: {cell.method for cell in EXPERIMENTS["ranking"].cells(profile)}
        for profile in ("cpu", "zoo")
    }
    assert ranked == {"cpu": set(RANKINGS) - set(FURTHER), "zoo": set(RANKINGS)}


def test_our_results_are_of_one_version_of_the_rules(monkeypatch):
    """Others' methods and rankings do not hang on them, and keep their results."""
    recipe = rows("cpu", TABLE1)[0]
    made = [
        Cell("defend", recipe, "ours"),
        Cell("defend", recipe, "clp"),
        Cell("rank", recipe, "ours"),
    ]
    before = [cell.name for cell in made]
    monkeypatch.setattr("shapprune_bench.tables.cells.REPAIR_RULES", "9.9")
    assert [cell.name != name for cell, name in zip(made, before, strict=True)] == [
        True,
        False,
        False,
    ]


def test_two_cores_draw_less_often():
    draws = {
        profile: len([c for c in EXPERIMENTS["table1"].cells(profile) if c.method == "paper"])
        for profile in ("cpu", "paper")
    }
    assert draws == {"cpu": 3 * len(TABLE1), "paper": 5 * len(TABLE1)}
