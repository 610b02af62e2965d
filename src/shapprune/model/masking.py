"""Neurons masked in the forward pass, and removed from the weights."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.model.attention import unprojected
from shapprune.model.inference import copy_of
from shapprune.model.neurons import Layer, Neurons, first_output


@contextmanager
def hooked(
    model: nn.Module, neurons: Neurons, hook: Callable[[int, Tensor], Tensor]
) -> Iterator[None]:
    """Pass the neurons of each layer through ``hook(index, tensor)`` inside the block.

    The hooks are gone afterwards, also after an exception.
    """
    with ExitStack() as stack:
        for index, layer in enumerate(neurons.layers):
            stack.enter_context(_hooked_layer(model, layer, index, hook))
        yield


@contextmanager
def _hooked_layer(
    model: nn.Module, layer: Layer, index: int, hook: Callable[[int, Tensor], Tensor]
) -> Iterator[None]:
    module = model.get_submodule(layer.name)
    handle: AbstractContextManager[Any]
    if layer.projection is None:
        handle = module.register_forward_hook(lambda _module, _inputs, out: hook(index, out))
        with handle:
            yield
        return
    projection = model.get_submodule(layer.projection)
    if not layer.fused:
        handle = projection.register_forward_pre_hook(
            lambda _module, inputs: (hook(index, inputs[0]), *inputs[1:])
        )
        with handle:
            yield
        return
    with unprojected(projection) as (weight, bias):

        def project(_module: nn.Module, _inputs: object, output: Any) -> Any:
            joined = F.linear(hook(index, first_output(output)), weight, bias)
            return (joined, *output[1:]) if isinstance(output, tuple) else joined

        with module.register_forward_hook(project):
            yield


@contextmanager
def masked(model: nn.Module, neurons: Neurons, masks: Tensor) -> Iterator[None]:
    """Multiply the neurons' outputs by masks inside the block.

    Args:
        masks: float (rows, n), one row an image of the batches that the block runs, or (1, n)
            for all of them. 1 keeps a neuron, 0 removes it.
    """
    parts = neurons.split(masks)

    def apply(index: int, output: Tensor) -> Tensor:
        return output * neurons.layers[index].spread(parts[index], output)

    with hooked(model, neurons, apply):
        yield


def remove_neurons(model: nn.Module, neurons: Neurons, pruned: Sequence[int]) -> nn.Module:
    """A copy of the model in which the pruned neurons put out exactly 0.

    Their rows of weight and bias are zeroed, in the normalisation where there is one; of heads,
    the columns of the projection that read them. Names and shapes of the state dict stay.
    """
    copy = copy_of(model)
    zero_neurons(copy, neurons, pruned)
    return copy


@torch.no_grad()
def zero_neurons(model: nn.Module, neurons: Neurons, pruned: Sequence[int]) -> None:
    """As `remove_neurons`, in place, for a model that is ours."""
    layers = {layer.name: layer for layer in neurons.layers}
    for neuron in pruned:
        name, channel = neurons.locate(neuron)
        layer = layers[name]
        if layer.projection is None:
            for parameter in model.get_submodule(name).parameters(recurse=False):
                parameter[channel] = 0
        else:
            weight = model.get_submodule(layer.projection).get_parameter("weight")
            width = weight.shape[1] // layer.size
            weight[:, channel * width : (channel + 1) * width] = 0
