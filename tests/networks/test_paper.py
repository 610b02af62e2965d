"""The paper's networks: their shapes, and specs with arguments."""

import pytest
import torch
from torch import nn

from shapprune import networks
from shapprune.checkpoints.architectures import build_network
from shapprune.errors import InputError
from shapprune.model.neurons import find_neurons
from shapprune_bench.tables.rows import RECIPES

NAMES = ["table3_vgg", "vgg11", "vgg16_bn", "vgg_face", "resnet18", "resnet34"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "size"), [(3, 96), (1, 32), (3, 65)])
def test_any_input(name, channels, size):
    spec = f"shapprune.networks:{name}?channels={channels}&size={size}&width=0.0625"
    model = build_network(spec, 7).eval()
    assert model(torch.rand(2, channels, size, size)).shape == (2, 7)


def test_table3():
    model = networks.table3_vgg(43, batch_norm=False)
    convolutions = [m for m in model if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [96, 128, 160, 256, 256, 384, 384]
    assert [m.out_features for m in model if isinstance(m, nn.Linear)] == [1024, 43]
    assert model[-3].in_features == 384 * 3 * 3
    small = networks.table3_vgg(10, size=32).eval()
    assert len(find_neurons(small, torch.rand(1, 3, 32, 32))) == 2688


@pytest.mark.parametrize(
    ("name", "layers"),
    [("vgg11", 11), ("vgg16_bn", 16), ("vgg_face", 16), ("resnet18", 18), ("resnet34", 34)],
)
def test_layers(name, layers):
    model = getattr(networks, name)(width=0.0625)
    counted = [
        m
        for part, m in model.named_modules()
        if isinstance(m, nn.Conv2d | nn.Linear) and "shortcut" not in part
    ]
    assert len(counted) == layers


def test_wrong_arguments():
    with pytest.raises(InputError, match="32 or more"):
        networks.vgg11(size=28)
    with pytest.raises(InputError, match="unexpected keyword argument 'wide'"):
        build_network("shapprune.networks:vgg11?wide=2", 10)


def test_recipes_are_sound():
    assert len({(recipe.profile, recipe.name) for recipe in RECIPES}) == len(RECIPES) == 30
    for recipe in (r for r in RECIPES if r.profile != "zoo"):  # whose network is in a file there
        model = build_network(recipe.network, recipe.num_classes).eval()
        assert model(torch.rand(1, *recipe.input_size)).shape == (1, recipe.num_classes)
        assert recipe.clean_twin().rate == 0
