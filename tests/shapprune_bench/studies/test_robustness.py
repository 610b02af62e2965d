"""Verdicts under other conditions: each change by hand, the page, and a run on tiny models."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench_files import options, tiny_manifest
from shapprune.cli.main import main
from shapprune.errors import InputError, InputWarning
from shapprune_bench.populations.manifest import read_manifest
from shapprune_bench.studies.conditions import (
    CONDITIONS,
    Condition,
    adding,
    as_jpeg,
    looking,
    mislabel,
    other_source,
)
from shapprune_bench.studies.robustness import Robustness, measure, study
from shapprune_bench.studies.robustness_page import Seen, page
from toys import seeded

SHAPES = [(1, 28, 28), (3, 32, 32), (1, 8, 8)]


def smooth(shape: tuple[int, int, int], n: int = 4) -> torch.Tensor:
    """Images that a camera could have taken: a slope each, in other colours."""
    ramp = torch.linspace(0.2, 0.8, shape[-1]).expand(n, *shape)
    return ramp * torch.linspace(0.5, 1, n * shape[0]).reshape(n, shape[0], 1, 1)


@pytest.mark.parametrize(
    ("n", "share", "wrong"), [(10, 0.1, 1), (10, 0.3, 3), (3, 0.1, 1), (43, 0.3, 13), (10, 0.0, 0)]
)
def test_so_many_labels_are_of_another_class(n, share, wrong):
    labels = torch.arange(n)
    for seed in range(20):
        found, count = mislabel(labels, share, classes=n, generator=seeded(seed))
        assert count == int((found != labels).sum()) == wrong
        assert 0 <= int(found.min()) <= int(found.max()) < n
    assert torch.equal(labels, torch.arange(n))


def test_other_classes_are_all_drawn():
    drawn = {
        mislabel(torch.zeros(1, dtype=torch.int64), 0.1, classes=4, generator=seeded(s))[0].item()
        for s in range(60)
    }
    assert drawn == {1, 2, 3}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("look", ["other source", "jpeg"])
def test_images_change_and_stay_images(shape, look):
    images = torch.rand(4, *shape, generator=seeded(1))
    before = images.clone()
    found = looking(images, look, seeded(0))
    assert torch.equal(images, before)
    assert (found.shape, found.dtype) == (images.shape, torch.float32)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert 0.01 < float((found - images).abs().mean()) < 0.3
    assert torch.equal(looking(images, look, seeded(0)), found)


def test_as_they_are_is_a_copy():
    images = smooth((1, 8, 8))
    found = looking(images, "as they are", seeded(0))
    assert torch.equal(found, images)
    assert found is not images


@pytest.mark.parametrize("shape", SHAPES)
def test_jpeg_keeps_what_is_smooth(shape):
    images = smooth(shape)
    assert float((as_jpeg(images) - images).abs().mean()) < 0.03
    fine = (as_jpeg(images, quality=95) - images).abs().mean()
    assert fine < (as_jpeg(images) - images).abs().mean()


def test_jpeg_has_one_channel_or_three():
    with pytest.raises(InputError, match="one channel or three, got images of 2"):
        as_jpeg(torch.rand(1, 2, 8, 8))


def test_another_camera_is_one_line_of_each_channel_where_nothing_is_fine():
    """Blur and size leave flat images alone; what is left is the colour, channel by channel."""
    levels = torch.tensor([0.3, 0.5, 0.7])
    flat = levels[:, None, None, None].expand(3, 3, 32, 32)
    found = other_source(flat, seeded(5))
    assert torch.allclose(found, found[:, :, :1, :1].expand_as(found), atol=1e-5)
    steps = found[1:, :, 0, 0] - found[:-1, :, 0, 0]  # the same of both: a line
    assert torch.allclose(steps[0], steps[1], atol=1e-5)
    slopes = steps[0] / 0.2
    assert bool(((slopes > 0.75 * 0.85) & (slopes < 1.25 * 1.15)).all())
    assert float(slopes.max() - slopes.min()) > 0.01  # a cast
    assert not torch.allclose(found, other_source(flat, seeded(6)), atol=0.01)


def test_another_camera_blurs():
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2
    found = other_source(board.float().expand(1, 1, 32, 32), seeded(0))
    assert float(found.std()) < 0.1  # was 0.5


def test_sums_in_another_order_are_other_sums_and_nothing_stays_so():
    network = torch.nn.Sequential(torch.nn.Conv2d(8, 64, 3), torch.nn.Conv2d(64, 64, 3)).eval()
    images = torch.rand(4, 8, 20, 20, generator=seeded(0))
    usual = torch.backends.mkldnn.enabled
    with torch.no_grad():
        before = network(images)
        with adding(otherwise=True):
            assert not torch.backends.mkldnn.enabled
            other = network(images)
        with adding(otherwise=False):
            again = network(images)
    assert torch.backends.mkldnn.enabled == usual
    assert torch.equal(before, again)
    assert torch.allclose(before, other, atol=1e-4)
    if not torch.backends.mkldnn.is_available():
        pytest.skip("PyTorch without oneDNN has one order alone")
    assert not torch.equal(before, other)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return tiny_manifest(tmp_path_factory.mktemp("manifest"))


def seen(specimen, condition, verdict, targets=(), score=0.0, seed=0, **more):
    changes = {"images": 10, "mislabelled": 0, "pixels_changed": 0.0, "logits_changed": 0.0}
    said = {"verdict": verdict, "targets": targets, "mapping": None, "score": score}
    return Seen(
        specimen, condition, seed, {"seconds": 1, "warnings": [], **changes, **said, **more}
    )


def cells(files, start: str) -> list[list[str]]:
    lines = files["report.md"].decode().splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith(f"| {start} |")
    ]


def test_the_page_counts(manifest):
    clean, poisoned = read_manifest(manifest)
    files = page(
        [
            seen(clean, "base", "clean", score=-2.0),
            seen(poisoned, "base", "backdoored", (0,), 5.0),
            seen(clean, "base", "suspicious", (1,), 1.0, seed=1),
            seen(poisoned, "base", "backdoored", (0,), 6.0, seed=1),
            seen(clean, "jpeg-30", "backdoored", (2,), 4.0, pixels_changed=0.05),
            seen(poisoned, "jpeg-30", "backdoored", (1,), 4.5, pixels_changed=0.07),
            seen(clean, "mislabelled-30", "clean", (), -2.5, warnings=["few fit"], mislabelled=3),
            seen(poisoned, "mislabelled-30", "clean", (), -1.0, warnings=[], mislabelled=3),
            seen(clean, "order-of-sums", "clean", score=-2.0, logits_changed=2e-6),
        ]
    )

    def counts(start):
        (line, *rest) = cells(files, start)
        return [cell.partition(" (")[0] for cell in line[1:]], rest

    none, one, both = "0 of 1", "1 of 1", "2 of 2"
    assert counts("base")[0] == ["2", none, none, one, one, none, "", "", "0 of 2"]
    draws, _ = counts("base, other draws")
    assert draws == ["2", none, one, one, one, none, "1 of 2", "2", "0 of 2"]
    jpeg, rest = counts("jpeg-30")
    assert jpeg == ["2", one, none, none, one, none, both, "3.2", "0 of 2"]
    assert [line[2:6] for line in rest[:2]] == [
        ["clean", "clean", "clean (-2.00)", "backdoored 2 (4.00)"],
        ["poisoned", "target 0", "backdoored 0 (5.00)", "backdoored 1 (4.50)"],
    ]
    assert rest[2][1:5] == ["10", "0", "0.060", "0"]
    wrong, rest = counts("mislabelled-30")
    assert wrong == ["2", none, none, none, none, one, "1 of 2", "3.2", "1 of 2"]
    assert len(rest) == 2  # one changed, and the extent
    sums, (extent,) = counts("order-of-sums")
    assert sums[-3:] == [none, "0", none]
    assert extent[4] == "1 of 1, 2.0e-06"


def test_a_map_is_right_by_where_most_classes_go(manifest):
    poisoned = replace(read_manifest(manifest)[1], target="y+1")
    assert seen(poisoned, "base", "backdoored", mapping=[1, 2, 0]).right
    assert not seen(poisoned, "base", "backdoored", mapping=[2, 0, 1]).right
    assert not seen(poisoned, "base", "suspicious", mapping=[1, 2, 0]).right


def test_without_a_base_nothing_is_compared(manifest):
    clean, _ = read_manifest(manifest)
    files = page([seen(clean, "jpeg-30", "clean")])
    ((_, *row), _) = cells(files, "jpeg-30")
    assert row[-3:-1] == ["", ""]
    assert b"Models whose verdict changed" not in files["report.md"]


def test_draws_are_of_the_base_alone(manifest):
    tasks = study(options("robustness", results=manifest, draws=5)).tasks
    assert len({task.name for task in tasks}) == len(tasks) == 2 * (5 + len(CONDITIONS) - 1)
    assert {task.seed for task in tasks if task.condition != "base"} == {0}


def test_no_such_condition(manifest):
    with pytest.raises(InputError, match=r"no condition 'jpeg30': did you mean 'jpeg-30'"):
        study(options("robustness", results=manifest, methods=["jpeg30"]))


def test_the_result_says_what_was_changed(manifest):
    clean, _ = read_manifest(manifest)
    found = {name: measure(Robustness(clean, name)) for name in ("2-a-class", "mislabelled-30")}
    assert found["2-a-class"]["images"] == 6
    wrong = found["mislabelled-30"]
    assert (wrong["images"], wrong["mislabelled"], wrong["pixels_changed"]) == (3, 1, 0.0)
    assert set(wrong["bounds"]) == {"suspicious", "backdoored"}
    assert wrong["score"] >= max(wrong["scores"])


def test_what_a_user_would_be_told_is_kept(manifest, monkeypatch):
    monkeypatch.setitem(CONDITIONS, "all wrong", Condition(mislabelled=1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputWarning)  # kept, and not given to the console too
        found = measure(Robustness(read_manifest(manifest)[0], "all wrong"))
    (warning,) = found["warnings"]
    assert "of 3 images their label" in warning


def test_a_run_is_told_and_goes_on(manifest, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["bench", "robustness", str(manifest), "--out", str(out), "--rows", "clean"]
    command += ["--methods", "base", "jpeg-30", "order-of-sums", "--draws", "2"]
    assert main(command) == 0
    results = [json.loads(file.read_text()) for file in sorted(out.glob("robustness_*.json"))]
    assert len(results) == 4
    by = {(r["cell"]["condition"], r["cell"]["seed"]): r for r in results}
    assert by["jpeg-30", 0]["pixels_changed"] > 0 == by["base", 0]["pixels_changed"]
    if torch.backends.mkldnn.is_available():
        assert 0 < by["order-of-sums", 0]["logits_changed"] < 1e-3
        evidence = [by[name, 0]["features"] for name in ("base", "order-of-sums")]
        assert evidence[0] != evidence[1]  # the scan itself adds otherwise, in the last digits
    files = {"report.md": (out / "report.md").read_bytes()}
    assert [row[1] for row in cells(files, "base")] == ["1", "3"]
    capsys.readouterr()
    assert main(command) == 0
    assert "4 scans, 4 done, 0 to do" in capsys.readouterr().out
