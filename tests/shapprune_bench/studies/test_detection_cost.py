"""What a verdict costs, beside Neural Cleanse's."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench_files import TINY, options, tiny_data
from shapprune.checkpoints.state_dict import save_weights
from shapprune.running.runner import read
from shapprune_bench.populations.manifest import FORMAT
from shapprune_bench.studies import detection_cost
from shapprune_bench.studies.detection_cost import (
    STEPS,
    BudgetSpentError,
    Steps,
    _spent,
    report,
    study,
)
from shapprune_bench.tables.recipes import make

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results" / "detection_cost"


def test_steps_are_counted_by_class():
    steps = Steps(2, budget=60)
    for step in range(1, 41):  # the first class ends after 40 steps
        steps.progress(step / (2 * STEPS))
    steps.progress(1 / 2)
    steps.progress((STEPS + 7) / (2 * STEPS))
    assert (steps.over, steps.current) == ([40], 7)
    with pytest.raises(BudgetSpentError):
        Steps(2, budget=-1).progress(1 / (2 * STEPS))


@pytest.mark.parametrize("name", ["verazuo_mnist", "gtsrb-trojan-wm"])
def test_costs_are_those_of_the_results(name):
    """What was computed from the steps then, is now."""
    result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    theirs = result["neural_cleanse"]
    steps = Steps(result["classes"], budget=60)
    steps.over = theirs["steps_of_whole_classes"]
    steps.current = theirs["steps_of_the_class_that_was_stopped"]
    spent = _spent(steps, result["classes"], theirs["seconds"])
    assert spent == {key: theirs[key] for key in spent}


@pytest.fixture
def manifest(tmp_path) -> Path:
    data = tiny_data(tmp_path)
    model = make(replace(TINY, epochs=12), root=data).model
    save_weights(model, tmp_path / "tiny.safetensors")
    facts = {
        "name": "tiny",
        "weights": "tiny.safetensors",
        "arch": TINY.network,
        "num_classes": 3,
        "data": TINY.data,
        "backdoored": False,
    }
    content = {"format": FORMAT, "data_root": str(data), "models": [facts]}
    (tmp_path / "population.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.filterwarnings("ignore::shapprune.InputWarning")  # a network that was not trained
def test_both_are_measured_and_told(manifest, monkeypatch):
    monkeypatch.setattr(detection_cost, "BUDGET", 0.0)
    found = study(options("detection-cost", results=manifest))
    (task,) = found.tasks
    result = found.work(task)
    assert result["scan"]["passes"] > 0
    theirs = result["neural_cleanse"]
    assert not theirs["whole"]
    assert theirs["steps_of_the_class_that_was_stopped"] == 1
    text = report([(task, result)])["report.md"].decode()
    assert f"| tiny | 3 | {result['scan']['verdict']} |" in text
    assert f"| at least {theirs['passes_at_least']:,} |" in text
    assert read(RESULTS, task) is None  # named by the model
