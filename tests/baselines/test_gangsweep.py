"""GangSweep."""

import pytest
import torch

from shapprune.baselines.gangsweep import TriggerGenerator, gangsweep_scan, hinge
from toys import TARGET, backdoored_net, seeded, toy_images


def test_the_hinge_is_the_margin_that_is_missing():
    logits = torch.tensor([[1.0, 4.0, 2.0], [5.0, 4.0, 2.0], [2.0, 2.0, 2.0]])
    assert hinge(logits, 0).tolist() == [3, 0, 0]
    assert hinge(logits, 1).tolist() == [0, 1, 0]
    assert hinge(logits, 2).tolist() == [2, 3, 0]


@pytest.mark.parametrize("size", [(3, 12, 12), (1, 28, 28), (3, 9, 14)])
def test_generators_start_at_nothing_and_fit_any_size(size):
    images = torch.rand(2, *size, generator=seeded())
    generator = TriggerGenerator(size[0])
    assert torch.equal(generator(images), torch.zeros_like(images))
    torch.nn.init.normal_(generator.last.weight)
    assert generator.stamp(images).shape == images.shape
    assert bool(((generator.stamp(images) >= 0) & (generator.stamp(images) <= 1)).all())


def test_gangsweeps_generator_reaches_the_target():
    net, (images, labels) = backdoored_net(), toy_images()
    scan = gangsweep_scan(net, images, labels, steps=60)
    assert scan.rates[TARGET] > 0.9
    others = images[labels != TARGET]
    hits = net(scan.generators[TARGET].stamp(others)).argmax(1) == TARGET
    assert float(hits.float().mean()) == pytest.approx(scan.rates[TARGET])
