"""ResNet-50 without torchvision."""

import torch

from shapprune.model.cost import operations
from shapprune_bench.studies.resnet50 import Bottleneck, resnet50


def test_it_is_as_large_as_torchvisions():
    """25,557,032 parameters and 4.09 G multiply-accumulates, as its documentation says."""
    model = resnet50()
    assert sum(parameter.numel() for parameter in model.parameters()) == 25_557_032
    assert operations(model, torch.zeros(1, 3, 224, 224)) == 4_089_184_256


def test_a_block_adds_to_its_input_what_its_last_norm_lets_through():
    block = Bottleneck(16, 4, 1).eval()
    x = torch.randn(2, 16, 3, 3)
    assert torch.equal(block(x), x.relu())
    torch.nn.init.ones_(block.body[-1].weight)
    with torch.no_grad():
        assert torch.equal(block(x), (x + block.body(x)).relu())
        assert not torch.equal(block(x), x.relu())
    assert Bottleneck(16, 8, 2)(x).shape == (2, 32, 2, 2)
