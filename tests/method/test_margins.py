"""The largest margins of networks whose margins are known."""

import pytest
import torch
from torch import nn

from shapprune.errors import InputError
from shapprune.method.margins import margins_of, maximum_margins
from shapprune.method.settings import MarginSettings
from toys import CLASSES, SIDE, TARGET, backdoored_net, seeded


def linear(weights: torch.Tensor) -> nn.Module:
    """Logits that are a linear function of the pixels."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(weights.shape[1], len(weights), bias=False))
    model[1].weight.data.copy_(weights)
    return model


def found(model, classes, shape, **options):
    return maximum_margins(model, shape=shape, classes=classes, generator=seeded(), **options)


def test_the_margin_of_a_linear_network_is_the_sum_of_its_positive_differences():
    weights = torch.tensor([[1.0, -2.0, 3.0], [0.0, 0.0, 0.0]])
    margins = found(linear(weights), 2, (1, 1, 3))
    # Class 0: pixels 1, 0, 1 give 1 + 3. Class 1: 0, 1, 0 gives 2.
    assert margins.values == pytest.approx((4.0, 2.0), abs=0.05)
    assert torch.allclose(margins.inputs[0].flatten(), torch.tensor([1.0, 0, 1]), atol=0.05)


def test_the_inputs_reach_the_margins_and_are_images():
    net = backdoored_net()
    margins = found(net, CLASSES, (3, SIDE, SIDE))
    assert bool(((margins.inputs >= 0) & (margins.inputs <= 1)).all())
    reached = margins_of(net(margins.inputs), torch.arange(CLASSES))
    assert reached.tolist() == pytest.approx(margins.values, rel=1e-4)


def test_the_target_of_a_backdoor_has_by_far_the_largest_margin():
    values = found(backdoored_net(), CLASSES, (3, SIDE, SIDE)).values
    others = [value for c, value in enumerate(values) if c != TARGET]
    assert values[TARGET] > 2 * max(others)


def test_many_classes_are_climbed_in_parts_with_the_same_result():
    net = backdoored_net()
    whole = found(net, CLASSES, (3, SIDE, SIDE), settings=MarginSettings(starts=1))
    parts = found(net, CLASSES, (3, SIDE, SIDE), settings=MarginSettings(starts=1, rows=3))
    assert whole.values == pytest.approx(parts.values, rel=1e-4)


def test_passes_are_counted_two_a_step_and_start():
    settings = MarginSettings(starts=2, steps=5)
    margins = found(linear(torch.eye(3)), 3, (1, 1, 3), settings=settings)
    assert margins.passes == 2 * 2 * 5 * 3


def test_one_class_is_an_error():
    with pytest.raises(InputError, match="two classes"):
        found(linear(torch.ones(1, 3)), 1, (1, 1, 3))
