"""What the last layer's weights say, on networks of known answer."""

import pytest
import torch
from torch import nn

from shapprune.method.signatures import signatures

IMAGES = torch.rand(2, 3, 4, 4)


def network(head: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), head).eval()


def test_a_row_of_larger_weights_stands_out_by_their_mean():
    head = nn.Linear(20, 4)
    torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(0))
    before = signatures(network(head), IMAGES, classes=4)
    with torch.no_grad():
        head.weight[2] += 3
    after = signatures(network(head), IMAGES, classes=4)
    assert before is not None
    assert after is not None
    assert max(range(4), key=after.__getitem__) == 2
    spread = float(head.weight.detach().std(correction=0))
    assert after == pytest.approx((head.weight.mean(1) / spread).tolist(), abs=1e-5)


def test_the_scale_of_the_weights_does_not_matter():
    head = nn.Linear(20, 4)
    one = signatures(network(head), IMAGES, classes=4)
    with torch.no_grad():
        head.weight *= 7
    assert signatures(network(head), IMAGES, classes=4) == pytest.approx(one)


def test_a_convolution_may_be_the_last_layer():
    model = nn.Sequential(nn.Conv2d(3, 4, 4), nn.Flatten()).eval()
    found = signatures(model, IMAGES, classes=4)
    assert found is not None
    assert len(found) == 4


def test_a_last_layer_without_a_row_a_class_says_nothing():
    grouped = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Unflatten(1, (4, 2)))
    model = nn.Sequential(grouped, nn.MaxPool1d(2), nn.Flatten()).eval()
    assert model(IMAGES).shape == (2, 4)
    assert signatures(model, IMAGES, classes=4) is None


def test_weights_that_are_all_the_same_say_nothing():
    head = nn.Linear(20, 4)
    nn.init.constant_(head.weight, 0.5)
    assert signatures(network(head), IMAGES, classes=4) is None
