"""The example that takes pruned channels away: which may go, and which may not."""

import importlib.util
from pathlib import Path

import pytest
import torch

from shapprune import demo
from shapprune.checkpoints.architectures import build_network
from shapprune.checkpoints.loading import load_classifier
from shapprune.model.masking import remove_neurons
from shapprune.model.neurons import find_neurons

pytest.importorskip("torch_pruning")
_FILE = Path(__file__).parents[1] / "examples" / "compact_with_torch_pruning.py"
_SPEC = importlib.util.spec_from_file_location(_FILE.stem, _FILE)
example = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(example)


def pruned(model, images, *places):
    neurons = find_neurons(model, images)
    numbers = [n for n in range(len(neurons)) if neurons.locate(n) in places]
    assert len(numbers) == len(places)
    return remove_neurons(model, neurons, numbers)


def test_channels_go_with_all_that_depends_on_them():
    model = load_classifier(demo.WEIGHTS, arch=demo.ARCH, num_classes=10)
    images, unseen = torch.rand(2, 1, 28, 28), torch.rand(20, 1, 28, 28)
    repaired = pruned(model, images, ("network.bn1", 3), ("network.bn1", 4))
    small = example.without(repaired, images, "network.bn1", [3, 4])
    assert small.network.conv1.out_channels == small.network.conv2.in_channels == 30
    assert repaired.network.conv1.out_channels == 32  # left as it was
    assert torch.allclose(small(unseen), repaired(unseen), atol=1e-4)
    assert not torch.allclose(small(unseen), model(unseen), atol=1e-2)  # pruning did something


def test_a_channel_that_a_shortcut_needs_stays():
    torch.manual_seed(0)
    network = build_network("shapprune.networks:resnet18?size=32&width=0.125", 5).eval()
    images = torch.rand(2, 3, 32, 32)
    within = pruned(network, images, ("3.bn1", 2))
    assert example.without(within, images, "3.bn1", [2]) is not within
    added = pruned(network, images, ("3.bn2", 1))
    assert example.without(added, images, "3.bn2", [1]) is added
