"""Between the pruned and the tuned network there is one that costs less accuracy than either."""

from copy import deepcopy

import torch
from torch import nn

from shapprune.proxies import Yardstick
from shapprune.pruning import Pruning

_STEPS = (0.0, 0.2, 0.4, 0.6)  # of the way back to the pruned network
_FAILS = 0.02  # ASR proxy


def way_back(tuned: nn.Module, pruning: Pruning, *, yardstick: Yardstick) -> nn.Module:
    """The network on the way from the tuned weights to the pruned ones that agrees most.

    What few images teach costs accuracy on others, and weights in between keep of both (WiSE-FT,
    Wortsman et al. 2022). Where pruning did not suffice, the way back leads to the backdoor: it
    is the shorter, the more of the ASR pruning has left, and only those networks count on which
    triggers work no more than on the tuned one, or on 2 % of the images.

    Args:
        tuned: the pruned network after fine-tuning; left as it was.
        pruning: where it came from; left as it was.
        yardstick: measures agreement with the original, and the ASR of the inverted triggers.
    """
    found, best, bound = tuned, -1.0, _FAILS
    for step in _STEPS:
        between = deepcopy(tuned)
        with torch.no_grad():
            for parameter, aim in zip(
                between.parameters(), pruning.model.parameters(), strict=True
            ):
                parameter.lerp_(aim, step * (1 - pruning.asr))
        proxies = yardstick(between)
        if step == 0:
            bound = max(bound, proxies.asr)
        if proxies.asr <= bound and proxies.agreement > best:
            found, best = between, proxies.agreement
    return found
