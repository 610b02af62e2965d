"""Pruned channels taken away: which may go, which may not, and the way through two files."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune import demo
from shapprune.checkpoints.architectures import build_network
from shapprune.checkpoints.compact_files import load_compact, save_compact
from shapprune.checkpoints.loading import load_classifier
from shapprune.checkpoints.state_dict import save_weights
from shapprune.cli.main import main
from shapprune.errors import InputError
from shapprune.model.classifier import Classifier
from shapprune.model.compact import Compact, make_compact
from shapprune.model.masking import remove_neurons
from shapprune.model.neurons import find_neurons
from toys import backdoored_net, build, random_images, snapshot, toy_images, unchanged

pytest.importorskip("torch_pruning")

RESNET = "shapprune.networks:resnet18?size=32&width=0.125"


def lively(network: nn.Module) -> nn.Module:
    """In eval mode, with norms that are neither 0 nor 1."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
    return network.eval()


def without(
    network: nn.Module, images: Tensor, *places: tuple[str, int]
) -> tuple[nn.Module, Compact]:
    """The network with some neurons, (layer, channel), removed; and compact."""
    neurons = find_neurons(network, images)
    removed = [n for n in range(len(neurons)) if neurons.locate(n) in places]
    assert len(removed) == len(places)
    pruned = remove_neurons(network, neurons, removed)
    before = snapshot(pruned)
    compact = make_compact(pruned, images, neurons=neurons, removed=removed)
    assert unchanged(pruned, before)
    assert compact.difference <= 1e-4
    unseen = torch.rand(16, *images.shape[1:])
    with torch.no_grad():
        assert torch.allclose(compact.model(unseen), pruned(unseen), rtol=1e-4, atol=1e-4)
    return pruned, compact


def width(compact: Compact, layer: str) -> int:
    return len(compact.model.get_submodule(layer).weight)


def test_the_demo_network_goes_through_files(tmp_path):
    model = load_classifier(demo.WEIGHTS, arch=demo.ARCH, num_classes=10, mean=0.1, std=0.3)
    images = torch.rand(4, 1, 28, 28)
    neurons = find_neurons(model, images)
    removed = [3, 4, 40, 150, len(neurons) - 1]  # convolutions and hidden units behind a flatten
    pruned = remove_neurons(model, neurons, removed)
    compact = make_compact(pruned, images, neurons=neurons, removed=removed)
    assert compact.taken == tuple(neurons.locate(n) for n in removed)
    assert not compact.left
    assert compact.parameters[0] == sum(p.numel() for p in model.parameters())
    assert compact.parameters[1] == sum(p.numel() for p in compact.model.parameters())
    assert compact.parameters[1] < compact.parameters[0]
    assert compact.operations[1] < compact.operations[0]
    save_compact(compact, tmp_path / "small")
    again = load_compact(tmp_path / "small", arch=demo.ARCH, num_classes=10)
    unseen = torch.rand(20, 1, 28, 28)
    assert torch.equal(again(unseen), compact.model(unseen))
    assert torch.allclose(again(unseen), pruned(unseen), atol=1e-4)
    assert not torch.allclose(again(unseen), model(unseen), atol=1e-2)  # pruning did something
    shapes = {k: v.shape for k, v in again.state_dict().items()}
    assert shapes != {k: v.shape for k, v in model.state_dict().items()}


def test_multiply_accumulates_are_counted_right():
    network = lively(
        nn.Sequential(
            *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)),
        )
    )
    _, compact = without(network, torch.rand(2, 3, 6, 6), ("0", 1), ("2", 0))
    assert compact.operations == (36 * (3 * 9 * 4 + 4 * 5) + 15, 36 * (3 * 9 * 3 + 3 * 4) + 12)
    assert compact.parameters == (112 + 25 + 18, 84 + 16 + 15)


def test_a_resnet_keeps_what_a_shortcut_needs(tmp_path):
    network = lively(build_network(RESNET, 5))
    images = torch.rand(3, 3, 32, 32)
    _, compact = without(network, images, ("3.bn1", 2), ("3.bn1", 5), ("3.bn2", 1), ("5.bn1", 0))
    assert compact.taken == (("3.bn1", 2), ("3.bn1", 5), ("5.bn1", 0))
    (left,) = compact.left
    assert (left.layer, left.channel) == ("3.bn2", 1)
    assert "and counts" in left.why
    assert width(compact, "3.conv1") == width(compact, "3.bn1") == 6
    assert compact.model.get_submodule("3.conv2").in_channels == 6
    assert width(compact, "3.bn2") == 8
    save_compact(compact, tmp_path)
    unseen = torch.rand(4, 3, 32, 32)
    again = load_compact(tmp_path, arch=RESNET, num_classes=5)
    assert torch.equal(again(unseen), compact.model(unseen))


def test_a_channel_of_a_shortcut_goes_if_all_that_is_added_is_pruned():
    network = lively(build_network(RESNET, 5))
    images = torch.rand(3, 3, 32, 32)
    writers = [("1", 6), ("3.bn2", 6), ("4.bn2", 6)]  # the stem and both blocks of the stage
    _, compact = without(network, images, *writers)
    assert not compact.left
    assert width(compact, "0") == width(compact, "4.bn2") == 7
    _, compact = without(network, images, *writers[:2])
    assert not compact.taken


class Silent(nn.Module):
    """A shortcut to which a batch norm adds that says nothing on any usual image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return self.head(F.relu(x + self.bn2(self.conv2(x))).mean((2, 3)))


def test_silence_on_the_images_is_not_enough():
    """A backdoor's neuron is silent on clean images."""
    network = lively(Silent())
    network.bn1.bias.data[2] = -50
    _, compact = without(network, random_images(4), ("bn2", 2))
    assert not compact.taken
    assert compact.left[0].why.startswith("bn1 writes there too")
    assert compact.model.conv1.out_channels == 4


def depthwise() -> nn.Module:
    """Of MobileNets: wide, depthwise, narrow."""
    return lively(
        nn.Sequential(
            *(nn.Conv2d(3, 6, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU6()),
            *(nn.Conv2d(6, 6, 3, groups=6, bias=False), nn.BatchNorm2d(6), nn.ReLU6()),
            *(nn.Conv2d(6, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)),
        )
    )


def test_what_a_depthwise_convolution_makes_of_nothing():
    network = depthwise()
    network[4].bias.data.fill_(0.5)
    images = torch.rand(3, 3, 8, 8)
    # The norm after it turns zeros into a constant, which the next layer reads.
    _, compact = without(network, images, ("1", 3))
    assert compact.left[0].why.startswith("4 writes there too")
    # Where that norm is pruned, the whole channel goes, from the first convolution on.
    _, compact = without(network, images, ("4", 3))
    assert compact.taken == (("4", 3),)
    assert width(compact, "0") == width(compact, "3") == compact.model[3].groups == 5
    assert compact.model[6].in_channels == 5


def test_zeros_that_become_constants_stay():
    network = lively(
        nn.Sequential(
            *(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            nn.Linear(4, 5),
        )
    )
    _, compact = without(network, torch.rand(3, 3, 8, 8), ("0", 1))
    assert "logits differ" in compact.left[0].why


class Joined(nn.Module):
    """Two branches side by side, as in DenseNets."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 5, 3)
        self.bn = nn.BatchNorm2d(9)
        self.both = nn.Conv2d(9, 6, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([F.relu(self.one(x)), F.relu(self.two(x))], 1)
        return self.head(F.relu(self.both(F.relu(self.bn(x)))).mean((2, 3)))


def test_concatenation():
    network = lively(Joined())
    _, compact = without(network, random_images(4), ("bn", 6), ("both", 0))
    assert compact.taken == (("bn", 6), ("both", 0))
    assert (width(compact, "one"), width(compact, "two"), width(compact, "bn")) == (4, 4, 8)
    # The norm behind makes a constant of its zeros.
    _, compact = without(network, random_images(4), ("two", 2))
    assert compact.left[0].why.startswith("bn writes there too")


def test_a_grouped_convolution_stays_whole():
    network = lively(
        nn.Sequential(
            *(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 1, groups=2), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
        )
    )
    _, compact = without(network, torch.rand(3, 3, 8, 8), ("0", 1), ("2", 1))
    assert not compact.taken
    assert all("cannot lose single channels" in left.why for left in compact.left)


def test_the_last_channel_of_a_layer_stays():
    network = lively(
        nn.Sequential(nn.Flatten(), nn.Linear(192, 3), nn.ReLU(), nn.Linear(3, 5), nn.ReLU())
    )
    network.append(nn.Linear(5, 5))
    _, compact = without(network, random_images(2), *(("1", c) for c in range(3)), ("3", 4))
    assert len(compact.taken) == 3
    assert compact.left[0].why == "it is the last channel of its layer"
    assert width(compact, "1") == 1


def test_heads_stay_and_hidden_units_of_a_transformer_go():
    network = build("transformer")
    _, compact = without(network, random_images(3), ("attn", 1), ("block.linear1", 5))
    assert compact.taken == (("block.linear1", 5),)
    assert [left.why for left in compact.left] == ["attention heads stay"]
    assert compact.model.block.linear2.in_features == 7


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "resnet10t"])
def test_networks_of_timm(name, tmp_path):
    pytest.importorskip("timm")
    network = lively(build_network(f"timm:{name}", 5))
    images = torch.rand(2, 3, 32, 32)
    neurons = find_neurons(network, images)
    places = [neurons.locate(n) for n in range(0, len(neurons), len(neurons) // 12)]
    _, compact = without(network, images, *places)
    assert compact.taken
    save_compact(compact, tmp_path)
    again = load_compact(tmp_path, arch=f"timm:{name}", num_classes=5)
    assert torch.equal(again(images), compact.model(images))


def test_without_torch_pruning_there_is_a_reason(monkeypatch):
    network = build("conv-bn")
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    pruned, compact = without(network, random_images(3), ("1", 1), ("4", 2))
    assert compact.model is pruned
    assert len(compact.left) == 2
    assert "pip install 'shapprune[compact]'" in compact.left[0].why
    assert "\n" not in compact.left[0].why


class Hidden(Silent):
    """What torch-pruning, which follows gradients, does not see."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


class Counted(Silent):
    """What it cannot run."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(super().forward(x).numpy())


@pytest.mark.parametrize(
    ("kind", "why"), [(Hidden, "does not see it"), (Counted, "cannot trace the network")]
)
def test_networks_that_cannot_be_traced(kind, why):
    pruned, compact = without(lively(kind()), random_images(3), ("bn1", 1))
    assert compact.model is pruned
    assert why in compact.left[0].why


def test_the_command_writes_and_tells(tmp_path, capsys):
    """The whole way: the hidden units of a toy's head go, and the folder loads by one call."""
    import numpy as np

    images, labels = toy_images()
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "toys.npz", train_images=pixels, train_labels=labels.numpy())
    network = backdoored_net()
    save_weights(network, tmp_path / "net.safetensors")
    arch = f"{Path(__file__).parents[1] / 'toys.py'}:backdoored_net"
    command = ["repair", tmp_path / "net.safetensors", "--arch", arch, "--num-classes", 8]
    command += ["--images", tmp_path / "toys.npz", "--compact", "--neurons", 16]
    assert main([*map(str, command), "--out", str(tmp_path / "out")]) == 0
    told = json.loads((tmp_path / "out" / "result.json").read_text())["compact"]
    assert told["taken"]
    assert told["left"]
    assert len(told["taken"]) + len(told["left"]) == 16
    said = capsys.readouterr().out
    assert f"compact: {len(told['taken'])} of 16 pruned channels taken away" in said
    assert "The compact copy" in (tmp_path / "out" / "report.html").read_text()
    small = load_compact(tmp_path / "out", arch=arch, num_classes=8)
    whole = load_classifier(tmp_path / "out" / "repaired.safetensors", arch=arch, num_classes=8)
    assert torch.allclose(small(images), whole(images), rtol=1e-4, atol=1e-4)
    assert sum(p.numel() for p in small.parameters()) == told["parameters"][1]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a compact network of `toys`."""
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    _, compact = without(build("conv-bn"), random_images(3), ("1", 1))
    assert compact.taken
    save_compact(compact, folder)
    return folder


BAD = {
    "no dictionary": [],
    "kind": {"kind": "other"},
    '"removed" must': {"removed": [1]},
    "no tensor 'nowhere.weight'": {"removed": {"nowhere.weight": {"0": [1]}}},
    "no tensor '__class__'": {"removed": {"__class__": {"0": [1]}}},
    "no dimension '7'": {"removed": {"0.weight": {"7": [1]}}},
    "no dimension '-1'": {"removed": {"0.weight": {"-1": [1]}}},
    "0 .. 3": {"removed": {"0.weight": {"0": [4]}}},
    "in 0 .. 3": {"removed": {"0.weight": {"0": [True]}}},
    "indices in 0": {"removed": {"0.weight": {"0": "abc"}}},
    "keep something": {"removed": {"0.weight": {"0": [0, 1, 2, 3]}}},
    "does not fit": {"removed": {}},
    "of another shape": {"removed": {"0.weight": {"0": [0, 1]}}},
    '"mean"': {"mean": "x"},
    "std must be positive": {"std": [0]},
    "finite": {"mean": [float("nan")]},
}


@pytest.mark.parametrize("message", BAD)
def test_hostile_json_gives_one_line(saved, tmp_path, message):
    content = json.loads((saved / "compact.json").read_text())
    bad = {**content, **BAD[message]} if isinstance(BAD[message], dict) else BAD[message]
    (tmp_path / "compact.json").write_text(json.dumps(bad))
    (tmp_path / "compact.safetensors").write_bytes((saved / "compact.safetensors").read_bytes())
    with pytest.raises(InputError, match=rf"\A[^\n]*{message}[^\n]*\Z"):
        load_compact(tmp_path, arch=build("conv-bn"))


def test_what_else_may_be_wrong_with_a_folder(saved, tmp_path):
    assert isinstance(load_compact(saved, arch=build("conv-bn")), Classifier)
    with pytest.raises(InputError, match=r"cannot read .*compact\.json"):
        load_compact(tmp_path, arch=build("conv-bn"))
    (tmp_path / "compact.json").write_bytes(b"\xff{" * 10_000)
    with pytest.raises(InputError, match=r"cannot read .*compact\.json"):
        load_compact(tmp_path, arch=build("conv-bn"))
    with pytest.raises(InputError, match="no tensor"):
        load_compact(saved, arch=build("mlp"))
    with pytest.raises(InputError, match="num_classes must tell"):
        load_compact(saved, arch=RESNET)
