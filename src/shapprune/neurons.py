"""The prunable neurons of a network, and masks over them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from shapprune.errors import InputError

# Large batches make the allocator return memory to the system and fault it in again: on a CPU,
# 344 small images cost 1.7 times as much each as 128 do.
CHUNK = 128

PRODUCERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_Key: TypeAlias = tuple[int, int]
_NORMS = (*_BATCH_NORMS, nn.GroupNorm, nn.InstanceNorm2d, nn.LayerNorm)


@dataclass(frozen=True)
class Layer:
    """The neurons of one layer.

    Attributes:
        name: the module after which the neurons are masked, and whose parameters are zeroed to
            remove them: the normalisation that directly follows a convolution or linear layer,
            else the layer itself.
        size: how many neurons.
        dim: their dimension in the module's output.
    """

    name: str
    size: int
    dim: int


@dataclass(frozen=True)
class Neurons:
    """All prunable neurons of a network, numbered through its layers in order of execution."""

    layers: tuple[Layer, ...]

    def __len__(self) -> int:
        return sum(layer.size for layer in self.layers)

    def locate(self, neuron: int) -> tuple[str, int]:
        """The layer's name and the channel of a neuron."""
        for layer in self.layers:
            if 0 <= neuron < layer.size:
                return layer.name, neuron
            neuron -= layer.size
        raise IndexError("no such neuron")

    def split(self, values: Tensor) -> tuple[Tensor, ...]:
        """A tensor (…, n) over neurons, cut into one (…, size) a layer."""
        parts: tuple[Tensor, ...] = values.split([layer.size for layer in self.layers], dim=-1)
        return parts


@contextmanager
def hooked(modules: Sequence[nn.Module], hook: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """Pass the output of each module through ``hook(index, output)`` inside the block.

    The hooks are gone afterwards, also after an exception.
    """

    def adapt(index: int) -> Callable[[nn.Module, object, Tensor], Tensor]:
        return lambda _module, _inputs, output: hook(index, output)

    handles = [module.register_forward_hook(adapt(i)) for i, module in enumerate(modules)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode and its parameters without gradients inside the block."""
    modes = [(module, module.training) for module in model.modules()]
    grads = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval()
    model.requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, grad in grads:
            parameter.requires_grad_(grad)


def find_neurons(model: nn.Module, images: Tensor) -> Neurons:
    """Every neuron of the model that can be removed, found in one dry run.

    A neuron is an output channel of a convolution, or an output unit of a linear layer other
    than the classifier's head, taken after the normalisation that directly follows it. A batch
    norm that follows neither (in pre-activation networks) has neurons of its own. A layer called
    twice has its neurons once. A layer before a normalisation without parameters has none, since
    no weight could hold its output at zero.

    Args:
        model: any classifier; it is left as it was.
        images: (n, C, H, W), n at least 1; one is used.

    Raises:
        InputError: the model has no such neuron.
    """
    names = {module: name for name, module in model.named_modules()}
    # A tensor is known by its id and version, since operations in place keep the id; the list
    # keeps the tensors alive, so that ids stay unique.
    calls: list[tuple[nn.Module, _Key, Tensor, _Key]] = []

    def record(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            calls.append((module, _key(inputs[0]), output, _key(output)))

    watched = [m for m in names if isinstance(m, (*PRODUCERS, *_NORMS))]
    handles = [module.register_forward_hook(record) for module in watched]
    try:
        with evaluating(model), torch.no_grad():
            model(images[:1])
    finally:
        for handle in handles:
            handle.remove()

    producers = [call for call in calls if isinstance(call[0], PRODUCERS)]
    head = producers[-1][0] if producers else None
    source = {key: module for module, _, _, key in producers}
    follower = {  # the first normalisation that reads a producer's output
        source[read]: (module, output)
        for module, read, output, _ in reversed(calls)
        if isinstance(module, _NORMS) and read in source
    }
    layers: dict[nn.Module, Layer] = {}
    for module, read, output, _ in calls:
        if isinstance(module, PRODUCERS):
            site, out = follower.get(module, (module, output))
        elif isinstance(module, _BATCH_NORMS) and read not in source:
            site, out = module, output
        else:
            continue
        # Not getattr: a reparametrised weight is computed anew, whatever is written into it.
        weight = site._parameters.get("weight")
        if module is head or weight is None or site in layers:
            continue
        size = weight.shape[0]
        if isinstance(site, nn.LayerNorm) and weight.ndim != 1:
            continue
        # ConvNeXt's norm is a LayerNorm that turns images round and back.
        last = isinstance(site, nn.Linear) or type(site).forward is nn.LayerNorm.forward
        layers[site] = Layer(names[site], size, out.ndim - 1 if last else 1)
    if not layers:
        raise InputError(
            "the model has no prunable neurons: expected convolutions, or linear layers before "
            "the last, as torch.nn modules"
        )
    return Neurons(tuple(layers.values()))


def _key(tensor: Tensor) -> _Key:
    return id(tensor), tensor._version


@contextmanager
def masked(model: nn.Module, neurons: Neurons, masks: Tensor) -> Iterator[None]:
    """Multiply the neurons' outputs by masks inside the block.

    Args:
        masks: float (rows, n), one row an image of the batches that the block runs, or (1, n)
            for all of them. 1 keeps a neuron, 0 removes it.
    """
    parts = neurons.split(masks)

    def apply(index: int, output: Tensor) -> Tensor:
        mask = parts[index].to(output.dtype)
        if 1 < len(mask) != len(output):  # an image became several rows, as windows do
            mask = mask.repeat_interleave(len(output) // len(mask), dim=0)
        shape = [1] * output.ndim
        shape[0], shape[neurons.layers[index].dim] = mask.shape
        return output * mask.view(shape)

    with hooked([model.get_submodule(layer.name) for layer in neurons.layers], apply):
        yield


def remove_neurons(model: nn.Module, neurons: Neurons, removed: Sequence[int]) -> nn.Module:
    """A copy of the model in which the removed neurons put out exactly 0.

    Their rows of weight and bias are zeroed, in the normalisation where there is one: names and
    shapes of the state dict stay as they are.
    """
    copy = deepcopy(model)
    zero_neurons(copy, neurons, removed)
    return copy


@torch.no_grad()
def zero_neurons(model: nn.Module, neurons: Neurons, removed: Sequence[int]) -> None:
    """As `remove_neurons`, in place, for a model that is ours."""
    for neuron in removed:
        name, channel = neurons.locate(neuron)
        for parameter in model.get_submodule(name).parameters(recurse=False):
            parameter[channel] = 0
