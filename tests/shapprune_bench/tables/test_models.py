"""Models of recipes: their files' names, and what one starts from."""

import hashlib
from dataclasses import replace

import torch

from bench_files import TINY, tiny_data
from shapprune_bench.tables.cells import Cell
from shapprune_bench.tables.models import stem_of, subject
from shapprune_bench.tables.rows import RECIPES


def test_names_of_older_files_stay():
    """Trained models and results that lie on someone's disk are found again."""
    names = []
    for recipe in (recipe for recipe in RECIPES if recipe.profile != "zoo"):  # which are newer
        for one in (recipe, recipe.clean_twin()):
            cells = [Cell("model", one), Cell("defend", one, "clp", seed=1)]
            names += [stem_of(one), *(cell.name for cell in cells)]
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    assert digest == "66bbc2aad63f61ca93f8494b31288cd8589b8f091eac4dd011838a41eaa64bc5"


def test_whatever_is_new_in_a_recipe_makes_another_file():
    changes = (
        {"more_targets": (1,)},
        {"all_to_all": True},
        {"source": 2},
        {"cover": 1.0},
        {"learning": replace(TINY.learning, shift=0.0)},
        {"base": TINY},
        {"base": replace(TINY, all_to_all=True)},
    )
    stems = {stem_of(replace(TINY, **change)) for change in ({}, *changes)}
    assert len(stems) == len(changes) + 1


def test_a_tuned_model_starts_from_its_base(tmp_path):
    data = tiny_data(tmp_path)
    base = replace(TINY, name="base")
    tuned = replace(TINY, name="tuned", base=base, epochs=1, learning_rate=1e-9, seed=5)
    cache = tmp_path / "cache"
    found = {r.name: subject(r, root=data, cache=cache) for r in (tuned, base)}
    for one, other in zip(
        found["tuned"].model.parameters(), found["base"].model.parameters(), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-6)
