"""What is done for a cell, on the toy network in place of a trained one."""

import json
from dataclasses import replace

import pytest

from shapprune.data.dataset import LabeledImages
from shapprune.reporting.summary import plain
from shapprune_bench.tables import measure as module
from shapprune_bench.tables.cells import Cell
from shapprune_bench.tables.defences import FULL, Budget
from shapprune_bench.tables.experiments import ROWS
from shapprune_bench.tables.measure import measure
from shapprune_bench.tables.models import Subject
from toys import CLASSES, TARGET, backdoored_net, toy_images, true_trigger

RECIPE = replace(ROWS["smoke"][0], target=TARGET, num_classes=CLASSES, input_size=(3, 12, 12))


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The parts of the data that were asked for, in order; of the toy's."""
    parts: list[str] = []

    def load(_recipe, split, *, root):
        parts.append(split)
        return LabeledImages(*toy_images(per_class=20, seed=int(split == "test")))

    subject = Subject(backdoored_net(), true_trigger().stamp, {"accuracy": 0.5}, "0badc0ffee")
    monkeypatch.setattr(module, "load_split", load)
    monkeypatch.setattr(module, "subject", lambda *_, **__: subject)
    return parts


def done(cell: Cell, tmp_path) -> dict:
    result = measure(cell, root=tmp_path, cache=tmp_path)
    return json.loads(json.dumps(plain(result)))


def test_a_defence_is_scored_on_images_that_are_loaded_afterwards(asked, tmp_path, monkeypatch):
    given: list[list[str]] = []
    budgets: list[Budget] = []
    defend = module.defend

    def watched(*arguments, **options):
        given.append(list(asked))
        budgets.append(options["budget"])
        return defend(*arguments, **options)

    monkeypatch.setattr(module, "defend", watched)
    result = done(Cell("defend", RECIPE, "ours"), tmp_path)
    assert given == [["train"]]
    assert budgets == [FULL]
    assert asked == ["train", "test"]
    assert result["before"]["asr"] > 0.9
    assert result["after"]["asr"] < 0.1
    assert result["targets"] == [TARGET]
    assert result["budget"]["average_iterations"] == 50
    assert result["weights"] == "0badc0ffee"
    names = [stage["name"] for stage in result["stages"]]
    assert names[:2] == ["climb to the largest margin of every class", "try small windows"]
    assert len(names) == len(set(names)) == 10
    for key in ("seconds", "passes"):
        assert result[key] == pytest.approx(sum(stage[key] for stage in result["stages"]))
    assert all(stage["passes"] > 0 for stage in result["stages"])
    removed, accuracy, asr = zip(*result["curve"], strict=True)
    assert removed == (0, 1, 2, 3, 4)  # of 16 neurons, a quarter at most
    assert accuracy[0] == pytest.approx(result["before"]["accuracy"], abs=1e-3)
    assert asr[0] > 0.9 > 0.5 > min(asr)


def test_two_cores_spend_less(asked, tmp_path, monkeypatch):
    budgets = []
    monkeypatch.setattr(module, "defend", lambda *_, budget, **__: budgets.append(budget) or 1 / 0)
    for profile in ("cpu", "paper"):
        with pytest.raises(ZeroDivisionError):
            done(Cell("defend", replace(RECIPE, profile=profile), "clp"), tmp_path)
    cpu, paper = budgets
    assert cpu.average_iterations < paper.average_iterations == 50
    assert cpu.generator_steps < paper.generator_steps == 500
    assert cpu.generator_batch < paper.generator_batch == 32
    monkeypatch.setattr(module, "_LARGE", 15)  # the network has 16 neurons
    for profile in ("cpu", "paper"):
        with pytest.raises(ZeroDivisionError):
            done(Cell("defend", replace(RECIPE, profile=profile), "clp"), tmp_path)
    assert budgets[2:] == [replace(cpu, average_iterations=2), paper]


def test_without_images_they_are_recovered(asked, tmp_path):
    result = done(Cell("defend", RECIPE, "clp", per_class=0), tmp_path)
    assert asked == ["test"]
    names = [stage["name"] for stage in result["stages"]]
    assert names == ["recover images of every class", "clp"]
    assert result["stages"][0]["passes"] > 10_000
    assert "curve" not in result


def test_rankings_play_one_game_whatever_their_seeds(asked, tmp_path):
    """Fine-Pruning's depends on the images and on nothing else."""
    one, other = (
        done(Cell("rank", RECIPE, "fine-pruning", seed=seed), tmp_path) for seed in (0, 1)
    )
    assert one["values"] == other["values"]
    assert len(one["values"]) == 16
    assert [point[0] for point in one["curve"]] == [0, 1, 2, 3, 4]
    assert [stage["name"] for stage in one["stages"]] == ["invert the trigger", "rank"]


def test_a_scan_has_a_norm_for_every_class(asked, tmp_path):
    result = done(Cell("scan", RECIPE), tmp_path)
    assert {kind: len(norms) for kind, norms in result["norms"].items()} == {
        "patch": CLASSES,
        "perturbation": CLASSES,
    }
    assert result["norms"]["patch"].index(min(result["norms"]["patch"])) == TARGET
    assert asked == ["train", "test"]


def test_a_repaired_copy_is_tuned_on_images_that_the_repair_has_not_seen(
    asked, tmp_path, monkeypatch
):
    tuned_on = []
    retune = module.retune

    def watched(model, data, *, seed):
        tuned_on.append(data)
        return retune(model, data, seed=seed)

    monkeypatch.setattr(module, "retune", watched)
    result = done(Cell("retune", RECIPE, "fine-pruning", per_class=1), tmp_path)
    assert asked == ["train", "test", "train"]
    assert len(tuned_on[0].images) == CLASSES * 20 - CLASSES
    assert result["before"]["asr"] > 0.9
    assert set(result["retuned"]) == set(result["after"]) == {"accuracy", "asr"}
    assert "curve" not in result


def test_a_checkpoint_is_measured(asked, tmp_path, monkeypatch):
    subject = Subject(backdoored_net(), true_trigger().stamp, {}, "0badc0ffee")
    monkeypatch.setattr(module, "subject", lambda *_, **__: subject)
    result = done(Cell("model", RECIPE), tmp_path)
    assert result.keys() == {"accuracy", "asr", "seconds", "weights"}
    assert result["asr"] > 0.9
    assert asked == ["test"]


def test_a_model_is_what_its_recipe_made(asked, tmp_path):
    assert done(Cell("model", RECIPE), tmp_path) == {"accuracy": 0.5, "weights": "0badc0ffee"}
    assert asked == []
