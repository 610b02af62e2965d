"""A compact network as two files, and back by one call."""

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from shapprune.checkpoints.architectures import build_network
from shapprune.checkpoints.loading import fill_network
from shapprune.checkpoints.state_dict import read_weights
from shapprune.errors import InputError
from shapprune.model.classifier import Classifier
from shapprune.model.compact import Compact, Cuts, take_away
from shapprune.utils.files import read_json, write_folder
from shapprune.utils.text import quote

WEIGHTS, SHAPES = "compact.safetensors", "compact.json"
_KIND = "shapprune compact network, version 1"
_WRAPPER = "network."  # what stands before the names of a `Classifier`'s network


def compact_files(compact: Compact, *, like: Mapping[str, Tensor]) -> dict[str, bytes]:
    """``compact.safetensors`` with the weights, and ``compact.json`` that tells what is gone.

    Args:
        like: tensors by name, of the types that those written are to have; others keep theirs.
    """
    model = compact.model
    network = model.network if isinstance(model, Classifier) else model
    prefix = _WRAPPER if isinstance(model, Classifier) else ""
    tensors = {
        name: tensor.detach()
        .to("cpu", like.get(name, tensor).dtype)
        .clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
    content = {
        "kind": _KIND,
        "mean": model.mean.flatten().tolist() if isinstance(model, Classifier) else [0.0],
        "std": model.std.flatten().tolist() if isinstance(model, Classifier) else [1.0],
        "parameters": compact.parameters,
        "multiply_accumulates": compact.operations,
        "removed": {
            name.removeprefix(prefix): {str(dim): sorted(some) for dim, some in dims.items()}
            for name, dims in compact.cuts.items()
        },
    }
    return {
        WEIGHTS: safetensors.torch.save(tensors),
        SHAPES: (json.dumps(content, indent=1) + "\n").encode(),
    }


def save_compact(compact: Compact, folder: str | Path) -> None:
    """Write `compact_files` into a folder, made if need be; types are the network's own.

    Raises:
        InputError: it is no compact network, or the folder cannot be written.
    """
    if not isinstance(compact, Compact):
        raise InputError(f"expected what make_compact makes, got a {type(compact).__name__}")
    write_folder(Path(folder), compact_files(compact, like={}), stale=())


def load_compact(
    folder: str | Path, *, arch: str | nn.Module, num_classes: int | None = None
) -> Classifier:
    """A compact network from its folder, on the CPU, in eval mode.

    The original architecture is built, narrowed as ``compact.json`` says, and filled from
    ``compact.safetensors``; all names and shapes must fit. torch-pruning is not needed.

    Args:
        folder: with both files, as ``repair --compact`` writes it.
        arch: see `build_network`; or a network of the original architecture, which is left as it
            was.
        num_classes: needed with the name of an architecture.

    Raises:
        InputError: a file that is missing or damaged, what does not fit the architecture.
    """
    stated = read_json(Path(folder) / SHAPES)
    if isinstance(arch, str):
        if num_classes is None:
            raise InputError("num_classes must tell how many classes the architecture is built for")
        network, name = build_network(arch, num_classes), arch
    else:
        network, name = deepcopy(arch), type(arch).__name__
    try:
        if stated.get("kind") != _KIND:
            raise InputError(f"expected kind {_KIND!r}, got {quote(str(stated.get('kind')))}")
        cuts = _cuts(stated.get("removed"), network.state_dict())
        mean, std = _numbers(stated, "mean"), _numbers(stated, "std")
    except InputError as error:
        raise InputError(f"{Path(folder) / SHAPES}: {error}") from error
    network = take_away(network, cuts)
    fill_network(network, read_weights(Path(folder) / WEIGHTS), spec=name, num_classes=num_classes)
    return Classifier(network, mean, std).eval()


def _cuts(removed: Any, own: Mapping[str, Tensor]) -> Cuts:
    """What the JSON says, checked against the tensors of the architecture."""
    if not isinstance(removed, dict) or not all(isinstance(d, dict) for d in removed.values()):
        raise InputError('"removed" must be a dictionary of tensors, of dimensions')
    cuts: dict[str, dict[int, frozenset[int]]] = {}
    for name, dims in removed.items():
        if name not in own:
            raise InputError(f"the architecture has no tensor {quote(name)}")
        for dim, indices in dims.items():
            if dim not in map(str, range(own[name].ndim)):
                raise InputError(f"{quote(name)} has no dimension {quote(dim)}")
            size = own[name].shape[int(dim)]
            if not isinstance(indices, list) or not all(
                type(i) is int and 0 <= i < size for i in indices
            ):
                raise InputError(f"{quote(name)} must lose indices in 0 .. {size - 1}")
            if len(set(indices)) >= size:
                raise InputError(f"{quote(name)} must keep something")
            cuts.setdefault(name, {})[int(dim)] = frozenset(indices)
    return cuts


def _numbers(stated: Mapping[str, Any], key: str) -> list[float]:
    values = stated.get(key)
    if not isinstance(values, list) or not all(type(v) in (int, float) for v in values):
        raise InputError(f'"{key}" must be a list of numbers')
    return values
