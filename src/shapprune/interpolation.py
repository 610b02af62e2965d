"""Between the pruned and the tuned network there is one that costs less than either."""

from copy import deepcopy

import torch
from torch import nn

from shapprune.proxies import Yardstick
from shapprune.pruning import Pruning

_SHARES = (1 / 2, 1 / 3, 1 / 6)  # of the way back to the pruned network
_FAILS = 0.05  # ASR proxy
_COST = 0.02  # of ACC, that of the augmented images: of 240, a few change by chance


def way_back(tuned: nn.Module, pruning: Pruning, *, yardstick: Yardstick) -> nn.Module:
    """The network farthest back from the tuned weights to the pruned ones that stays as good.

    What few images teach costs accuracy on others, and a backdoored teacher teaches some of the
    backdoor; weights in between have less of both (WiSE-FT, Wortsman et al. 2022). There is nothing
    to gain where pruning cost more than that: where the pruned network is right less often than the
    tuned one, by more than two points. Where pruning did not suffice, the way back leads to the
    backdoor: it is the shorter, the more of the ASR pruning has left, and triggers may work no more
    than on the tuned network, or on 5 % of the images.

    Args:
        tuned: the pruned network after fine-tuning; left as it was.
        pruning: where it came from; left as it was.
        yardstick: measures the ASR of the inverted triggers, and ACC.
    """
    here = yardstick(tuned)
    if yardstick(pruning.model).accuracy < here.accuracy - _COST:
        return tuned
    for share in _SHARES:
        between = deepcopy(tuned)
        with torch.no_grad():
            for parameter, aim in zip(
                between.parameters(), pruning.model.parameters(), strict=True
            ):
                parameter.lerp_(aim, share * (1 - pruning.asr))
        if yardstick(between).asr <= max(_FAILS, here.asr):
            return between
    return tuned
