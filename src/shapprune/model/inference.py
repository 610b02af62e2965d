"""How a model of someone else's is run: as it was afterwards, and in precision enough."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import nn

from shapprune.errors import InputError
from shapprune.utils.text import describe

# Large batches make the allocator return memory to the system and fault it in again: on a CPU,
# 344 small images cost 1.7 times as much each as 128 do.
CHUNK = 128


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


@contextmanager
def left_as_it_was(model: nn.Module) -> Iterator[None]:
    """The model in eval mode inside the block, and afterwards as before.

    Its training modes and buffers are put back, and the state of torch's generators, from which
    its forward may draw.

    Raises:
        InputError: it cannot be set to eval mode.
    """
    # Frozen TorchScript has no mode.
    modes = [(m, m.training) for m in model.modules() if hasattr(m, "training")]
    buffers = {name: (tensor, tensor.clone()) for name, tensor in model.named_buffers()}
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=devices):
        try:
            try:
                model.eval()
            except Exception as error:
                raise InputError(
                    f"the model cannot be set to eval mode, which examining it needs: "
                    f"{describe(error)}"
                ) from error
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            with torch.no_grad():
                for name, now in list(model.named_buffers()):
                    tensor, before = buffers.get(name, (now, now))
                    if now is not tensor:  # the forward put another in its place
                        owner, _, attribute = name.rpartition(".")
                        setattr(model.get_submodule(owner), attribute, tensor)
                    if not torch.equal(tensor, before):
                        tensor.copy_(before)


def in_full_precision(model: nn.Module) -> nn.Module:
    """A float32 copy of a model of another precision.

    In half precision small steps and gradients vanish; double precision is twice the cost, and
    masks and triggers are float32. Any other model comes back itself.

    Raises:
        InputError: the model cannot be copied.
    """
    tensors = [*model.parameters(), *model.buffers()]
    half = any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in tensors)
    # Buffers alone may be float64, as means and counters are in float32 networks.
    double = any(parameter.dtype == torch.float64 for parameter in model.parameters())
    return copy_of(model).float() if half or double else model


def copy_of(model: nn.Module) -> nn.Module:
    """A copy that shares nothing with the model.

    Raises:
        InputError: the model cannot be copied.
    """
    try:
        with torch.no_grad():  # else TorchScript's copies of parameters have a graph
            return deepcopy(model)
    except Exception as error:  # it may be any network
        raise InputError(
            "the model cannot be copied, and the original is never changed: make copy.deepcopy "
            f"of it work, mostly by keeping no tensor with a graph in it ({describe(error)})"
        ) from error


def cast_like(model: nn.Module, original: nn.Module) -> None:
    """Give the model's tensors the types that an original's of the same names have, in place."""
    given = {**dict(original.named_parameters()), **dict(original.named_buffers())}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        tensor.data = tensor.data.to(given[name].dtype)
