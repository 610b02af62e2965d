"""What windows and perturbations share."""

import pytest
import torch
from torch import nn

from shapprune.errors import InputError
from shapprune.method.stamping import draw_images, images_of_others, measure_stamps
from shapprune.method.triggers import Trigger
from toys import seeded


def test_images_of_other_classes():
    labels = torch.tensor([0, 1, 1, 2])
    assert [rows.tolist() for rows in images_of_others(labels, [1, 2])] == [[0, 3], [0, 1, 2]]
    with pytest.raises(InputError, match="two classes"):
        images_of_others(torch.tensor([3, 3]), [0, 3])


def test_each_search_draws_from_its_own_group():
    images = torch.rand(5, 3, 6, 6, generator=seeded())
    rows, group = [torch.tensor([4]), torch.tensor([0, 1])], torch.tensor([1, 0, 1])
    drawn, batch = draw_images(images, rows, group, 40, seeded())
    assert batch.shape == (3, 40, 3, 6, 6)
    assert [sorted(set(one.tolist())) for one in drawn] == [[0, 1], [4], [0, 1]]


def test_what_a_stamp_does_is_measured_on_the_images_of_its_rows():
    """Logits are the mean of the pixels and a half: a white stamp on everything gives 1."""
    net = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(1, 2))
    net[2].weight.data = torch.tensor([[1.0], [0.0]])
    net[2].bias.data = torch.tensor([0.0, 0.5])
    white = Trigger(torch.ones(1, 4, 4), torch.ones(1, 4, 4))
    nothing = Trigger(torch.zeros(1, 4, 4), torch.ones(1, 4, 4))
    images = torch.cat([torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)])
    effect = measure_stamps(
        net,
        images,
        rows=[torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([0, 1])],
        classes=[0, 1, 1],
        stamps=[white, white, nothing],
        views=7,
        generator=seeded(),
    )
    assert effect.margins[:2] == pytest.approx((0.5, -0.5))
    assert effect.margins[2] > 0
    assert effect.shares == (1, 0, 1)
    assert effect.passes == 3 * 6


def test_of_many_images_so_many_are_drawn_as_are_wanted():
    net = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(1, 2))
    nothing = Trigger(torch.zeros(1, 4, 4), torch.ones(1, 4, 4))
    images = torch.rand(50, 1, 4, 4, generator=seeded())
    effect = measure_stamps(
        net,
        images,
        rows=[torch.arange(50)],
        classes=[1],
        stamps=[nothing],
        views=8,
        generator=seeded(),
    )
    assert effect.passes == 8
