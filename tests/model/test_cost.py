"""Passes are counted."""

import torch
from torch import nn

from shapprune.model.cost import counting, operations
from toys import build, random_images


def test_passes_are_counted_forwards_and_backwards():
    net, (images, _) = build("conv-bn"), (random_images(6), None)
    with counting(net, images) as passes, torch.no_grad():
        net(images)
        assert passes.count == 6
    net.requires_grad_(False)
    leaf = images.clone().requires_grad_()
    with counting(net, images) as passes:
        net(leaf).sum().backward()
    assert passes.count == 12  # a way back to the image costs as much as the way there
    net.requires_grad_(True)
    with counting(net, images) as passes:
        net(leaf).sum().backward()
    assert passes.count == 18


def test_multiply_accumulates_by_hand():
    network = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)),
    )
    assert operations(network, torch.rand(2, 3, 6, 6)) == 36 * (3 * 9 * 4 + 4 * 5) + 15
