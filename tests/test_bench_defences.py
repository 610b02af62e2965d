"""Ours in the forms that the experiments compare."""

from functools import partial

import pytest
import torch

from shapprune.bench.defences import DEFENCES, ours_with_trigger
from shapprune.metrics import accuracy, attack_success_rate
from toys import TARGET, backdoored_net, snapshot, toy_images, true_trigger, unchanged

UNSEEN = toy_images(per_class=10, seed=1)


def asr(model: torch.nn.Module) -> float:
    return attack_success_rate(model, *UNSEEN, stamp=true_trigger().stamp, target=TARGET)


@pytest.mark.parametrize("name", ["ours", "ours-plain", "with the trigger"])
def test_ours_take_out_the_toys_backdoor(name):
    given = partial(ours_with_trigger, target=TARGET, stamp=true_trigger().stamp)
    defence = DEFENCES.get(name, given)
    net, (images, labels) = backdoored_net(), toy_images(per_class=1)
    before, state, shares = snapshot(net), torch.get_rng_state(), []
    repaired = defence(net, images, labels, seed=0, progress=shares.append)
    assert unchanged(net, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert asr(net) > 0.9
    assert asr(repaired) < 0.1
    assert accuracy(repaired, *UNSEEN) > 0.95
    assert shares[-1] == 1
