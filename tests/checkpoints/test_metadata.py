"""What training scripts write beside the weights."""

import argparse

import pytest
import torch

from shapprune.checkpoints.loading import load_classifier
from shapprune.checkpoints.metadata import stated_in_checkpoint
from shapprune.checkpoints.source import read_source
from shapprune.data.preprocessing import Preprocessing
from shapprune.errors import InputError
from shapprune.networks.cifar import resnet18

ARCHS = ("torchvision:vit_b_16", "timm:vit_b_16")


@pytest.mark.parametrize(
    "content",
    [
        {"arch": "vit_b_16", "epoch": 3},  # pytorch/examples
        {"args": argparse.Namespace(model="vit_b_16", lr=0.1)},  # torchvision, timm, DeiT
        {"args": argparse.Namespace(arch="vit_b_16")},
        {"arch": "vit_b_16", "args": argparse.Namespace(model="other")},
        {"hyper_parameters": {"model_name": "vit_b_16"}},  # Lightning
        {"hyper_parameters": {"model": {"name": "vit_b_16"}}},
        {"config": {"arch": {"type": "vit_b_16", "args": {}}}},  # pytorch-template
        {"cfg": {"backbone": "vit_b_16", "model": 3}},
        {"opt": argparse.Namespace(net="vit_b_16", weights="a/b.pt")},
    ],
)
def test_the_architecture(content):
    assert stated_in_checkpoint({**content, "state_dict": {}}).archs == ARCHS


@pytest.mark.parametrize(
    "name", ["evil.py:Net", "a/b", "hf-hub:org/name", "package.module:make", "", 3, None, "a b"]
)
def test_a_stranger_names_no_code(name):
    stated = stated_in_checkpoint({"arch": name, "args": argparse.Namespace(model=name)})
    assert stated.archs == ()


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"class_names": ["ant", "bee"]}, ("ant", "bee")),
        ({"class_to_idx": {"bee": 1, "ant": 0}}, ("ant", "bee")),
        ({"hyper_parameters": {"idx_to_class": {0: "ant", 1: "bee"}}}, ("ant", "bee")),
        ({"meta": {"CLASSES": ("ant", "bee")}}, ("ant", "bee")),
        ({"class_to_idx": {"ant": 0, "bee": 2}}, None),
        ({"classes": 2}, None),
    ],
)
def test_the_classes_names(content, names):
    assert stated_in_checkpoint(content).class_names == names


def test_classes_and_images():
    options = {"nb_classes": 7, "input_size": [3, 64, 48], "crop_pct": 0.8, "mean": (0.1, 0.2, 0.3),
               "std": (0.4, 0.5, 0.6), "interpolation": "bilinear"}  # fmt: skip
    stated = stated_in_checkpoint({"args": argparse.Namespace(**options)})
    assert (stated.num_classes, stated.input_size) == (7, (3, 64, 48))
    assert (stated.mean, stated.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert stated.preprocessing == Preprocessing((80, 60), "cover", "bilinear", (64, 48))
    assert stated.preprocessing_for((3, 64, 48)) == stated.preprocessing
    assert stated.preprocessing_for((3, 32, 32)) is None
    assert "not followed" in stated.image_notes((3, 32, 32))[0]
    assert stated.image_notes((3, 64, 48)) == ()
    for lie in (0, 1, True, "7", 10**9):
        assert stated_in_checkpoint({"num_classes": lie}).num_classes is None


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"input_size": (224, 192), "img_size": 64}, (3, 224, 192)),
        ({"input_size": (224, 192), "mean": [0.5], "std": [0.5]}, (1, 224, 192)),
        ({"input_size": [], "img_size": 64}, (3, 64, 64)),
        ({"input_size": [], "crop_pct": torch.ones(2)}, None),
        (
            {"input_size": (3, 32, 32), "interpolation": ["a"], "crop_mode": torch.ones(2)},
            (3,) + (32,) * 2,
        ),
    ],
)
def test_sizes_in_other_ways(options, size):
    assert stated_in_checkpoint({"args": argparse.Namespace(**options)}).input_size == size


@pytest.mark.parametrize(
    "options",
    [{"img_size": 10**5000}, {"mean": [10**400]}, {"img_size": 9, "crop_pct": torch.ones(2)}],
)
def test_what_cannot_be_followed_is_one_line(options):
    with pytest.raises(InputError, match=r"\A[^\n]*states[^\n]*\Z"):
        stated_in_checkpoint({"args": options})


def test_a_named_network_is_built(tmp_path):
    content = {"arch": "resnet18", "state_dict": resnet18(5).state_dict()}
    torch.save(content, tmp_path / "m.pth.tar")
    model = load_classifier(tmp_path / "m.pth.tar")
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 5)


def test_a_name_that_nobody_knows_is_no_hindrance(tmp_path):
    content = {
        "arch": "my_net",
        "model": {f"m.{k}": v for k, v in resnet18(5).state_dict().items()},
    }
    torch.save(content, tmp_path / "m.pt")
    assert load_classifier(tmp_path / "m.pt")(torch.rand(1, 3, 32, 32)).shape == (1, 5)
    torch.save({"arch": "my_net", "model": {"a.weight": torch.ones(5, 3)}}, tmp_path / "n.pt")
    with pytest.raises(InputError, match="--arch names another"):
        load_classifier(read_source(tmp_path / "n.pt"), num_classes=5)
