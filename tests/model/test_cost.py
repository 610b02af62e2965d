"""Passes are counted."""

import torch

from shapprune.model.cost import counting
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
