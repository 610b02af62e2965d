"""What a scan costs as classes grow."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bench_files import options
from shapprune.errors import InputError
from shapprune.running.runner import read
from shapprune_bench.studies import growth
from shapprune_bench.studies.growth import COUNTS, Classes, MadeUp, measure, report, study

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results" / "growth-verdict"


def test_images_are_of_their_classes():
    made_up = MadeUp(4)
    labels = torch.tensor([0, 0, 3])
    images = made_up.of(labels)
    assert images.shape == (3, 3, 32, 32)
    assert 0 <= images.min() <= images.max() <= 1
    first, second, other = images
    assert (first - second).abs().mean() < (first - other).abs().mean()
    assert torch.equal(images, MadeUp(4).of(labels))


@pytest.mark.filterwarnings("ignore::shapprune.InputWarning")  # a network that was not trained
def test_a_scan_is_measured(monkeypatch):
    linear = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(192, 3)).eval()
    monkeypatch.setattr(growth, "trained", lambda classes, images: linear)
    result = measure(Classes(3))
    assert result["passes"] == sum(stage["passes"] for stage in result["stages"]) > 0
    assert result["memory_mib"]["at_most"] >= result["memory_mib"]["before"] > 0
    assert result["report_kib"] > 10


def test_results_that_there_are():
    done = [(task, read(RESULTS, task)) for task in map(Classes, COUNTS)]
    text = report(done)["report.md"].decode()
    assert "| 10 | pooled_cnn | clean | 33,264 | 20.8 | 75 | 42 |" in text
    assert "| 1,000 | linear | clean | 315,328 |" in text


def test_rows_are_numbers_of_classes():
    assert [task.count for task in study(options("growth", rows=["43", "3"])).tasks] == [3, 43]
    with pytest.raises(InputError, match="growth has no model '2'"):
        study(options("growth", rows=["2"]))
