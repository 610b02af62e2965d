"""Between the pruned and the tuned network there is one that costs less than either."""

from copy import deepcopy

import torch
from torch import nn

from shapprune.proxies import Yardstick
from shapprune.pruning import Pruning

_SHARES = (1 / 2, 1 / 3, 1 / 6)  # of the way back to the pruned network
_FAILS = 0.05  # ASR proxy
_WORSE = 0.01  # agreement that the way may cost


def way_back(tuned: nn.Module, pruning: Pruning, *, yardstick: Yardstick) -> nn.Module:
    """The network farthest back from the tuned weights to the pruned ones that stays as good.

    What few images teach costs accuracy on others, and a backdoored teacher teaches some of the
    backdoor; weights in between have less of both (WiSE-FT, Wortsman et al. 2022). Where pruning
    did not suffice, the way back leads to the backdoor: it is the shorter, the more of the ASR
    pruning has left, and triggers may work no more than on the tuned network, or on 5 % of the
    images. Nor is there anything to gain where the answers agree less with the original's.

    Args:
        tuned: the pruned network after fine-tuning; left as it was.
        pruning: where it came from; left as it was.
        yardstick: measures the ASR of the inverted triggers, and agreement.
    """
    here = yardstick(tuned)
    for share in _SHARES:
        between = deepcopy(tuned)
        with torch.no_grad():
            for parameter, aim in zip(
                between.parameters(), pruning.model.parameters(), strict=True
            ):
                parameter.lerp_(aim, share * (1 - pruning.asr))
        there = yardstick(between)
        if there.asr <= max(_FAILS, here.asr) and there.agreement >= here.agreement - _WORSE:
            return between
    return tuned
