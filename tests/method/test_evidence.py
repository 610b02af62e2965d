"""How evidence becomes features, and which classes are worth an inversion."""

from math import asinh, log

import numpy as np
import pytest
import torch
from torch import nn

from evidences import evidence
from shapprune.method.evidence import clean_margin, features, gather, standing, untargeted_features
from shapprune.method.settings import SPREAD_FLOOR
from shapprune.utils.progress import Clock
from toys import CLASSES, TARGET, backdoored_net, toy_images


def test_a_class_stands_above_the_median_of_the_others_in_units_of_their_spread():
    # Others of the last: 0, 1, 2. Above their median 1 lie 1 and 2: root mean square 0.5 ** 0.5.
    found = standing(np.array([0.0, 1.0, 2.0, 9.0]))
    assert found[3] == pytest.approx(8 / (SPREAD_FLOOR + 0.5**0.5))


def test_a_class_that_is_one_of_several_stands_out_less():
    alone = standing(np.array([0.0, 0.0, 0.0, 0.0, 2.0]))[4]
    among = standing(np.array([0.0, 0.0, 0.0, 1.8, 2.0]))[4]
    assert alone > 2 * among > 0


def test_margins_are_compared_by_their_logarithms():
    rows = features(evidence([4.0, 1.0, 1.0, 1.0]))
    assert rows[0]["margin"] == pytest.approx(log(4) / SPREAD_FLOOR)
    scaled = features(evidence([400.0, 100.0, 100.0, 100.0]))
    assert scaled[0]["margin"] == pytest.approx(rows[0]["margin"])


def test_a_margin_that_is_not_positive_is_small_and_no_error():
    rows = features(evidence([-3.0, 1.0, 1.0, 1.0]))
    assert rows[0]["margin"] == pytest.approx(log(0.01) / SPREAD_FLOOR)


def test_windows_and_perturbations_count_as_multiples_of_the_scale():
    rows = features(evidence([1.0] * 4, windows=[5.0, 0, 0, 0], perturbations=[0, 0, 0, 2.0]))
    assert rows[0]["window reach"] == pytest.approx(asinh(5))
    assert rows[0]["window"] == pytest.approx(asinh(5) / SPREAD_FLOOR)
    assert rows[3]["perturbation reach"] == pytest.approx(asinh(2))
    assert rows[1]["perturbation"] <= 0


def test_classes_that_were_not_looked_at_are_usual():
    found = evidence([1.0] * 5, windows=[5.0, 1.0, 0.0, 0.0, 0.0])
    some = found.windows
    windows = type(some)((0, 1, 2), some.margins[:3], some.shares[:3], some.triggers[:3], 1)
    rows = features(type(found)(5, found.margins, 1.0, windows))
    assert rows[4]["window reach"] == pytest.approx(asinh(1))


def test_spread_counts_what_was_moved_and_sizes_are_relative():
    one = torch.tensor([[0, 4, 0, 0], [0, 4, 0, 0], [0, 4, 0, 0], [0, 4, 0, 0]])
    found = untargeted_features(evidence([1.0] * 4, answers=one, moved=0.5).untargeted)
    assert found["spread"] == found["window spread"] == pytest.approx(0.125)
    assert found["small patch"] == pytest.approx(log(4))  # 4 of 16 pixels
    assert found["small perturbation"] == pytest.approx(0)


def test_the_scale_is_how_sure_the_model_is_whatever_the_labels():
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    net[1].weight.data.copy_(torch.tensor([[2.0], [0.0]]))
    images = torch.tensor([0.5, 1.0, 0.25]).view(3, 1, 1, 1)
    assert clean_margin(net, images) == pytest.approx(1.0)


def test_the_toys_target_stands_out_by_margin_and_window():
    images, labels = toy_images()
    clock = Clock(None)
    found = gather(backdoored_net(), images, labels, classes=CLASSES, seed=0, clock=clock)
    rows = features(found)
    for name in ("margin", "window"):
        assert max(range(CLASSES), key=lambda c: rows[c][name]) == TARGET
    assert rows[TARGET]["window"] > 3
    assert sum(stage.passes for stage in clock.stages) == sum(
        part.passes
        for part in (found.margins, found.windows, found.perturbations, found.untargeted)
    )


def test_margins_alone_cost_nothing_else():
    images, labels = toy_images()
    clock = Clock(None)
    found = gather(
        backdoored_net(), images, labels, classes=CLASSES, margins_only=True, seed=0, clock=clock
    )
    assert found.windows is None
    assert found.untargeted is None
    assert len(clock.stages) == 1
    assert set(features(found)[0]) == {"margin", "margin signature"}
