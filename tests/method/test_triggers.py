"""Stamps by hand."""

from dataclasses import FrozenInstanceError

import pytest
import torch

from shapprune.errors import InputError
from shapprune.method.triggers import Perturbation, Trigger


def trigger(mask: list[list[float]], *pattern: list[list[float]]) -> Trigger:
    return Trigger(torch.tensor([mask]), torch.tensor(pattern))


# One row, three columns, two channels: untouched, blended, covered.
ROW = trigger([[0.0, 0.25, 1.0]], [[0.9, 0.8, 0.7]], [[0.1, 0.0, 0.3]])
DELTA = Perturbation(torch.tensor([[[0.3, -0.4]]]))


def test_trigger_blends_through_its_mask():
    images = torch.tensor([[[[0.2, 0.4, 0.6]], [[1.0, 0.8, 0.0]]]])
    expected = torch.tensor([[[[0.2, 0.5, 0.7]], [[1.0, 0.6, 0.3]]]])
    torch.testing.assert_close(ROW.stamp(images), expected)


def test_perturbation_is_added_and_clipped():
    images = torch.tensor([[[[0.5, 0.5]]], [[[0.9, 0.3]]]])
    expected = torch.tensor([[[[0.8, 0.1]]], [[[1.0, 0.0]]]])
    torch.testing.assert_close(DELTA.stamp(images), expected)


def test_norms():
    assert ROW.norm == pytest.approx(1.25)
    assert DELTA.norm == pytest.approx(0.5)


def test_amplified_mask_is_at_most_opaque():
    strong = ROW.scaled(2)
    torch.testing.assert_close(strong.mask, torch.tensor([[[0.0, 0.5, 1.0]]]))
    assert torch.equal(strong.pattern, ROW.pattern)
    assert ROW.norm == pytest.approx(1.25)


def test_amplified_perturbation():
    torch.testing.assert_close(DELTA.scaled(2).delta, torch.tensor([[[0.6, -0.8]]]))
    assert DELTA.norm == pytest.approx(0.5)


@pytest.mark.parametrize(
    "stamp",
    [Trigger(torch.zeros(1, 2, 2), torch.ones(3, 2, 2)), Perturbation(torch.zeros(3, 2, 2))],
)
def test_stamped_images_are_new(stamp):
    images = torch.linspace(0, 1, 24).view(2, 3, 2, 2)
    stamped = stamp.stamp(images)
    assert torch.equal(stamped, images)
    assert stamped.data_ptr() != images.data_ptr()


@pytest.mark.parametrize("stamp", [ROW, DELTA])
@pytest.mark.parametrize("shape", [(2, 1, 3), (4, 2, 1, 2), (4, 1, 1, 3), (4, 2, 3, 1)])
def test_images_of_another_shape(stamp, shape):
    with pytest.raises(InputError, match=r"for images \(.*\), got"):
        stamp.stamp(torch.zeros(shape))


@pytest.mark.parametrize("stamp", [ROW, DELTA])
def test_images_of_another_kind(stamp):
    """A byte would cut what a mask blends."""
    right = torch.zeros(4, *(stamp.pattern if isinstance(stamp, Trigger) else stamp.delta).shape)
    for images in (right.byte(), right.numpy(), None):
        with pytest.raises(InputError, match=r"for images \(.*\), got"):
            stamp.stamp(images)


@pytest.mark.parametrize(("stamp", "field"), [(ROW, "mask"), (DELTA, "delta")])
def test_stamps_are_frozen(stamp, field):
    with pytest.raises(FrozenInstanceError):
        setattr(stamp, field, torch.zeros(1))
