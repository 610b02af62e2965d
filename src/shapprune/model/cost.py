"""What any piece of work costs, in image passes: the same measure for every method."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from shapprune.model.inference import evaluating


class Passes(TorchDispatchMode):
    """Counts the arithmetic of convolutions and matrix products; see `counting`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._operations = 0
        self._of_one_pass = 1

    @property
    def count(self) -> int:
        """The passes so far."""
        return round(self._operations / self._of_one_pass)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        operations = flop_registry.get(function._overloadpacket)
        if operations:
            self._operations += operations(*args, **(kwargs or {}), out_val=result)
        return result

    def start(self) -> None:
        """Take what was counted so far for one pass."""
        self._of_one_pass, self._operations = max(1, self._operations), 0


@contextmanager
def counting(model: nn.Module, images: Tensor) -> Iterator[Passes]:
    """Counts the image passes that are made inside the block, of the model and its copies.

    A pass is the arithmetic of one image's way forward through the model. All else is counted in
    that measure: a way back costs one pass for the gradients of the activations and one for those
    of the weights where they are asked for, layers that a batch shares cost once, and generators
    of triggers cost what they compute. Nothing is hooked into the model.

    Args:
        model: left as it was.
        images: (n, C, H, W) in [0, 1], n at least 1; one is used, for its size.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> with counting(model, torch.zeros(1, 1, 2, 2)) as passes:
    ...     _ = model(torch.zeros(5, 1, 2, 2))
    >>> passes.count
    5
    """
    with Passes() as passes:
        with evaluating(model), torch.no_grad():
            model(images[:1])
        passes.start()
        yield passes


def operations(model: nn.Module, images: Tensor) -> int:
    """Multiply-accumulates of convolutions and matrix products for one of the images."""
    counter: Any = FlopCounterMode(display=False)
    with evaluating(model), torch.no_grad(), warnings.catch_warnings(), counter:
        # The counter's own hooks are global, which torch warns of where a module was compiled.
        warnings.simplefilter("ignore", UserWarning)
        model(images[:1])
    return int(counter.get_total_flops()) // 2
