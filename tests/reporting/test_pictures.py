"""Pictures of triggers and images."""

from io import BytesIO

import pytest
import torch
from PIL import Image

from results import result_of
from shapprune.method.triggers import Perturbation, Trigger
from shapprune.reporting.pictures import images_picture, trigger_picture
from shapprune.reporting.triggers import suspected_triggers
from toys import seeded


@pytest.mark.parametrize(("n", "shape"), [(1, (3, 8, 8)), (7, (1, 12, 12)), (86, (3, 5, 9))])
def test_sheets_of_images(n, shape):
    picture = Image.open(BytesIO(images_picture(torch.rand(n, *shape, generator=seeded()))))
    assert picture.width * picture.height >= n * shape[1] * shape[2]
    assert picture.mode == ("RGB" if shape[0] == 3 else "L")


@pytest.mark.parametrize(
    ("case", "targets", "strength"),
    [
        ("scan", [5], 1),
        ("repair", [5], 0.1),  # the smallest of the two refined patches
        ("suspicious scan", [5], 1),
        ("clean", [], 1),
        ("map", [], 1),
        ("margins", [], 1),
        ("forced", [2], 0.1),
    ],
)
def test_triggers_of_targets(case, targets, strength):
    triggers = suspected_triggers(result_of(case))
    assert [target for target, _ in triggers] == targets
    assert all(float(stamp.mask.max()) == pytest.approx(strength) for _, stamp in triggers)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("side", [5, 300])
def test_pictures_of_patches(channels, side):
    mask = torch.zeros(1, side, side)
    mask[0, 0, 0] = 0.5
    picture = Image.open(BytesIO(trigger_picture(Trigger(mask, torch.ones(channels, side, side)))))
    assert min(picture.size) >= 250
    assert picture.mode == ("L" if channels == 1 else "RGB")
    assert picture.convert("L").getpixel((0, 0)) == 255  # as if opaque
    assert picture.convert("L").getpixel((picture.width - 1, 0)) == 128


def test_pictures_of_perturbations():
    delta = torch.zeros(1, 4, 4)
    delta[0, 0, 0], delta[0, 3, 3] = 0.01, -0.005
    picture = Image.open(BytesIO(trigger_picture(Perturbation(delta))))
    assert picture.getpixel((0, 0)) == 255
    assert picture.getpixel((picture.width - 1, picture.height - 1)) == 64
    assert picture.getpixel((picture.width - 1, 0)) == 128


def test_pictures_of_nothing():
    empty = Perturbation(torch.zeros(3, 4, 4))
    assert Image.open(BytesIO(trigger_picture(empty))).getextrema() == ((128, 128),) * 3
