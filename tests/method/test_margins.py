"""The largest margins of networks whose margins are known."""

import pytest
import torch
from torch import nn

from shapprune.errors import InputError
from shapprune.method.margins import check_reached, margins_of, maximum_margins
from shapprune.method.settings import MarginSettings
from shapprune.pipeline import scan
from toys import CLASSES, SIDE, TARGET, backdoored_net, seeded, toy_images


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


@pytest.mark.parametrize(
    ("values", "missed"),
    [
        ([5.0, 6.0, 0.0, 9.0], None),  # one that was never learned
        ([3.0, 4.0, -1.0], None),
        ([3.0, 0.1, 400.0, 0.1, 3.0], None),  # a backdoor's may be far above all others
        ([2.0, 0.0, 0.0, 2.0], 2),
        ([-2.0, 2.0, 0.0], 2),
        ([0.0, 0.0, 0.0], 3),
        ([-4e-12, -3e-12, 9e21, 2e-10, 8e21, 9e21], 3),  # not zero, and nothing beside the others
    ],
)
def test_margins_of_too_few_classes_are_none(values, missed):
    if missed is None:
        check_reached(values)
        return
    with pytest.raises(InputError, match=f"answers {missed} of its {len(values)} classes"):
        check_reached(values)


@pytest.mark.parametrize(
    "last", [lambda z: (z / 3).tanh(), lambda z: z.clamp(-1, 1), lambda z: 100 * z.softmax(1)]
)
def test_outputs_that_saturate_are_refused_and_neither_clean_nor_backdoored(last):
    """No class gets away from where the climb begins, or the one that does stands out by far."""

    class Saturated(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = backdoored_net()

        def forward(self, images):
            return last(10 * self.net(images))

    images, labels = toy_images()
    with pytest.raises(InputError, match="the logits"):
        scan(Saturated(), images, labels)


def test_one_class_is_an_error():
    with pytest.raises(InputError, match="two classes"):
        found(linear(torch.ones(1, 3)), 1, (1, 1, 3))
