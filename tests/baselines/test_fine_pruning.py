"""Fine-pruning."""

import torch
from torch import nn

from shapprune.baselines.fine_pruning import dormant_first, fine_pruning
from shapprune.model.neurons import find_neurons
from toys import build, random_images


def staircase() -> nn.Module:
    """Four channels: 0 and 1 tell bright from dark, 2 sleeps, 3 is active and of no use."""
    net = nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([2.0, -2.0, -1.0, 0.0]).view(4, 1, 1, 1))
        net[0].bias.copy_(torch.tensor([-1.0, 1.0, 0.0, 0.1]))
        net[4].weight.copy_(torch.tensor([[0, 9.0, 0, 0], [9.0, 0, 0, 0], [0, 0, 9.0, 0]]))
        net[4].bias.copy_(torch.tensor([0.0, 0.0, -5.0]))
    return net


def test_fine_pruning_goes_by_activity_and_keeps_the_last_within_the_bound():
    net = staircase()
    images = torch.tensor([0.0, 0.1, 0.8, 1.0, 0.9]).view(5, 1, 1, 1).expand(5, 1, 4, 4)
    labels = torch.tensor([0, 0, 1, 1, 1])
    neurons = find_neurons(net, images)
    # Mean activities: 0.48 for channel 0, 0.36 for 1, none for 2, 0.1 for 3.
    assert dormant_first(net, images, neurons=neurons) == [2, 3, 1, 0]
    pruned = fine_pruning(net, images, labels, epochs=1)
    gone = [c for c in range(4) if not pruned[0].weight[c].any() and not pruned[0].bias[c].any()]
    # Without channel 1 dark images tie at 0 and go to class 0: nothing is lost, so that it goes
    # too; the last channel always stays.
    assert gone == [1, 2, 3]
    with torch.no_grad():
        net[4].bias[1] = 0.5  # now the dark ones need channel 1
    pruned = fine_pruning(net, images, labels, epochs=1)
    gone = [c for c in range(4) if not pruned[0].weight[c].any() and not pruned[0].bias[c].any()]
    assert gone == [2, 3]


def test_fine_pruning_looks_at_the_last_convolution_alone():
    for name, first, size in (("conv-bn", 4, 6), ("functional", 6, 4), ("mlp", 7, 6)):
        net = build(name)
        order = dormant_first(net, random_images(), neurons=find_neurons(net, random_images()))
        assert sorted(order) == list(range(first, first + size)), name
