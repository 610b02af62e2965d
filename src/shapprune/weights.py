"""Weights files of strangers, read without running code. A weights file is data and never runs."""

import argparse
import re
import tarfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from shapprune.errors import InputError
from shapprune.files import describe, list_names, printable, quote, write_whole

# Where training scripts put the weights, best first; other entries are tried after these.
_WEIGHT_ENTRIES = (
    *("state_dict", "model_state_dict", "model", "net", "network", "weights", "params"),
    *("ema", "ema_state_dict", "state_dict_ema", "model_ema"),
)
_WRAPPER_PREFIXES = ("module.", "_orig_mod.")  # DataParallel, torch.compile
# The bookkeeping that checkpoints carry beside the weights (`args`, `best_acc`). Rebuilding these
# runs no code of the file's choice.
_numpy_scalar = np.float64().__reduce__()[0]
_BOOKKEEPING: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(code)) for code in "?bBhHiIlLqQefd"),
    (_numpy_scalar, "numpy.core.multiarray.scalar"),
    (_numpy_scalar, "numpy._core.multiarray.scalar"),
]
_SAVE_ADVICE = "save it again with torch.save(model.state_dict(), …) or as safetensors"


def read_weights(path: Path) -> dict[str, Tensor]:
    """The named tensors of a weights file, on the CPU. No code in the file is ever run.

    Reads safetensors and what ``torch.save`` makes of tensors (.pth, .pt, .th, .pth.tar). Of a
    training checkpoint it takes the weights (under ``state_dict``, ``model``, ``net``, …); the
    prefixes ``module.`` and ``_orig_mod.`` go where every name carries them.

    Raises:
        InputError: a file that is missing, unreadable, empty or cut short; a pickle that calls
            for code, a TorchScript archive, an ONNX model; no weights inside; NaN or infinity
            (the first such tensor is named).
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if not head:
        raise InputError(f"{path} is empty: expected a weights file")
    if path.suffix.lower() == ".safetensors" or head[8:9] == b"{":
        weights = _read_safetensors(path)
    else:
        weights = _find_weights(path, _read_pickle(path, head))
    for prefix in _WRAPPER_PREFIXES * 2:  # either may stand inside the other
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    for name, tensor in weights.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise InputError(f"{path}: tensor {quote(name)} is sparse, quantised or has no data")
        if tensor.is_floating_point() and not bool(tensor.float().isfinite().all()):
            raise InputError(f"{path}: tensor {quote(name)} holds NaN or infinite values")
    return weights


def save_weights(network: nn.Module, path: Path) -> None:
    """Write the network's state dict as safetensors, whole or not at all.

    Names, shapes and types are the network's own. Tensors that share memory are written once each.

    Raises:
        InputError: the file cannot be written.
    """
    write_whole(Path(path), weights_bytes(network))


def weights_bytes(network: nn.Module) -> bytes:
    """What `save_weights` writes."""
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
    return safetensors.torch.save(tensors)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        weights = safetensors.torch.load_file(path)
    except Exception as error:  # the parser raises several kinds on damaged files
        raise InputError(f"{path} is no whole safetensors file: {describe(error)}") from error
    if not weights:
        raise InputError(f"{path} holds no tensors")
    return weights


def _read_pickle(path: Path, head: bytes) -> object:
    """What ``torch.save`` wrote, through the unpickler that knows tensors and plain values only."""
    if path.suffix.lower() == ".onnx" or head[:1] == b"\x08":  # a protobuf's first field
        raise InputError(f"{path} is an ONNX model: expected the weights of a PyTorch network")
    # Before torch 2.6, torch.load left the safe unpickler for these two kinds of archive.
    if _is_torchscript(path):
        raise InputError(
            f"{path} is a TorchScript archive, which carries code and is not loaded: {_SAVE_ADVICE}"
        )
    if tarfile.is_tarfile(path):
        raise InputError(f"{path} is a tar archive: unpack it and name the weights file inside")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_BOOKKEEPING):
            warnings.simplefilter("ignore")
            content: object = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise anything
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise InputError(
                f"{path} is a pickle that calls for {printable(found[1], 80)}, and loading it "
                f"could run any code: {_SAVE_ADVICE}"
            ) from error
        if head[:1] == b"\x80" and "Unsupported operand" in str(error):
            raise InputError(
                f"{path} is a pickle of something else than tensors, and loading it could run "
                f"any code: {_SAVE_ADVICE}"
            ) from error
        raise InputError(
            f"{path} is not a whole weights file: expected safetensors, or what torch.save makes "
            "of a state dict"
        ) from error
    return content


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False


def _find_weights(path: Path, content: object) -> dict[str, Tensor]:
    """The state dict itself, or the entry of a training checkpoint that is one."""
    if isinstance(content, Mapping):
        entries = [content, *(content[name] for name in _WEIGHT_ENTRIES if name in content)]
        for entry in [*entries, *content.values()]:
            if (
                isinstance(entry, Mapping)
                and entry
                and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in entry.items())
            ):
                return dict(entry)
        found = f"a dict with {list_names([str(name) for name in content])}"
    else:
        found = f"a {type(content).__name__}"
    raise InputError(f"{path} holds no weights: expected named tensors, found {found}")
