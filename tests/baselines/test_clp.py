"""CLP."""

import pytest
import torch

from shapprune.baselines.clp import channel_sensitivity, clp
from shapprune.errors import InputError
from toys import BACKDOOR, backdoored_net, build, no_norm, random_images, toy_images


def one_a_class():
    return toy_images(per_class=1)


def test_clp_needs_norms():
    with pytest.raises(InputError, match="batch norms that follow"):
        clp(no_norm(), *one_a_class())


def test_channel_constants_are_those_of_a_singular_value_decomposition_each():
    net = build("conv-bn")
    first, second = channel_sensitivity(net, random_images())
    assert (first.norm, second.norm) == ("1", "4")
    for found, conv, norm in ((first, net[0], net[1]), (second, net[3], net[4])):
        for channel in range(conv.out_channels):
            matrix = conv.weight[channel].reshape(conv.in_channels, -1).detach()
            gain = float(norm.weight[channel].detach().abs() / norm.running_var[channel].sqrt())
            largest = float(torch.linalg.svd(gain * matrix).S.max())
            assert float(found.constants[channel]) == pytest.approx(largest, rel=1e-5)


def test_channels_are_paired_by_what_they_read_and_not_by_their_names():
    found = {layer.norm for layer in channel_sensitivity(build("residual"), random_images())}
    assert found == {"norm1", "norm2"}
    # Of the two norms before their convolutions, one reads the stem and the other a sum.
    found = {layer.norm for layer in channel_sensitivity(build("pre-activation"), random_images())}
    assert found == {"norm1"}


def test_clp_prunes_the_outlier_to_zero():
    net = backdoored_net()
    layer = channel_sensitivity(net, toy_images()[0])[0]
    assert int(layer.constants.argmax()) == BACKDOOR
    repaired = clp(net, *toy_images(), u=2.0)
    assert not repaired.bn1.weight[BACKDOOR].any()
    assert not repaired.bn1.bias[BACKDOOR].any()
    assert int((repaired.bn1.weight == 0).sum()) == 1
