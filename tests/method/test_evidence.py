"""How evidence becomes features, and which classes are worth an inversion."""

from math import asinh, log

import pytest
import torch
from evidences import evidence
from torch import nn

from shapprune.method.evidence import (
    clean_margin,
    features,
    gather,
    prominence,
    untargeted_features,
)
from shapprune.stages import Clock
from toys import CLASSES, TARGET, backdoored_net, toy_images


def test_margins_are_logarithms_of_multiples_of_the_median():
    rows = features(evidence([4.0, 1.0, 2.0]))
    assert [row["margin"] for row in rows] == pytest.approx([log(2), log(0.5), 0])


def test_a_margin_that_is_not_positive_is_small_and_no_error():
    rows = features(evidence([-3.0, 1.0, 2.0]))
    assert rows[0]["margin"] == pytest.approx(log(0.01))


def test_windows_are_compared_with_the_scale_and_with_the_usual_class():
    rows = features(evidence([1.0, 1.0, 1.0], windows=[5.0, -1.0, 0.0]))
    assert rows[0]["window"] == pytest.approx(asinh(5))
    assert rows[0]["window above usual"] == pytest.approx(asinh(5))
    assert rows[1]["window above usual"] == pytest.approx(asinh(-1))


def test_inverted_triggers_count_where_there_are_some_and_not_elsewhere():
    rows = features(evidence([1.0] * 4, patches={0: 2.0, 1: 8.0, 2: 16.0}))
    assert [row["patch"] for row in rows] == pytest.approx([log(4), 0, log(0.5), 0])


def test_the_spread_is_a_share_of_the_classes_and_sizes_are_relative():
    one = torch.tensor([[0, 4, 0, 0], [0, 4, 0, 0], [0, 4, 0, 0], [0, 4, 0, 0]])
    found = untargeted_features(evidence([1.0] * 4, answers=one).untargeted)
    assert found["spread"] == pytest.approx(0.25)
    assert found["small patch"] == pytest.approx(log(4))  # 4 of 16 pixels
    assert found["small perturbation"] == pytest.approx(0)


def test_the_scale_is_how_sure_the_model_is_whatever_the_labels():
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    net[1].weight.data.copy_(torch.tensor([[2.0], [0.0]]))
    images = torch.tensor([0.5, 1.0, 0.25]).view(3, 1, 1, 1)
    assert clean_margin(net, images) == pytest.approx(1.0)


def test_the_toys_target_is_the_most_prominent_and_is_inverted():
    images, labels = toy_images()
    found = gather(backdoored_net(), images, labels, classes=CLASSES, seed=0, clock=Clock(None))
    order = prominence(found.margins, found.windows, found.scale)
    assert max(range(CLASSES), key=lambda c: order[c]) == TARGET
    for inversion in found.inversions:
        targets = [trigger.target for trigger in inversion.triggers]
        assert TARGET in targets
        assert len(targets) < CLASSES
    row = features(found)[TARGET]
    assert row["margin"] > 0.5
    assert row["window above usual"] > 1


def test_margins_alone_cost_nothing_else():
    images, labels = toy_images()
    clock = Clock(None)
    found = gather(
        backdoored_net(), images, labels, classes=CLASSES, margins_only=True, seed=0, clock=clock
    )
    assert found.windows is None
    assert found.untargeted is None
    assert len(clock.stages) == 1
    assert set(features(found)[0]) == {"margin"}
