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
    ("agreement", "asr", "left", "found"),
    [
        (lambda back: back, lambda _: 0.0, 0.0, 0.6),  # never all the way
        (lambda back: back, lambda back: 0.04 * back, 0.0, 0.4),  # 2 % are let pass
        (lambda back: back, lambda back: 0.06 if back < 0.7 else 0.07, 0.0, 0.6),  # as on the tuned
        (lambda back: -abs(back - 0.2), lambda _: 0.0, 0.0, 0.2),
        (lambda _: 0.5, lambda _: 0.0, 0.0, 0.0),  # no further than need be
        (lambda back: back, lambda _: 0.0, 0.5, 0.3),  # pruning left half of the ASR
        (lambda back: back, lambda _: 0.0, 1.0, 0.0),
        (lambda back: back, lambda back: 0.3 if back else 0.0, 0.0, 0.0),
    ],
)
def test_the_way_back_ends_where_the_backdoor_begins(agreement, asr, left, found):
    tuned, pruned = weighing(0), weighing(1)
    pruning = Pruning(pruned, torch.zeros(1), (), (), left, left <= 0.1)

    def yardstick(model: nn.Module) -> SimpleNamespace:
        back = float(model.weight)
        return SimpleNamespace(agreement=agreement(back), asr=asr(back))

    between = way_back(tuned, pruning, yardstick=yardstick)
    assert float(between.weight) == pytest.approx(found)
    assert (float(tuned.weight), float(pruned.weight)) == (0, 1)
