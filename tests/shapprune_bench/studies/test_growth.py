"""What a scan costs as classes, pixels and parameters grow."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from bench_files import options
from shapprune.errors import InputError
from shapprune.model.cost import operations
from shapprune_bench.networks import pooled_cnn
from shapprune_bench.studies import growth
from shapprune_bench.studies.growth import (
    POINTS,
    BudgetSpentError,
    Point,
    fit_last,
    limited,
    made_up,
    measure,
    network,
    study,
)
from shapprune_bench.studies.growth_page import report

SMALL = Point("classes-3", classes=3, side=8, width=2)


def test_images_are_the_same_again_and_differ_by_class():
    images = made_up(4, 12)
    assert images.shape == (4, 3, 12, 12)
    assert 0 <= images.min() < images.max() <= 1
    assert (images[0] - images[3]).abs().mean() > 0.1
    assert torch.equal(images, made_up(4, 12))


def test_points_have_the_parameters_that_they_are_named_by():
    with torch.device("meta"):
        for point in POINTS:
            kind, _, number = point.name.partition("-")
            model = pooled_cnn(point.classes, widths=(4,)) if not point.width else network(point)
            count = sum(parameter.numel() for parameter in model.parameters())
            if kind == "parameters":
                assert count == pytest.approx(float(number), rel=0.05)
            elif kind in ("classes", "pixels"):
                assert getattr(point, {"pixels": "side"}.get(kind, kind)) == int(number)
    base = network(Point("base"))
    assert sum(p.numel() for p in base.parameters()) == pytest.approx(1e5, rel=0.05)


def test_the_last_layer_tells_images_apart():
    images = made_up(20, 16)
    random = network(replace(SMALL, classes=20)).eval()
    assert len(random(images).argmax(1).unique()) < 10
    fitted = fit_last(random, images)
    assert fitted(images).argmax(1).tolist() == list(range(20))
    assert not any(module.training for module in fitted.modules())


def test_passes_are_counted_and_end_with_the_budget():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    images = torch.rand(3, 1, 2, 2)
    with limited(model, 60) as spent:
        model(images)
        model(images[:2].requires_grad_())
    assert spent.passes == 3 + 2 * 2
    with limited(model, -1), pytest.raises(BudgetSpentError):
        model(images)
    model(images)  # nothing is left on it


def test_a_scan_is_measured():
    result = measure(SMALL)
    assert result["passes"] == sum(stage["passes"] for stage in result["stages"]) > 0
    assert result["memory_mib"]["at_most"] >= result["memory_mib"]["before"] > 0
    assert result["accuracy"] == 1.0
    model = network(SMALL)
    assert result["operations"] == operations(model, made_up(3, 8))
    assert result["parameters"] == sum(p.numel() for p in model.parameters())


def test_two_classes_are_refused_and_the_reason_is_kept():
    result = measure(replace(SMALL, classes=2))
    assert "takes at least 3" in result["refused"]
    assert "passes" not in result


def test_other_refusals_are_failures(monkeypatch):
    def refuse(*_, **__):
        raise InputError("no")

    monkeypatch.setattr(growth, "scan", refuse)
    with pytest.raises(InputError, match="no"):
        measure(SMALL)


def test_a_scan_is_stopped_by_the_budget(monkeypatch):
    monkeypatch.setattr(growth, "BUDGET", 0.0)
    result = measure(SMALL)
    assert result["stopped"] is True
    assert result["passes"] == 0
    assert "verdict" not in result


def test_rows_are_points():
    chosen = study(options("growth", rows=["resnet50", "pixels-64"])).tasks
    assert [point.name for point in chosen] == ["pixels-64", "resnet50"]
    with pytest.raises(InputError, match="growth has no model 'pixels-65'"):
        study(options("growth", rows=["pixels-65"]))


def whole(name, **cell):
    """A point of 100 M MACs whose scan took 200 s, and its result."""
    point = Point(name, **cell)
    stages = [
        {"name": "climb", "seconds": 150.0, "passes": 700},
        {"name": "try", "seconds": 50.0, "passes": 300},
    ]
    memory = {"before": 1000, "at_most": 3000}
    result = {"cell": point.facts(), "parameters": 5000, "operations": 100_000_000}
    result |= {"seconds": 200.0, "passes": 1000, "stages": stages, "memory_mib": memory}
    return point, result


def stopped(name, **cell):
    """It was stopped after a tenth of that."""
    point, result = whole(name, **cell)
    del result["stages"]
    return point, result | {"passes": 100, "seconds": 3600.0, "stopped": True}


def test_the_page_has_a_row_a_point_and_a_chart_a_measure():
    few = Point("classes-2", classes=2)
    refused = {"cell": few.facts(), "parameters": 96164, "operations": 1, "refused": "too few"}
    done = [
        (few, refused),
        whole("classes-10"),
        whole("classes-43", classes=43),
        whole("pixels-64", side=64),
    ]
    files = report(done)
    text = files["report.md"].decode()
    assert "| classes-2 | 2 | 32 | 96,164 | 0.0 | refused |  |  |" in text
    assert "classes-2 is refused: “too few”." in text
    assert "| pixels-64 | 10 | 64 | 5,000 | 100.0 | 1,000 | 200.0 | 2,000 |" in text
    assert "| classes-43 | 700 in 150.0 s | 300 in 50.0 s |" in text
    drawn = files["growth.svg"].decode()
    assert "43 classes: 200 seconds" in drawn
    assert "64 pixels a side: 1,000 passes" in drawn
    assert "64 pixels a side: 2,000 MiB of memory" in drawn
    assert "5,000 parameters" not in drawn  # the base alone is no curve


def test_memory_that_the_system_does_not_tell_is_no_curve():
    unknown = {"memory_mib": {"before": None, "at_most": None}}
    done = [(p, r | unknown) for p, r in (whole("classes-10"), whole("classes-43", classes=43))]
    files = report(done)
    assert "| 200.0 | – |" in files["report.md"].decode()
    drawn = files["growth.svg"].decode()
    assert "43 classes: 1,000 passes" in drawn
    assert ": 2,000 MiB" not in drawn


def test_a_scan_that_was_stopped_is_told_by_its_pace():
    largest = stopped("resnet50", classes=1000, side=224)
    text = report([whole("classes-1000", classes=1000), largest])["report.md"].decode()
    assert "| 100 of 1,000 | 3,600.0 of about 36,000 | 2,000 |" in text
    assert "a whole scan takes about 10.0 h at that pace, an estimate" in text
    # 1,000 passes of 2e8 operations at 6.7e12 a second
    assert "expected to take about 0 minutes, which is an estimate and was not measured" in text
    assert "2.0e+11 floating-point operations at 10% (assumed)" in text
    alone = report([largest])["report.md"].decode()
    assert "| 100 stopped | 3,600.0 stopped |" in alone
    assert "GPU" not in alone


def test_nothing_measured_is_told():
    assert "Nothing measured yet." in report([])["report.md"].decode()
