"""The development population: what is in it, its files' names, its groups, and its training."""

import hashlib
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from shapprune.bench.cells import Cell
from shapprune.bench.models import stem_of, subject
from shapprune.bench.recipes import RECIPES, Recipe, fresh_network
from shapprune.cli.main import main
from shapprune.errors import InputError
from shapprune_bench import population
from shapprune_bench.manifest import read_manifest
from shapprune_bench.population import (
    FAMILIES,
    POPULATION,
    attack_of,
    group_of,
    works,
    write_manifest,
)

CLEAN = [recipe for recipe in POPULATION if not recipe.rate]
POISONED = [recipe for recipe in POPULATION if recipe.rate]
DIGITS = "digits.npz"
TINY = Recipe(
    "tiny-clean",
    "dev",
    DIGITS,
    num_classes=3,
    input_size=(1, 8, 8),
    network="shapprune_bench.networks:pooled_cnn?channels=1&widths=(4,8)&hidden=8",
    epochs=2,
    rate=0.0,
    batch_size=16,
    learning_rate=0.02,
)


@pytest.fixture
def data(tmp_path):
    """Three classes of grey images: a bright row each."""
    labels = np.arange(60) % 3
    images = np.random.default_rng(0).integers(0, 60, (60, 8, 8)).astype(np.uint8)
    images[np.arange(60), 2 * labels + 1] = 230
    parts = {f"{part}_images": images for part in ("train", "test")}
    np.savez(tmp_path / DIGITS, **parts, **{f"{part}_labels": labels for part in ("train", "test")})
    return tmp_path


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
    for what in (lambda r: r.name, stem_of, lambda r: Cell("model", r).name):
        assert len({what(recipe) for recipe in POPULATION}) == len(POPULATION)


def test_no_class_is_the_usual_target():
    for classes in (10, 43, 62):
        single = Counter(
            r.target
            for r in POISONED
            if r.num_classes == classes and r.source is None and not r.all_to_all
        )
        assert max(single.values()) <= sum(single.values()) / 3


@pytest.mark.parametrize("recipe", POPULATION, ids=lambda recipe: recipe.name)
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


def test_names_of_older_files_stay():
    """Trained models and results that lie on someone's disk are found again."""
    names = []
    for recipe in (recipe for recipe in RECIPES if recipe.profile != "zoo"):  # which are newer
        for one in (recipe, recipe.clean_twin()):
            cells = [Cell("model", one), Cell("defend", one, "ours", seed=1)]
            names += [stem_of(one), *(cell.name for cell in cells)]
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    assert digest == "60c06457df60cc0443250f3e61798deac018df04d9f78d8cf97eb78b690a0565"


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


@pytest.mark.parametrize(
    ("changes", "accuracy", "asr", "expected"),
    [
        ({}, 0.9, 0.8, True),
        ({}, 0.9, 0.79, False),
        ({"attack": "wanet"}, 0.9, 0.7, True),
        ({"all_to_all": True}, 0.8, 0.61, True),
        ({"all_to_all": True}, 0.8, 0.59, False),
        ({"more_targets": (1,)}, 0.8, 0.61, True),
        ({"data": "mnist.npz"}, 0.85, 1.0, False),
    ],
)
def test_whether_an_attack_worked(changes, accuracy, asr, expected):
    assert works(replace(TINY, rate=0.1, **changes), accuracy, asr) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rate": 0.0}, None),
        ({}, "blended"),
        ({"all_to_all": True}, "all-to-all blended"),
        ({"source": 1}, "source-specific blended"),
        ({"more_targets": (2,)}, "several blended"),
    ],
)
def test_words_for_attacks(changes, expected):
    assert attack_of(replace(TINY, **{"attack": "blended", "rate": 0.1, **changes})) == expected


def test_a_tuned_model_starts_from_its_base(data, tmp_path):
    base = replace(TINY, name="base")
    tuned = replace(TINY, name="tuned", base=base, epochs=1, learning_rate=1e-9, seed=5)
    cache = tmp_path / "cache"
    found = {r.name: subject(r, root=data, cache=cache) for r in (tuned, base)}
    for one, other in zip(
        found["tuned"].model.parameters(), found["base"].model.parameters(), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-6)


def test_trained_once_and_gone_on_with(data, tmp_path, monkeypatch, capsys):
    tiny = (
        TINY,
        replace(
            TINY,
            name="tiny-square",
            rate=0.3,
            target=2,
            options={"size": 3},
            base=TINY,
            learning=replace(TINY.learning, optimizer="sgd", adversarial=0.01),
        ),
        replace(
            TINY,
            name="tiny-one-source",
            attack="random-place",
            options={"size": 3},
            rate=0.1,
            source=0,
            target=1,
            cover=1.0,
        ),
        replace(TINY, name="tiny-to-all", rate=0.3, all_to_all=True),
    )
    monkeypatch.setattr(population, "POPULATION", tiny)
    monkeypatch.setattr(population.write_manifest, "__kwdefaults__", {"recipes": tiny})
    out, cache = tmp_path / "out", tmp_path / "models"
    command = ["bench", "population", "--profile", "dev", "--data-root", str(data)]
    command += ["--out", str(out), "--cache", str(cache), "--jobs", "2"]
    assert main([*command, "--rows", "tiny-clean"]) == 0
    assert [s.name for s in read_manifest(cache)] == ["tiny-clean"]
    first = (cache / f"{stem_of(TINY)}.safetensors").stat().st_mtime_ns
    assert main(command) == 0
    assert (cache / f"{stem_of(TINY)}.safetensors").stat().st_mtime_ns == first
    specimens = read_manifest(cache)
    assert [s.name for s in specimens] == [recipe.name for recipe in tiny]
    assert [s.target for s in specimens] == [None, 2, 1, "y+1"]
    assert [s.source for s in specimens] == [None, None, 0, None]
    assert len({s.group for s in specimens}) == 1
    for recipe, specimen in zip(tiny, specimens, strict=True):
        assert specimen.backdoored == bool(recipe.rate)
        assert specimen.data == str(data / DIGITS)
        assert specimen.load()(torch.zeros(1, *specimen.input_size)).shape == (1, 3)
        facts = json.loads((cache / f"{stem_of(recipe)}.json").read_text())
        assert specimen.accuracy == facts["accuracy"]
        assert (specimen.asr is None) == (not recipe.rate)
    capsys.readouterr()
    assert main([*command, "--dry-run"]) == 0
    assert "4 cells, 4 done, 0 to do" in capsys.readouterr().out


def test_a_failed_attack_is_told(data, tmp_path):
    weak = replace(TINY, name="weak", rate=0.02, epochs=1, learning_rate=1e-6)
    subject(weak, root=data, cache=tmp_path)
    write_manifest(tmp_path, data_root=data, recipes=[weak])
    (specimen,) = read_manifest(tmp_path)
    assert specimen.backdoored
    assert specimen.attack_failed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["population"], "the profile dev alone"),
        (["table1", "--profile", "dev"], "no profile dev"),
        (["population", "--profile", "dev", "--rows", "nobody"], "no model 'nobody'"),
        (["population", "--profile", "dev", "--methods", "ours"], "no methods"),
        (["populations"], "bench knows .*population"),
    ],
)
def test_what_cannot_be_done_is_told(words, message, tmp_path):
    with pytest.raises(InputError, match=message):
        run(words, tmp_path)


def run(words, folder):
    from shapprune.cli.bench import bench
    from shapprune.cli.parser import parse

    bench(parse(["bench", *words, "--out", str(folder)]))
