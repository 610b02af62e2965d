"""The names of result files and of trained models: a move of the code must not change one.

A changed name makes a stranger of every result that there is, and trains every model anew.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from shapprune_bench.populations.manifest import Specimen
from shapprune_bench.populations.population import POPULATION
from shapprune_bench.populations.repairs import RepairTask
from shapprune_bench.populations.scans import Scan
from shapprune_bench.tables.defences import OF_OURS
from shapprune_bench.tables.experiments import EXPERIMENTS, Profile, distinct, former, models_of
from shapprune_bench.tables.models import stem_of
from shapprune_bench.tables.rows import RECIPES

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def digest(names: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]


def cells_of(profile: Profile):
    cells = [cell for e in EXPERIMENTS.values() for cell in e.cells(profile)]
    return distinct([*models_of(cells), *cells])


@pytest.mark.parametrize(
    ("profile", "count", "expected"),
    [
        ("smoke", 41, "ac3bdb31dd72303b"),
        ("cpu", 262, "674fceae014e5436"),
        ("zoo", 208, "ac4d9ad70d16f697"),
        ("paper", 303, "8c37218c7392c4a5"),
    ],
)
def test_cells_keep_their_names(profile, count, expected):
    """All but those of rankings, of which there may come more, and of ours, which has rules."""
    cells = [c for c in cells_of(profile) if c.kind != "rank" and c.method not in OF_OURS]
    names = {cell.name for cell in cells}
    assert (len(names), digest(names)) == (count, expected)


def test_names_that_were_written_down():
    by_row = {(c.kind, c.recipe.name, c.method, c.seed): c.name for c in cells_of("cpu")}
    assert by_row["model", "gtsrb-badnets", "", 0] == "model_cpu_gtsrb-badnets_a85647ffd5"
    ours = by_row["time", "gtsrb-badnets", "ours", 0]  # by rules 2.1 and 2.4
    assert ours.endswith("_ours_1a_0_fb888740d4")
    assert by_row["defend", "gtsrb-resnet18", "anp", 0].endswith("_anp_1a_0_e1795d0729")
    ranked = by_row["rank", "cifar10-badnets", "multilinear 1/50", 2]
    assert ranked == "rank_cpu_cifar10-badnets_multilinear-1-50_1a_2_a694d2739b"


@pytest.mark.parametrize("profile", ["cpu", "zoo"])
def test_results_that_there_are_have_cells(profile):
    cells = cells_of(profile)
    known = {cell.name for cell in [*cells, *former(cells)]}
    there = {file.stem for file in (RESULTS / profile).glob("*_*.json")}
    assert len(there) >= 20
    assert not there - known


def test_trained_models_keep_their_names():
    assert (len(RECIPES), digest(map(stem_of, RECIPES))) == (30, "2ce7fef0c65bf821")
    assert (len(POPULATION), digest(map(stem_of, POPULATION))) == (161, "5f09d0b7b5133c0b")


@pytest.mark.parametrize(
    ("folder", "task"),
    [("detection/foreign", Scan), ("detection/dev", Scan), ("repairs/zoo_and_demo", RepairTask)],
)
def test_scans_and_repairs_keep_their_names(folder, task):
    files = sorted((RESULTS / folder).glob("*_*.json"))
    assert files
    for file in files[::10]:
        facts = json.loads(file.read_text(encoding="utf-8"))["cell"]
        assert task(**facts | {"specimen": as_read(facts["specimen"])}).name == file.stem


def as_read(facts: dict) -> Specimen:
    paths = {"weights": Path(facts["weights"]), "trigger": None}
    if facts["trigger"]:
        paths["trigger"] = Path(facts["trigger"])
    return Specimen(**facts | paths)
