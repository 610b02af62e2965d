"""ANP."""

import torch

from shapprune.baselines.anp import anp, neuron_masks
from shapprune.model.neurons import find_neurons
from toys import backdoor_neuron, backdoored_net, toy_images


def test_anp_lets_go_of_the_backdoor_neuron():
    net, (images, labels) = backdoored_net(), toy_images()
    neurons = find_neurons(net, images)
    masks = neuron_masks(net, images, labels, neurons=neurons, iterations=60)
    assert bool(((masks >= 0) & (masks <= 1)).all())
    first = neurons.split(masks)[0]
    assert int(first.argmin()) == backdoor_neuron()


def test_anp_prunes_at_the_threshold_and_keeps_biases():
    net, (images, labels) = backdoored_net(), toy_images()
    neurons = find_neurons(net, images)
    masks = neuron_masks(net, images, labels, neurons=neurons, iterations=30, seed=2)
    threshold = float(masks.median())
    repaired = anp(net, images, labels, iterations=30, threshold=threshold, seed=2)
    gone = torch.cat([repaired.bn1.weight, repaired.bn2.weight]) == 0
    assert torch.equal(gone, masks <= threshold)
    assert torch.equal(repaired.bn1.bias, net.bn1.bias)
    assert torch.equal(repaired.bn1.running_mean, net.bn1.running_mean)
