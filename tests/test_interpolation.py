"""The way back from the tuned network to the pruned one, on a network of one weight."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from shapprune.interpolation import way_back
from shapprune.pruning import Pruning


def weighing(weight: float) -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, weight)
    return model.requires_grad_(False)


@pytest.mark.parametrize(
    ("asr", "left", "found"),
    [
        (lambda _: 0.0, 0.0, 1 / 2),
        (lambda back: 0.12 * back, 0.0, 1 / 3),  # 5 % are let pass
        (lambda back: 0.06 if back < 0.4 else 0.07, 0.0, 1 / 3),  # as on the tuned
        (lambda back: 0.3 if back > 0.2 else 0.0, 0.0, 1 / 6),
        (lambda back: 0.3 if back else 0.0, 0.0, 0.0),
        (lambda _: 0.0, 0.6, 1 / 5),  # pruning left 60 % of the ASR
        (lambda _: 0.0, 1.0, 0.0),
    ],
)
def test_the_way_back_ends_where_the_backdoor_begins(asr, left, found):
    tuned, pruned = weighing(0), weighing(1)
    pruning = Pruning(pruned, torch.zeros(1), (), (), left, left <= 0.1)

    def yardstick(model: nn.Module) -> SimpleNamespace:
        return SimpleNamespace(asr=asr(float(model.weight)), accuracy=0.9)

    between = way_back(tuned, pruning, yardstick=yardstick)
    assert float(between.weight) == pytest.approx(found)
    assert (float(tuned.weight), float(pruned.weight)) == (0, 1)


@pytest.mark.parametrize(("pruned", "found"), [(0.92, 1 / 2), (0.881, 1 / 2), (0.87, 0.0)])
def test_there_is_no_way_back_to_a_network_that_is_right_less_often(pruned, found):
    def yardstick(model: nn.Module) -> SimpleNamespace:
        return SimpleNamespace(asr=0.0, accuracy=pruned if float(model.weight) == 1 else 0.9)

    pruning = Pruning(weighing(1), torch.zeros(1), (), (), 0.0, True)
    between = way_back(weighing(0), pruning, yardstick=yardstick)
    assert float(between.weight) == pytest.approx(found)
