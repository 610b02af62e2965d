"""Models of strangers: what loads, what is refused, and that nothing of theirs ever runs."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from shapprune.checkpoints.architectures import build_network
from shapprune.checkpoints.loading import load_classifier
from shapprune.checkpoints.state_dict import save_weights
from shapprune.errors import InputError
from shapprune.model.classifier import check_classifier

SHARED = Path(__file__).parents[2] / "../shared"

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


@pytest.fixture
def weights(arch: str) -> dict[str, Tensor]:
    return build_network(arch, 10).state_dict()


def fails(message: str):
    """Every refusal is one line, on the point."""
    return pytest.raises(InputError, match=rf"(?s)\A[^\n]*{message}[^\n]*\Z")


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        assert torch.equal(tensor, other[name]), name


# Reading weights


# Building networks


# The normalising wrapper


# Loading a classifier


def test_loads_a_classifier(arch, weights, tmp_path):
    torch.save({"net": {f"module.{k}": v for k, v in weights.items()}}, tmp_path / "model.pth")
    model = load_classifier(tmp_path / "model.pth", arch=arch, num_classes=10, mean=0.5, std=0.5)
    assert not model.training
    assert not model.network.training
    assert_same(model.network.state_dict(), weights)
    check_classifier(model, images=torch.rand(2, 3, 8, 8), num_classes=10)


def test_old_checkpoints_lack_the_batch_counter(arch, weights, tmp_path):
    del weights["1.num_batches_tracked"]
    torch.save(weights, tmp_path / "model.pth")
    loaded = load_classifier(tmp_path / "model.pth", arch=arch, num_classes=10).network.state_dict()
    assert int(loaded.pop("1.num_batches_tracked")) == 0
    assert_same(loaded, weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w | {"4.weight": torch.ones(43, 144), "4.bias": torch.ones(43)},
         r"the weights are for 43 classes, but num_classes is 10 \('4.weight'\)"),
        (lambda w: {k: v for k, v in w.items() if not k.startswith("4")},
         "2 missing: '4.weight', '4.bias'"),
        (lambda w: w | {"5.weight": torch.ones(1)}, "1 unexpected: '5.weight'"),
        (lambda w: w | {"0.weight": torch.ones(4, 1, 3, 3)},
         r"1 of another shape: '0.weight' is \(4, 1, 3, 3\) in the file and \(4, 3, 3, 3\)"),
        (lambda w: {"a": torch.ones(1)}, "8 missing: .*; 1 unexpected: 'a'"),
    ],
)  # fmt: skip
def test_names_what_does_not_match(change, message, arch, weights, tmp_path):
    torch.save(change(dict(weights)), tmp_path / "model.pth")
    with fails(f"does not fit .*{message}"):
        load_classifier(tmp_path / "model.pth", arch=arch, num_classes=10)


# The dry run


# The layout in memory


# Saving


# Checkpoints that other people trained


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("cifar10_badnets_target8", 10),
        ("cifar10_l2inv_target0", 10),
        ("gtsrb_trojan_wm_target2", 43),
    ],
)
def test_loads_the_zoo(name, classes):
    zoo = SHARED / "zoo"
    if not zoo.is_dir():
        pytest.skip("../shared/zoo is missing")
    spec = f"{zoo / 'arch.py'}:SmallVGG"
    model = load_classifier(zoo / f"{name}.pth", arch=spec, num_classes=classes)
    check_classifier(model, images=torch.rand(1, 3, 32, 32), num_classes=classes)
    with fails(f"the weights are for {classes} classes, but num_classes is 7"):
        load_classifier(zoo / f"{name}.pth", arch=spec, num_classes=7)


# What is done to a model of a stranger's, and what is not


VERSIONED = """
from torch import nn

class Scaled(nn.Linear):
    _version = 2

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *rest):
        if local_metadata.get("version") != 2:
            raise ValueError("of another version")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

class Net(nn.Sequential):
    def __init__(self, num_classes=10):
        super().__init__(nn.Flatten(), Scaled(12, num_classes))
"""


def test_layers_that_ask_for_a_version_get_their_own(tmp_path):
    """Safetensors hold none, as MNASNet of torchvision asks for."""
    (tmp_path / "net.py").write_text(VERSIONED)
    arch = f"{tmp_path / 'net.py'}:Net"
    network = build_network(arch, 10)
    save_weights(network, tmp_path / "net.safetensors")
    loaded = load_classifier(tmp_path / "net.safetensors", arch=arch, num_classes=10).network
    assert_same(dict(loaded.state_dict()), dict(network.state_dict()))
