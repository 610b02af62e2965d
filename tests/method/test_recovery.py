"""Images out of nothing but a network."""

from math import isnan

import pytest
import torch
from torch import nn

from shapprune.errors import InputError
from shapprune.method.recovery import (
    divergence,
    observed,
    recover_images,
    statistics_layers,
    variation,
)
from toys import seeded, toy_images

SIZE = (3, 12, 12)


def small_net(**options: bool) -> nn.Sequential:
    """Random weights, and the statistics that the toy images have in it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8, momentum=None, **options),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.BatchNorm2d(8, momentum=None, **options),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 36, 5),
        )
    net.train()(toy_images(16)[0])
    return net.eval()


def seen(net: nn.Module, images: torch.Tensor) -> float:
    layers = statistics_layers(net, images)
    with observed(layers) as moments, torch.no_grad():
        net(images)
    return float(divergence(layers, moments))


def one_norm(mean: float, variance: float) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(1).eval()
    layer.running_mean.fill_(mean)
    layer.running_var.fill_(variance)
    return layer


def test_the_divergence_of_what_is_remembered_is_zero():
    images = torch.rand(6, 1, 4, 4, generator=seeded())
    layer = one_norm(images.mean(), images.var(correction=0))
    assert seen(layer, images) == pytest.approx(0, abs=1e-6)
    shifts = [seen(layer, images + shift) for shift in (0.1, 0.2, 0.4)]
    assert 1e-3 < shifts[0] < shifts[1] < shifts[2]
    assert seen(layer, images * 0.5) > 1e-3


def test_the_divergence_by_hand():
    """Pixels 0 and 2: mean 1 and variance 1; remembered, 3 and 4; the floor adds 0.04 to both."""
    images = torch.tensor([0.0, 2.0]).view(2, 1, 1, 1)
    ratio, gap = torch.tensor(1.04 / 4.04), 4 / 4.04
    expected = 0.5 * (ratio + gap - 1 - ratio.log())
    assert seen(one_norm(3, 4), images) == pytest.approx(float(expected), rel=1e-5)


def test_norms_over_vectors_count_and_unused_ones_do_not():
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.BatchNorm1d(2), nn.BatchNorm2d(3)

        def forward(self, x):
            return self.used(x)

    net = Partly().eval()
    vectors = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])  # mean 0, variance 1, as a new layer says
    assert statistics_layers(net, vectors) == [net.used]
    assert seen(net, vectors) == pytest.approx(0, abs=1e-6)


def test_an_unused_norm_alone_is_none():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 5)).eval()
    net[0].unused = nn.BatchNorm2d(3)
    with pytest.raises(InputError, match="no BN layer"):
        recover_images(net, input_size=SIZE, generator=seeded())
    found = recover_images(net, input_size=SIZE, steps=1, prior_only=True, generator=seeded())
    assert found.layers == 0
    assert isnan(found.divergence)


def test_a_dead_channel_keeps_the_divergence_finite():
    layer = nn.BatchNorm2d(2).eval()
    layer.running_var.copy_(torch.tensor([0.0, 1.0]))
    assert 0 < seen(layer, torch.rand(4, 2, 3, 3, generator=seeded())) < 100


def test_variation_by_hand():
    image = torch.tensor([[0.0, 1.0], [0.0, 0.0]]).view(1, 1, 2, 2)
    assert float(variation(image)) == pytest.approx(1 / 2 + 1 / 2)
    assert float(variation(torch.ones(2, 3, 1, 5))) == 0


def test_hooks_are_gone_after_an_exception():
    net = small_net()

    def stop(_name: str, share: float) -> None:
        if share > 0:
            raise KeyboardInterrupt

    net.train()
    with pytest.raises(KeyboardInterrupt):
        recover_images(net, input_size=SIZE, generator=seeded(), progress=stop)
    with pytest.raises(RuntimeError), observed(statistics_layers(net, torch.zeros(1, *SIZE))):
        net(torch.zeros(1, 7, 3, 3))
    assert net.training
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_a_small_network_is_recovered():
    net, shares = small_net(), []
    found = recover_images(
        net,
        input_size=SIZE,
        per_class=4,
        steps=150,
        generator=seeded(),
        progress=lambda _name, share: shares.append(share),
    )
    assert found.images.shape == (20, *SIZE)
    assert found.labels.tolist() == sorted([*range(5)] * 4)
    assert 0 <= float(found.images.min()) <= float(found.images.max()) <= 1
    assert bool((net(found.images).argmax(1) == found.labels).float().mean() > 0.9)
    noise = torch.rand(20, *SIZE, generator=seeded())
    assert found.layers == 2
    assert seen(net, found.images) < seen(net, noise) / 4
    assert found.divergence == pytest.approx(seen(net, found.images), rel=1)
    assert found.stage.passes == 3 * 150 * 20
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_chunks_bound_the_batch_and_mix_the_classes():
    net, sizes = small_net(), []
    net[0].register_forward_pre_hook(lambda _module, inputs: sizes.append(len(inputs[0])))
    found = recover_images(
        net, input_size=SIZE, per_class=5, steps=2, batch_size=8, generator=seeded()
    )
    assert max(sizes) <= 8
    assert len(found.images) == 25
    assert found.labels.bincount().tolist() == [5] * 5


@pytest.mark.parametrize("classes", [5, 70])
def test_how_many_images(classes):
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 144, classes)).eval()
    found = recover_images(net, input_size=SIZE, steps=1, generator=seeded())
    assert len(found.images) == max(50, classes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": (3, 12, 15)}, r"fails on an image of shape \(3, 12, 15\)"),
        ({"input_size": (1, 12, 12)}, "input size"),
        ({"input_size": (3, 0, 12)}, "three positive numbers"),
        ({"input_size": (12, 12)}, "three positive numbers"),
        ({"per_class": 0}, "at least 1"),
        ({"steps": 0}, "at least 1"),
        ({"batch_size": 0}, "at least 1"),
    ],
)
def test_refused_options(options, message):
    with pytest.raises(InputError, match=message):
        recover_images(small_net(), **{"input_size": SIZE, "generator": seeded(), **options})


def test_no_classes_are_refused():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 144, 2)).eval()
    net[2].weight = nn.Parameter(torch.zeros(0, 3 * 144))
    net[2].bias = nn.Parameter(torch.zeros(0))
    with pytest.raises(InputError, match="classes"):
        recover_images(net, input_size=SIZE, generator=seeded())


def test_a_norm_without_statistics_of_its_own_cannot_be_examined():
    """Its answer for an image depends on the others of the batch."""
    net = small_net(track_running_stats=False)
    with pytest.raises(InputError, match="no BN layer"):
        recover_images(net, input_size=SIZE, generator=seeded())
    with pytest.raises(InputError, match="depends on the other images"):
        recover_images(net, input_size=SIZE, prior_only=True, generator=seeded())


def test_without_norm():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 5))
    with pytest.raises(InputError, match="no BN layer"):
        recover_images(net, input_size=SIZE, generator=seeded())
    found = recover_images(net, input_size=SIZE, steps=60, prior_only=True, generator=seeded())
    assert found.layers == 0
    assert isnan(found.divergence)
    assert bool((net(found.images).argmax(1) == found.labels).float().mean() > 0.5)
