"""Architectures that manifests, scripts and reports of version 0.1 name are found as they were."""

import pytest
import torch

from shapprune.checkpoints.architectures import build_network
from shapprune.errors import InputError


@pytest.mark.parametrize(
    ("former", "now"),
    [
        ("shapprune.cifar_resnets:resnet18", "shapprune.networks.cifar:resnet18"),
        ("shapprune.cifar_resnets:preactresnet34", "shapprune.networks.cifar:preactresnet34"),
        ("shapprune.trojanzoo:net", "shapprune.networks.trojanzoo:net"),
        (
            "shapprune.networks:resnet18?size=28&channels=1&width=0.1",
            "shapprune.networks.paper:resnet18?size=28&channels=1&width=0.1",
        ),
        (
            "shapprune.networks:table3_vgg?size=32&width=0.1",
            "shapprune.networks.paper:table3_vgg?size=32&width=0.1",
        ),
    ],
)
def test_former_names_are_valid(former, now):
    one, other = build_network(former, 10), build_network(now, 10)
    assert type(one) is type(other)
    shapes = [
        {name: tensor.shape for name, tensor in network.state_dict().items()}
        for network in (one, other)
    ]
    assert shapes[0] == shapes[1]
    assert all(isinstance(tensor, torch.Tensor) for tensor in one.state_dict().values())


def test_a_wrong_name_is_told_with_the_name_that_was_spoken():
    with pytest.raises(InputError, match=r"shapprune\.cifar_resnets has no 'resnet81'"):
        build_network("shapprune.cifar_resnets:resnet81", 10)
