"""Neural Cleanse."""

import pytest
import torch

from shapprune.baselines.neural_cleanse import CostSchedule, neural_cleanse_scan
from shapprune.method.outliers import detect
from toys import TARGET, backdoored_net, toy_images


def test_the_cost_follows_runs_of_successes_and_failures():
    schedule, seen = CostSchedule(), []
    script = (
        "+" * 4 + "-" + "+" * 5 + "+" * 5 + "+" * 4 + "-" + "+" * 5 + "-" * 5 + "-" * 4 + "+" * 5
    )
    for outcome in script:
        schedule.update(outcome == "+")
        seen.append(schedule.cost)
    assert seen[:9] == [0] * 9  # four in a row are not enough
    assert seen[9] == seen[13] == 1e-3
    assert seen[14] == seen[23] == 2e-3
    assert seen[24] == seen[28] == 4e-3
    assert seen[29] == pytest.approx(4e-3 / 2**1.5)
    assert seen[38] == pytest.approx(8e-3 / 2**1.5)
    assert len(seen) == 39
    assert schedule.turned


def test_no_success_no_cost():
    schedule = CostSchedule()
    for _ in range(50):
        schedule.update(False)
    assert schedule.cost == 0
    assert not schedule.turned


def test_the_anomaly_index_is_that_of_the_true_median():
    # Ten norms: the median is 10.5, where the lower middle would be 10. Deviations: 7.5, 2.5, 1.5,
    # 1, 0.5, 0.5, 1, 1.5, 2.5, 3.5, whose median is 1.5.
    norms = [3, 8, 9, 9.5, 10, 11, 11.5, 12, 13, 14]
    detection = detect(norms, method="mad", logarithm=False)
    assert detection.indices[0] == pytest.approx(7.5 / (1.4826 * 1.5), rel=1e-4)
    assert detection.indices[1] == pytest.approx(2.5 / (1.4826 * 1.5), rel=1e-4)
    assert detection.indices[5:] == (0,) * 5
    assert detection.targets == (0,)
    assert detection.bound == pytest.approx(2, abs=1e-3)


def test_neural_cleanse_reverses_the_toys_trigger():
    net, (images, labels) = backdoored_net(), toy_images()
    scan = neural_cleanse_scan(net, images, labels, steps=80)
    norms = scan.detection.norms
    assert scan.detection.targets[0] == TARGET
    assert norms[TARGET] < 0.5 * sorted(norms)[1]
    for target, trigger in enumerate(scan.triggers):
        hits = net(trigger.stamp(images)).argmax(1) == target
        assert float(hits.float().mean()) == pytest.approx(scan.rates[target], abs=0.1)
        assert trigger.norm == pytest.approx(norms[target])


def test_neural_cleanse_keeps_the_smallest_mask_among_those_that_succeed():
    """A network that answers class 1 to nothing: no mask succeeds, the last one is told so."""
    net, (images, labels) = backdoored_net(), toy_images()
    with torch.no_grad():
        net.head.weight[1] = 0
        net.head.bias[1] = -100.0
    scan = neural_cleanse_scan(net, images, labels, steps=5)
    assert scan.rates[1] < 0.99
    assert scan.steps[1] == 5
