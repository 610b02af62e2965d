"""What callers hand over is told by its kind."""

from math import inf, nan

import numpy as np
import pytest
import torch
from torch import nn

from shapprune.errors import InputError
from shapprune.model.checks import (
    check_generator,
    check_images,
    check_labels,
    check_module,
    check_number,
)
from shapprune.model.classifier import check_batch, check_examples
from toys import CLASSES, backdoored_net, toy_images

IMAGES, LABELS = toy_images()


def refused(message: str):
    return pytest.raises(InputError, match=rf"(?s)\A[^\n]*{message}[^\n]*\Z")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (backdoored_net, "got a function: call it in the forward of a module"),
        (nn.Linear, "got the class Linear: call it to make one"),
        ({"a": torch.ones(1)}, "a dictionary: if it is a state dict, load it"),
        ("model.pth", "got a str"),
        (None, "got a NoneType"),
        (nn.LazyLinear(3), "'weight', 'bias' have no size yet"),
        (nn.Linear(2, 3, device="meta"), "'weight', 'bias' are on the device meta"),
    ],
)
def test_what_is_no_module_that_runs(given, message):
    with refused(message):
        check_module(given)


def test_a_module_on_several_devices():
    model = nn.Sequential(nn.DataParallel(nn.Linear(2, 3)))
    check_module(model)
    model[0].device_ids = [0, 1]
    with refused("'0' is a DataParallel over 2 devices, .* give its .module"):
        check_module(model)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (IMAGES[0], r"got torch.float32 \(3, 12, 12\): a batch of one image is image\[None\]"),
        ((IMAGES * 255).byte(), "divide them by 255"),
        (np.zeros((1, 3, 4, 4)), "torch.from_numpy"),
        (IMAGES[:0], "at least one image"),
        (IMAGES * 255, "got .*: divide them by 255"),
        (IMAGES * 4 - 2, "normalisation belongs into the model"),
        (IMAGES * nan, "got NaN in 16 of 16"),
        (IMAGES + inf, "got inf to inf"),
    ],
)
def test_what_are_no_images(given, message):
    with refused(message):
        check_images(given)


def test_images_come_back_without_a_graph_and_fit_for_one():
    found = check_images(IMAGES.clone().requires_grad_() * 1)
    assert not found.requires_grad
    with torch.inference_mode():
        made = IMAGES.clone()
    found = check_images(made)
    assert not found.is_inference()
    assert torch.equal(found, IMAGES)
    check_images(3 * IMAGES - 1, ranged=False)
    with refused("got .* to inf"):
        check_images(IMAGES + inf, ranged=False)


def test_labels_of_any_whole_type_become_int64():
    for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        found = check_labels(LABELS.to(dtype), len(LABELS), CLASSES)
        assert found.dtype == torch.int64
        assert torch.equal(found, LABELS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (LABELS.float(), "got torch.float32"),
        (LABELS > 2, "got torch.bool"),
        (LABELS.tolist(), "got list"),
        (None, "got NoneType"),
        (LABELS[:3], "16 images and 3 labels: expected as many"),
        (LABELS - 1, r"in 0 \.\. 7, got -1 to 6"),
        (LABELS + 1, r"in 0 \.\. 7, got 1 to 8"),
    ],
)
def test_what_are_no_labels(given, message):
    with refused(message):
        check_labels(given, len(LABELS), CLASSES)


@pytest.mark.parametrize("given", [None, 0, "cpu", torch.Generator])
def test_what_is_no_generator(given):
    with refused("must be a torch.Generator on the CPU"):
        check_generator(given)


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [(1.5, 0, 9), ("3", 0, 9), (None, 0, 9), (True, 0, 9), (-1, 0, 9), (10, 0, 9), (nan, 0.0, 1.0)],
)
def test_what_is_no_such_number(value, least, most):
    with refused("steps must be a .*number from 0"):
        check_number("steps", value, least, most)


def test_numbers_that_do():
    check_number("steps", 3, 1)
    check_number("share", 1, 0.0, 1.0)


def test_a_batch_is_made_what_the_model_takes():
    model = backdoored_net().double()
    images, labels, classes = check_examples(model, IMAGES, LABELS.int())
    assert (images.dtype, labels.dtype, classes) == (torch.float64, torch.int64, CLASSES)
    with refused("the model fails on an image"):
        check_batch(nn.Linear(5, 5), IMAGES)
