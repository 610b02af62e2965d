"""The training of a population, and its manifest."""

import json
from dataclasses import replace

import pytest
import torch

from bench_files import TINY, tiny_data
from shapprune.cli.main import main
from shapprune.cli.parser import parse
from shapprune.errors import InputError
from shapprune_bench.command import bench
from shapprune_bench.populations import training
from shapprune_bench.populations.manifest import read_manifest
from shapprune_bench.populations.training import attack_of, works, write_manifest
from shapprune_bench.tables.models import stem_of, subject


@pytest.fixture
def data(tmp_path):
    return tiny_data(tmp_path)


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
    monkeypatch.setitem(training.POPULATIONS, "dev", tiny)
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
        assert specimen.data == str(data / TINY.data)
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
        (["population"], "the profiles dev and test alone"),
        (["table1", "--profile", "test"], "no profiles dev and test"),
        (["population", "--profile", "dev", "--rows", "nobody"], "no model 'nobody'"),
        (["population", "--profile", "dev", "--methods", "ours"], "takes no --methods"),
        (["populations"], "bench does not know .*: did you mean 'population'"),
    ],
)
def test_what_cannot_be_done_is_told(words, message, tmp_path):
    with pytest.raises(InputError, match=message):
        run(words, tmp_path)


def run(words, folder):
    bench(parse(["bench", *words, "--out", str(folder)]))
