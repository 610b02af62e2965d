"""The best perturbations of networks whose answers to them are known."""

import pytest
import torch
from torch import Tensor, nn

from shapprune.errors import InputError
from shapprune.method.perturbations import best_perturbations
from shapprune.method.settings import PerturbationSettings
from toys import CLASSES, SIDE, TARGET, backdoored_net, seeded, toy_images


class Blended(nn.Module):
    """The toy without its backdoor, and a target that a faint checkerboard of blue drives."""

    def __init__(self) -> None:
        super().__init__()
        self.net = backdoored_net()
        self.net.head.weight.data.view(CLASSES, 8, 4)[:, 4] = 0
        across = torch.arange(SIDE)
        self.board = ((across[:, None] + across) % 2 * 2 - 1).float()

    def forward(self, images: Tensor) -> Tensor:
        logits = self.net(images).clone()
        logits[:, TARGET] += 60 * (images[:, 2] * self.board).mean((1, 2))
        return logits


@pytest.fixture(scope="module")
def found():
    images, labels = toy_images()
    wide = PerturbationSettings(radius=0.15)
    return best_perturbations(
        Blended(),
        images,
        labels,
        classes=range(CLASSES),
        settings=wide,
        generator=seeded(),
    )


def test_the_target_is_reached_more_surely_than_any_other_class(found):
    assert max(range(CLASSES), key=lambda c: found.margins[c]) == TARGET
    assert found.shares[TARGET] == max(found.shares) > 0.9


def test_no_perturbation_is_larger_than_the_ball(found):
    radius = 0.15 * (3 * SIDE * SIDE) ** 0.5
    assert all(trigger.norm <= radius * 1.001 for trigger in found.triggers)
    assert found.triggers[TARGET].norm > 0.5 * radius


def test_a_linear_network_gets_the_gradients_direction():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    net[1].weight.data.copy_(torch.tensor([[1.0, 2.0, 0.0, -1.0], [0.0, 0.0, 0.0, 0.0]]))
    images = torch.full((4, 1, 2, 2), 0.5)
    labels = torch.tensor([0, 1, 0, 1])
    found = best_perturbations(net, images, labels, classes=[0], generator=seeded())
    delta = found.triggers[0].delta.flatten()
    wanted = torch.tensor([1.0, 2.0, 0.0, -1.0])
    assert torch.nn.functional.cosine_similarity(delta, wanted, dim=0) > 0.99


def test_passes_are_those_of_the_search_and_the_measurement():
    images, labels = toy_images()
    settings = PerturbationSettings(steps=3, images=2, views=14)
    found = best_perturbations(
        backdoored_net(),
        images,
        labels,
        classes=[0, 1],
        settings=settings,
        generator=seeded(),
    )
    assert found.passes == 2 * 3 * 2 * 2 + 2 * 14


def test_images_of_the_class_alone_are_an_error():
    with pytest.raises(InputError, match="two classes"):
        best_perturbations(
            backdoored_net(),
            torch.rand(2, 3, SIDE, SIDE),
            torch.tensor([3, 3]),
            classes=[3],
            generator=seeded(),
        )
