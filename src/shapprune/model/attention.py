"""Where a network keeps its attention heads apart: in what the projection behind them reads."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_COUNTS = ("num_heads", "n_heads", "heads")  # what attention modules call the number of theirs
_PROJECTIONS = ("out_proj", "proj")


@dataclass(frozen=True, eq=False)
class Attention:
    """An attention module.

    Attributes:
        heads: how many it has.
        projection: the layer that joins them: each head is a slice of what it reads.
        inside: the layers before the projection, which the heads stand for.
        fused: whether the module applies the projection's weights itself, without calling it, as
            `torch.nn.MultiheadAttention` does.
    """

    heads: int
    projection: nn.Module
    inside: frozenset[nn.Module]
    fused: bool


def find_attentions(model: nn.Module, called: Sequence[nn.Module]) -> dict[nn.Module, Attention]:
    """The innermost modules that say how many heads they have, and join them by a projection.

    Args:
        called: the layers with weights in the order of their calls.
    """
    found = {}
    for module in model.modules():
        heads = _heads(module)
        if heads == 0 or any(_heads(child) for child in module.modules() if child is not module):
            continue
        own, children = set(module.modules()), set(module.children())
        children |= {m for c in children if isinstance(c, nn.Sequential) for m in c.children()}
        layers = [layer for layer in called if layer in own]
        named = [getattr(module, name, None) for name in _PROJECTIONS]
        silent = [m for m in named if isinstance(m, nn.Linear) and m not in layers]
        joining = silent[:1] or [layer for layer in layers if layer in children][-1:]
        if joining and _reads(joining[0]) % heads == 0:
            before = layers if silent else layers[: layers.index(joining[0])]
            if silent or before:
                found[module] = Attention(heads, joining[0], frozenset(before), bool(silent))
    return found


def _heads(module: nn.Module) -> int:
    counts = [getattr(module, name, 0) for name in _COUNTS]
    return max(count if type(count) is int else 0 for count in counts)


def _reads(layer: nn.Module) -> int:
    """Features that a slice of its weights can be taken for; 1 if there are none."""
    weight = layer._parameters.get("weight")
    return 1 if weight is None or getattr(layer, "groups", 1) > 1 else weight.shape[1]


@contextmanager
def unprojected(projection: nn.Module) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The projection lets its input through inside the block; yields its true weight and bias."""
    weight, bias = projection._parameters["weight"], projection._parameters["bias"]
    assert weight is not None
    through = torch.eye(len(weight), device=weight.device, dtype=weight.dtype)
    projection._parameters["weight"] = nn.Parameter(through, requires_grad=False)
    if bias is not None:
        nothing = nn.Parameter(torch.zeros_like(bias), requires_grad=False)
        projection._parameters["bias"] = nothing
    try:
        yield weight, bias
    finally:
        projection._parameters["weight"], projection._parameters["bias"] = weight, bias
