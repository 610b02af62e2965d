"""A network with its normalisation, and the checks before it is used."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from shapprune.checkpoints.architectures import build_network
from shapprune.errors import InputError
from shapprune.model.classifier import Classifier, check_classifier, in_channels_last

ARCH = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, num_classes=10):
        super().__init__(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
            nn.Linear(4 * 6 * 6, num_classes),
        )
"""


@pytest.fixture
def arch(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(ARCH)
    return f"{tmp_path / 'net.py'}:Net"


def fails(message: str):
    """Every refusal is one line, on the point."""
    return pytest.raises(InputError, match=rf"(?s)\A[^\n]*{message}[^\n]*\Z")


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        assert torch.equal(tensor, other[name]), name


def test_normalises_inside():
    images = torch.rand(2, 3, 4, 4)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 0.125]
    for m, s in ((None, None), (0.5, 0.25), (mean, std), (0.5, std), (mean, None), ([0.5], [2])):
        wrapped = Classifier(nn.Identity(), m, s)
        expected_mean = torch.tensor(0.0 if m is None else m).reshape(1, -1, 1, 1)
        expected_std = torch.tensor(1.0 if s is None else s).reshape(1, -1, 1, 1)
        assert torch.equal(wrapped(images), (images - expected_mean) / expected_std)
        assert wrapped.state_dict() == {}


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (0.5, 0.0, "std must be positive"),
        (0.5, [1, 1, -1], "std must be positive"),
        ([0.5, 0.5], [1, 1, 1], "mean has 2 numbers and std 3"),
        ([], 1, "mean must be"),
        (float("nan"), 1, "mean must be"),
        (0.5, "wide", "std must be"),
        ([[0.5]], 1, "mean must be"),
        ([123.7, 116.3, 103.5], 1, r"mean must be for images in \[0, 1\]"),
    ],
)
def test_refuses_other_normalisation(mean, std, message):
    with fails(message):
        Classifier(nn.Identity(), mean, std)


class Returns(nn.Module):
    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output

    def forward(self, images: Tensor) -> object:
        return self.output


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.zeros(1, 3), "tells 3 classes apart, but num_classes is 10"),
        (torch.zeros(10), r"shape \(10,\)"),
        (torch.zeros(2, 10), r"shape \(2, 10\)"),
        (torch.zeros(1, 10, 2), r"shape \(1, 10, 2\)"),
        (torch.zeros(1, 10, dtype=torch.int64), "int64"),
        ((torch.zeros(1, 10), None), "returns a tuple: expected float logits"),
        (None, "returns a NoneType"),
        (torch.full((1, 10), float("nan")), "NaN"),
    ],
)
def test_dry_run_wants_logits(output, message):
    with fails(message):
        check_classifier(Returns(output), images=torch.rand(1, 3, 8, 8), num_classes=10)


def test_dry_run_tells_wrong_images(arch):
    network = build_network(arch, 10)
    with fails(r"grey images, to a network that takes colour: input size 3 8 8"):
        check_classifier(network, images=torch.rand(1, 1, 8, 8), num_classes=10)
    for shape in ((1, 8, 8), (3, 9, 9)):
        with fails(re.escape(f"fails on an image of shape {shape}")):
            check_classifier(network, images=torch.rand(1, *shape), num_classes=10)
    with fails("mean and std are for 3 channels, but the images have 1"):
        model = Classifier(network, [0.5] * 3, [0.5] * 3)
        check_classifier(model, images=torch.rand(1, 1, 8, 8), num_classes=10)


def test_dry_run_changes_nothing(arch):
    network = build_network(arch, 10).double().train()
    network[1].eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    check_classifier(network, images=torch.rand(1, 3, 8, 8), num_classes=10)
    with pytest.raises(InputError):
        check_classifier(network, images=torch.rand(1, 1, 8, 8), num_classes=10)
    assert_same(network.state_dict(), before)
    assert [m.training for m in network.modules()] == [True, True, False, True, True, True]


def test_channels_last_is_a_copy_that_answers_the_same(arch):
    network = build_network(arch, 10).eval()
    images = torch.rand(4, 3, 8, 8)
    copy = in_channels_last(network, images)
    assert copy is not network
    assert copy[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert network[0].weight.is_contiguous()
    torch.testing.assert_close(copy(images), network(images))


def test_a_network_that_views_its_memory_keeps_its_layout():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 10)

        def forward(self, x):
            return self.head(self.conv(x).view(len(x), -1))

    network = Flat()
    assert in_channels_last(network, torch.rand(1, 3, 8, 8)) is network


def test_a_model_of_several_inputs_is_refused():
    class Two(nn.Module):
        def forward(self, image, mask, scale=1.0):
            return (image * mask * scale).mean((2, 3))

    for model in (Two(), Classifier(Two())):
        with pytest.raises(InputError, match=r"several inputs \(image, mask\)"):
            check_classifier(model, images=torch.rand(1, 3, 8, 8))


def test_inputs_with_defaults_are_no_hindrance():
    class Optional(nn.Module):
        def forward(self, image, mask=None, *, scale=1.0):
            return image.mean((2, 3)) * scale

    assert check_classifier(Optional(), images=torch.rand(1, 3, 8, 8)) == 3
