"""How repairs are scored: by hand, and whether the files of results are of the present rule."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from shapprune.errors import InputError
from shapprune.method.selection import choose
from shapprune.method.settings import REPAIR_RULES
from shapprune_bench.populations.manifest import Specimen
from shapprune_bench.populations.repairs import RepairTask, attacked_images, repair_page
from shapprune_bench.studies.rules_scored import candidate_of

IMAGES, LABELS = torch.full((4, 1, 2, 2), 0.2), torch.tensor([0, 1, 2, 0])


class Brightest(nn.Module):
    """Says which of three pixels is brightest."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3]


def specimen(trigger, target=1, source=None) -> Specimen:
    return Specimen(
        name="mine",
        weights=trigger,
        arch="nets.py:Net",
        num_classes=3,
        input_size=None,
        mean=None,
        std=None,
        data=None,
        backdoored=True,
        attack_failed=False,
        target=target,
        source=source,
        attack="badnets",
        network="Net",
        group="mine",
        accuracy=None,
        asr=None,
        trigger=trigger,
    )


@pytest.fixture
def pixels(tmp_path):
    """The second pixel is overwritten by white."""
    mask = np.array([[False, True], [False, False]])
    file = tmp_path / "trigger.npz"
    np.savez(file, mask=mask, pattern=np.full((2, 2, 1), 255, np.uint8))
    return file


def test_overwritten_pixels(pixels):
    found = attacked_images(specimen(pixels), IMAGES, LABELS)
    assert found.labels.tolist() == [0, 2, 0]  # those of the target are left out
    assert found.images[0].flatten().tolist() == pytest.approx([0.2, 1, 0.2, 0.2])
    assert found.score(Brightest()) == {"asr": 1, "right": 0}


def test_what_is_wanted_follows_the_map(pixels):
    every = attacked_images(specimen(pixels, "y+1"), IMAGES, LABELS)
    assert every.wanted.tolist() == [[1, 2, 0, 1]]
    assert every.score(Brightest()) == {"asr": 0.5, "right": 0.25}
    one = attacked_images(specimen(pixels, 1, source=2), IMAGES, LABELS)
    assert (one.labels.tolist(), one.wanted.tolist()) == ([2], [[1]])
    several = attacked_images(specimen(pixels, (1, 0)), IMAGES, LABELS)
    assert several.labels.tolist() == [2]  # neither of these classes
    assert several.score(Brightest())["asr"] == 1  # any of them counts


def test_images_that_carry_it_already(tmp_path):
    file = tmp_path / "samples.npz"
    np.savez(file, triggered=np.full((2, 2, 2, 1), 51, np.uint8), labels=np.array([0, 1]))
    found = attacked_images(specimen(file), IMAGES, LABELS)
    assert found.labels.tolist() == [0]
    assert found.images.unique().tolist() == pytest.approx([0.2])


def test_a_picture_that_is_added(tmp_path):
    Image.fromarray(np.full((2, 2, 3), 255, np.uint8)).save(tmp_path / "added.png")
    found = attacked_images(specimen(tmp_path / "added.png"), IMAGES.expand(4, 3, 2, 2), LABELS)
    assert found.images.unique().tolist() == [1]


def test_no_trigger_no_score(tmp_path):
    for trigger in (None, tmp_path / "missing.npz"):
        with pytest.raises(InputError, match="mine has no trigger to score with"):
            attacked_images(replace(specimen(tmp_path), trigger=trigger), IMAGES, LABELS)


def test_a_task_has_a_name_of_all_that_it_is(tmp_path):
    task = RepairTask(specimen(tmp_path / "t.npz"))
    others = [replace(task, seed=1), replace(task, by_verdict=True), replace(task, rules="0")]
    assert len({task.name, *(other.name for other in others)}) == 4
    elsewhere = replace(task, specimen=specimen(tmp_path / "other" / "t.npz"))
    assert elsewhere.name == task.name


def test_the_table_holds_medians_and_the_worst(tmp_path):
    before = {"accuracy": 0.9, "asr": 1.0, "right": 0.0}
    done = [
        (
            RepairTask(specimen(tmp_path / "t.npz"), seed=seed),
            {
                "before": before,
                "after": {"accuracy": 0.9 - lost, "asr": asr, "right": 0.8},
                "seconds": 7.0,
            },
        )
        for seed, (lost, asr) in enumerate([(0.01, 0.02), (0.03, 0.01), (0.02, 0.05)])
    ]
    row = repair_page(done).splitlines()[-1]
    assert row == "| mine | badnets | 3 | 90.0 | 2.0 (3.0) | 100.0 | 2.0 (5.0) | 80.0 | 7 |"


MEASURED = Path(__file__).parents[3] / "benchmarks" / "results" / "repairs"


def test_every_repair_that_was_measured_is_what_the_rule_takes():
    """If this fails after a change of the rule: measure the repairs anew."""
    count = 0
    for file in MEASURED.glob("*/repair_*.json"):
        result = json.loads(file.read_text(encoding="utf-8"))
        if result["state"] != "done" or result["cell"]["rules"] != REPAIR_RULES:
            continue
        every = [candidate_of(facts) for facts in result["candidates"]]
        original = next(c.proxies for c in every if c.way == "pruned" and not c.pruned)
        tuned = [c for c in every if c.way == "tuned"]
        place, sufficient = choose(tuned, original=original)
        found = (tuned[place], sufficient)
        assert found == (candidate_of(result["chosen"]), result["sufficient"]), file.name
        count += 1
    assert count
