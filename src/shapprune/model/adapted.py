"""A model made fit for gradients, around one whose forward stands in their way."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Outputs: TypeAlias = Literal["logits", "probabilities", "sigmoids"]

# Names of torch's functions.
_ENDS: dict[Outputs, frozenset[str]] = {
    "logits": frozenset(),
    "probabilities": frozenset({"softmax", "special_softmax"}),
    "sigmoids": frozenset({"sigmoid", "special_expit"}),
}
_ROUNDING = {"round", "floor", "ceil", "trunc", "fix", "special_round"}
_CASTS = {"byte", "char", "short", "int", "long"}
_CASTS_TO = {"to", "type", "type_as", "as_tensor", "tensor"}
_DIVISIONS = {"div", "divide", "floor_divide", "__floordiv__"}
_REMAINDERS = {"remainder", "__mod__", "fmod", "frac"}  # what is left when the rounded is taken off
_WHOLE = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}


class Adapted(nn.Module):
    """A model whose forward is changed in up to three ways, and whose weights are the model's own.

    Parameters, buffers and submodules are shared with the model, under the names that they have
    there, so that neurons and state dicts are those of the model itself. A deepcopy shares
    nothing with it; `unwrap` then gives the copy of the model, of its own class.

    Args:
        model: maps images (n, C, H, W) to an output (n, classes). It is left as it was.
        clones: give it a copy of the images, as it writes into what it is given.
        straight_through: give rounding the gradient of what it rounds: casts to integers,
            divisions without remainder, remainders and quantising that is undone, too.
        outputs: what it returns. Of probabilities this module returns the logarithms, of sigmoids
            the log-odds, taken where the forward ends in torch's softmax or sigmoid from what
            these read, so that nothing saturates.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        clones: bool = False,
        straight_through: bool = False,
        outputs: Outputs = "logits",
    ) -> None:
        super().__init__()
        self.clones, self.straight_through, self.outputs = clones, straight_through, outputs
        self.inner: nn.Module
        if isinstance(model, torch.jit.ScriptModule):  # has no dictionaries that could be shared
            if hasattr(model, "training"):
                self.inner = model
            else:  # frozen: its tensors are constants, and it is no module for others to look at
                self.__dict__["inner"] = model
        else:
            # A twin, so that its training mode can differ, made without what classes do on being
            # copied; and no submodule, as names would get a prefix.
            twin = object.__new__(type(model))
            twin.__dict__.update(model.__dict__)
            self.__dict__["inner"] = twin
            self._parameters, self._buffers = model._parameters, model._buffers
            self._modules = model._modules
            self._non_persistent_buffers_set = model._non_persistent_buffers_set
        self.training = getattr(model, "training", False)

    def train(self, mode: bool = True) -> "Adapted":
        """As every module's; the model's own way of it is kept."""
        self.inner.train(mode)
        self.training = mode
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes) of images (n, C, H, W)."""
        if self.clones:
            images = images.clone()
        if self.outputs == "logits" and not self.straight_through:
            output: Tensor = self.inner(images)
            return output
        with _Functions(self.straight_through) as functions:
            output = self.inner(images)
        read = functions.read_by_last(_ENDS[self.outputs], output)
        number = torch.finfo(output.dtype)
        match self.outputs:
            case "probabilities" if read is not None:
                output = F.log_softmax(read.to(output.dtype), dim=1)
            case "probabilities":
                output = output.clamp(min=number.tiny).log()
            case "sigmoids":
                output = output.logit(number.eps) if read is None else read.to(output.dtype)
        return output


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside an `Adapted`, of the class and with the names that its owner knows.

    Any other model comes back itself.
    """
    while isinstance(model, Adapted):
        model = model.inner
    return model


def ends_in_sigmoid(model: nn.Module, images: Tensor) -> bool:
    """Whether torch's sigmoid is the last thing that the model's forward does."""
    with _Functions(False) as functions:
        output = model(images)
    return functions.read_by_last(_ENDS["sigmoids"], output) is not None


@dataclass(frozen=True, eq=False)
class _Call:
    name: str
    read: Tensor
    output: Tensor


class _Functions(TorchFunctionMode):
    """Watches the functions of torch that a forward calls, and lets gradients through rounding."""

    def __init__(self, straight_through: bool) -> None:
        super().__init__()
        self.straight_through = straight_through
        self._last: _Call | None = None
        self._quantised: dict[int, _Call] = {}

    def read_by_last(self, names: frozenset[str], output: Tensor) -> Tensor | None:
        """What a function of these names was given, if the output is what it returned."""
        last = self._last
        return last.read if last and last.name in names and last.output is output else None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        read = args[0] if args else kwargs.get("input")
        if not isinstance(read, Tensor):
            return func(*args, **kwargs)
        if name == "dequantize" and (call := self._quantised.get(id(read))):
            return _straight(func(*args, **kwargs), call.read)
        smooth = _smooth(name, read, args, kwargs) if self.straight_through else None
        if smooth is not None:
            value = read.detach().clone()
            rounded = (
                func(value, *args[1:], **kwargs) if args else func(**kwargs | {"input": value})
            )
            straight = _straight(rounded.to(read.dtype), smooth)
            in_place = name.endswith("_") and not name.endswith("__")
            return read.copy_(straight) if in_place else straight
        output = func(*args, **kwargs)
        if self.straight_through and name.startswith("quantize_per_"):
            self._quantised[id(output)] = _Call(name, read, output)
        if any(name in names for names in _ENDS.values()):
            self._last = _Call(name, read, output)
        return output


def _straight(value: Tensor, smooth: Tensor) -> Tensor:
    """The value exactly, as nothing is added to it, with the gradient of `smooth`."""
    return value + (smooth - smooth.detach())


def _smooth(
    name: str, read: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor | None:
    """What a function of torch that rounds would have returned without; None of any other."""
    if not read.requires_grad:
        return None
    given = (*args[1:], *kwargs.values())
    plain = name if name.startswith("__") else name.rstrip("_")
    if plain in _REMAINDERS:
        return read.detach()
    if plain in _DIVISIONS:
        rounds = "floor" in plain or kwargs.get("rounding_mode") is not None
        other = args[1] if len(args) > 1 else kwargs.get("other")
        return read / other if rounds and other is not None else None
    wanted = [a.dtype if isinstance(a, Tensor) else a for a in given]
    whole = any(isinstance(dtype, torch.dtype) and dtype in _WHOLE for dtype in wanted)
    if plain in _ROUNDING or plain in _CASTS or (plain in _CASTS_TO and whole):
        return read
    return None
