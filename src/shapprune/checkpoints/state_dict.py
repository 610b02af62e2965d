"""Weights files of strangers, read without running code. A weights file is data and never runs."""

import argparse
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import Tensor, nn

from shapprune.checkpoints.entries import TOP, find_weights, inside, quantised_name
from shapprune.checkpoints.inspection import look_into
from shapprune.checkpoints.kinds import SAVE_ADVICE
from shapprune.errors import InputError
from shapprune.model.checks import check_module
from shapprune.utils.files import write_whole
from shapprune.utils.text import describe, quote

_WRAPPER_PREFIXES = ("module.", "_orig_mod.")  # DataParallel, torch.compile
_QUANTISED_ADVICE = (
    "its whole numbers cannot be examined or repaired; ask for the float network that it was made "
    "of, and scan that"
)
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, eq=False)
class WeightsFile:
    """A weights file, read.

    Attributes:
        weights: the named tensors, on the CPU, without the wrappers' prefixes.
        content: all that the file holds, as it was saved.
        keys: where in the content the weights are, outermost first; none if it is them.
        prefix: what stood before every name, such as ``module.``, or was asked for.
        others: other entries that hold weights, keys within keys joined by dots.
        metadata: of safetensors; None for other kinds.
        suffix: of the file's name.
    """

    weights: dict[str, Tensor]
    content: object
    keys: tuple[str, ...]
    prefix: str
    others: tuple[str, ...]
    metadata: dict[str, str] | None
    suffix: str


def read_weights_file(path: Path, entry: str | None = None) -> WeightsFile:
    """The named tensors of a weights file, on the CPU. No code in the file is ever run.

    Reads safetensors and what ``torch.save`` makes of tensors (.pth, .pt, .th, .pth.tar). Of a
    training checkpoint it takes the weights (under ``state_dict``, ``model``, ``net``, …); the
    prefixes ``module.`` and ``_orig_mod.`` go where every name carries them.

    Args:
        entry: which weights, where there are several: a key, keys joined by dots, or a prefix of
            the names. None: the likeliest.

    Raises:
        InputError: a file that is missing, unreadable, empty or damaged; a pickle that calls
            for code, or a file of another kind, with what to do; no weights inside, or quantised
            ones; NaN or infinity (the first such tensor is named).
    """
    path = Path(path)
    contents = look_into(path)
    if contents.problems:
        raise InputError(f"{path} {contents.problems[0]}")
    content: object
    metadata = None
    if contents.kind == "safetensors":
        content, metadata = _read_safetensors(path)
    else:
        content = _read_pickle(path)
    try:
        keys, prefix, others = find_weights(content, entry)
    except InputError as error:
        raise InputError(f"{path} {error}") from error
    named = inside(content, keys)
    if quantised := quantised_name(named):
        raise InputError(f"{path} is quantised ({quote(quantised)}): {_QUANTISED_ADVICE}")
    weights = {
        name.removeprefix(prefix): tensor
        for name, tensor in named.items()
        if isinstance(name, str) and isinstance(tensor, Tensor) and name.startswith(prefix)
    }
    for wrapper in _WRAPPER_PREFIXES * 2:  # either may stand inside the other
        if all(name.startswith(wrapper) for name in weights):
            weights = {name.removeprefix(wrapper): tensor for name, tensor in weights.items()}
            prefix += wrapper
    for name, tensor in weights.items():
        _check_tensor(path, name, tensor)
    return WeightsFile(weights, content, keys, prefix, others, metadata, path.suffix)


def read_of_folder(path: Path) -> WeightsFile:
    """The weights file of a Hugging Face folder, of which no ``entry`` can be named.

    Raises:
        InputError: see `read_weights_file`; it has tensors at the top, and weights in an entry, of
            which libraries take one or the other.
    """
    file = read_weights_file(path)
    top = inside(file.content, ())
    if file.keys and any(isinstance(entry, Tensor) and entry.ndim for entry in top.values()):
        raise InputError(
            f"{path} holds tensors at {TOP} and weights under {quote('.'.join(file.keys))}, and "
            "libraries differ in which they take: scan both from files of their own"
        )
    return file


def _check_tensor(path: Path, name: str, tensor: Tensor) -> None:
    if tensor.is_quantized:
        raise InputError(f"{path} is quantised (tensor {quote(name)}): {_QUANTISED_ADVICE}")
    if tensor.layout != torch.strided or tensor.is_meta:
        raise InputError(f"{path}: tensor {quote(name)} is sparse or has no data")
    if tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype not in _DTYPES):
        raise InputError(
            f"{path}: tensor {quote(name)} is {tensor.dtype}: expected float16, bfloat16, "
            "float32, float64 or whole numbers"
        )
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise InputError(f"{path}: tensor {quote(name)} holds NaN or infinite values")


def save_weights(network: nn.Module, path: Path) -> None:
    """Write the network's state dict as safetensors, whole or not at all.

    Names, shapes and types are the network's own. Tensors that share memory are written once each.

    Raises:
        InputError: it is no module with weights, or the file cannot be written.
    """
    check_module(network)
    write_whole(Path(path), weights_bytes(network))


def weights_bytes(network: nn.Module) -> bytes:
    """What `save_weights` writes."""
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
    return safetensors.torch.save(tensors)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return safetensors.torch.load_file(path), metadata
    except Exception as error:  # the parser raises several kinds on damaged files
        raise InputError(f"{path} is no whole safetensors file: {describe(error)}") from error


def _read_pickle(path: Path) -> object:
    """What ``torch.save`` wrote, through the unpickler that knows tensors and plain values only."""
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_BOOKKEEPING):
            warnings.simplefilter("ignore")
            content: object = torch.load(path, map_location="cpu", weights_only=True)
    except InputError as error:
        raise InputError(f"{path} {error}") from error
    except Exception as error:  # a damaged file can raise anything
        raise InputError(
            f"{path} is not a whole weights file: expected safetensors, or what torch.save makes "
            f"of a state dict ({type(error).__name__}): {SAVE_ADVICE}"
        ) from error
    return content


class _Dtype:
    """Stands in for ``numpy.dtype`` in a pickle: plain numbers only, and no flags of its own."""

    def __init__(self, code: str, *_: object) -> None:
        self.dtype = np.dtype(code)
        if self.dtype.kind not in "biufUS":
            raise InputError(
                f"holds numpy values of type {self.dtype}: expected real numbers or text"
            )

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])

    def __reduce__(self) -> Any:
        return self.dtype.__reduce__()  # so that it is saved as what it stands for


class _Array:
    """Stands in for ``numpy.ndarray`` in a pickle: numbers are copied, never taken for pointers."""

    def __init__(self) -> None:
        self.array: npt.NDArray[Any] = np.zeros(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        flat = np.frombuffer(bytes(data), dtype.dtype)
        self.array = flat.reshape(shape, order="F" if fortran else "C")

    def __reduce__(self) -> Any:
        return self.array.__reduce__()


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    if not dtype.dtype.itemsize:  # an empty text
        return dtype.dtype.type()
    return np.frombuffer(data, dtype.dtype)[0]


def _no_bytes() -> bytes:
    return b""


# The bookkeeping that checkpoints carry beside the weights (`args`, `best_acc`, BackdoorBench's
# indices). Rebuilding these runs no code of the file's choice.
_BOOKKEEPING: list[Any] = [
    argparse.Namespace,
    (_Dtype, "numpy.dtype"),
    (_Array, "numpy.ndarray"),
    *((_reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_no_bytes, f"{module}.bytes") for module in ("builtins", "__builtin__")),
]
