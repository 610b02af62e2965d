"""How a model of someone else's is run: as it was afterwards, and in precision enough."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from shapprune.errors import InputError
from shapprune.model.checks import check_module
from shapprune.utils.text import describe

# Large batches make the allocator return memory to the system and fault it in again: on a CPU,
# 344 small images cost 1.7 times as much each as 128 do.
CHUNK = 128


@contextmanager
def searching() -> Iterator[None]:
    """Gradients inside the block, whatever the caller's surroundings: also a decorator.

    `torch.no_grad`, `torch.inference_mode` and autocast are off, and new tensors are float32 ones
    on the CPU, whatever the defaults that the caller set. What `torch.compile` made runs as
    the module that it was made from, whose hooks a compiled graph may leave out.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        if "torch._dynamo" in sys.modules:  # else nothing is compiled, and its import takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode and its parameters without gradients inside the block.

    Raises:
        InputError: it is no module, or one that cannot be run, see `check_module`.
    """
    check_module(model)
    modes = [(module, module.training) for module in model.modules()]
    # What was made under inference_mode takes no part in gradients, and cannot be told to.
    parameters = [parameter for parameter in model.parameters() if not parameter.is_inference()]
    grads = [(parameter, parameter.requires_grad) for parameter in parameters]
    model.eval()
    for parameter in parameters:
        parameter.requires_grad_(False)
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
        InputError: it is no module, see `check_module`, or cannot be set to eval mode.
    """
    check_module(model)
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
    """A float32 copy of a model of another precision, and one for gradients.

    In half precision small steps and gradients vanish; double precision is twice the cost, and
    masks and triggers are float32. What was made under `torch.inference_mode` takes no part in
    gradients, and its copy does. Any other model comes back itself.

    Raises:
        InputError: the model cannot be copied.
    """
    tensors = [*model.parameters(), *model.buffers()]
    half = any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in tensors)
    # Buffers alone may be float64, as means and counters are in float32 networks.
    double = any(parameter.dtype == torch.float64 for parameter in model.parameters())
    if half or double:
        return copy_of(model).float()
    return copy_of(model) if any(tensor.is_inference() for tensor in tensors) else model


def copy_of(model: nn.Module) -> nn.Module:
    """A copy that shares nothing with the model.

    Raises:
        InputError: the model cannot be copied.
    """
    try:
        with torch.no_grad(), _Detached():  # else TorchScript's copies of parameters have a graph
            return deepcopy(model)
    except Exception as error:  # it may be any network
        raise InputError(
            "the model cannot be copied, and the original is never changed: make copy.deepcopy "
            f"of it work ({describe(error)})"
        ) from error


class _Detached(TorchFunctionMode):
    """Lets deepcopy copy tensors with a graph, without it.

    Modules keep such ones: features for later, and the weights that old-style weight norm,
    spectral norm and pruning compute before each forward.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


def cast_like(model: nn.Module, original: nn.Module) -> None:
    """Give the model's tensors the types that an original's of the same names have, in place."""
    given = {**dict(original.named_parameters()), **dict(original.named_buffers())}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        tensor.data = tensor.data.to(given[name].dtype)
