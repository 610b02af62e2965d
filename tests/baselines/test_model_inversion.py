"""The methods to compare with, against cases worked out by hand."""

import torch
from torch import nn

from shapprune.baselines import invert_model
from toys import seeded


def brightness_net() -> nn.Module:
    """Class 1 for bright images, class 0 for dark ones."""
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        net[2].weight.copy_(torch.tensor([[-20.0], [20.0]]))
        net[2].bias.copy_(torch.tensor([10.0, -10.0]))
    return net


def test_model_inversion_follows_the_score():
    net, labels = brightness_net(), torch.tensor([0, 1, 1])
    images = invert_model(
        net, labels, input_size=(1, 4, 4), steps=200, rate=0.1, generator=seeded()
    )
    assert torch.equal(net(images).argmax(1), labels)
    assert bool((images[0].mean() < 0.45) & (images[1:].mean() > 0.55))
    # p > 0.99 needs 40 (mean - 0.5) > log 99: it stops there, at the first step beyond.
    gap = (images.mean((1, 2, 3)) - 0.5).abs()
    assert bool(((gap > 0.1148) & (gap < 0.1148 + 0.1 / 4 + 1e-4)).all())


def test_model_inversion_is_deterministic_and_leaves_the_model():
    net = brightness_net().train()
    one, two = (
        invert_model(net, torch.arange(2), input_size=(1, 3, 3), steps=5, generator=seeded())
        for _ in range(2)
    )
    assert torch.equal(one, two)
    assert net.training
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
