"""DeepInspect."""

import pytest
import torch

from shapprune.baselines.deepinspect import deepinspect_scan, double_mad
from toys import SIDE, TARGET, backdoored_net, seeded, toy_images


def test_double_mad_has_a_sigma_for_each_side():
    # Median 10. Below: 9, 2, 1, 0 off, median 1.5; above: 0, 2, 4, 30 off, median 3.
    found = double_mad([1.0, 8.0, 9.0, 10.0, 12.0, 14.0, 40.0])
    low, high = 1.4826 * 1.5, 1.4826 * 3
    assert found == pytest.approx((9 / low, 2 / low, 1 / low, 0, 2 / high, 4 / high, 30 / high))
    assert double_mad([5.0, 5.0, 5.0]) == (0, 0, 0)


def test_deepinspect_finds_triggers_without_images():
    net, (images, _) = backdoored_net(), toy_images()
    scan = deepinspect_scan(net, images, steps=150, inversion_steps=60)
    assert scan.rates[TARGET] > 0.9
    assert bool(((scan.images >= 0) & (scan.images <= 1)).all())
    # On the images that it recovered: on the real ones of this toy they work one time in eight.
    stamped = scan.generator.stamp(TARGET, seeded())(scan.images)
    assert float((net(stamped).argmax(1) == TARGET).float().mean()) > 0.9


def test_deepinspect_uses_only_the_size_of_images():
    given = toy_images()[0], torch.zeros(1, 3, SIDE, SIDE)
    one, other = (
        deepinspect_scan(backdoored_net(), images, steps=5, inversion_steps=5) for images in given
    )
    assert one.norms == other.norms
