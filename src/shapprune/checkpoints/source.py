"""Where a network's weights come from, and how they go back: files, folders, the hub."""

import copy
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from shapprune.checkpoints.architectures import saved_names
from shapprune.checkpoints.metadata import Stated, stated_in_checkpoint, stated_in_config
from shapprune.checkpoints.state_dict import WeightsFile, read_weights_file
from shapprune.errors import InputError
from shapprune.utils.files import Fingerprint, fingerprint, read_json
from shapprune.utils.text import describe, list_names, quote

_INDEX = "model.safetensors.index.json"
_CONFIGS = ("config.json", "preprocessor_config.json")
_FETCHED = [*_CONFIGS, "*.safetensors", _INDEX]


@dataclass(frozen=True, eq=False)
class Source:
    """Weights with all that came with them.

    Attributes:
        weights: the named tensors, without the wrappers' prefixes.
        stated: what the source says of its network.
        notes: for the user.
        file: the file read; None for a folder.
        configs: a folder's small files by name.
        files: what was read, for the record.
    """

    weights: dict[str, Tensor]
    stated: Stated
    notes: tuple[str, ...]
    file: WeightsFile | None
    configs: Mapping[str, bytes]
    files: tuple[Fingerprint, ...] = ()

    def repaired(self, network: nn.Module) -> dict[str, bytes]:
        """Files with the network's weights: as safetensors, and in the layout that came in.

        Each tensor has the type that it had in the source, and the very bits if it is unchanged.

        Returns:
            ``repaired.safetensors``, and one of: ``repaired`` with the source's suffix, all other
            entries of the checkpoint as they were; ``model.safetensors`` beside its
            ``config.json``.
        """
        tensors = {
            name: _as_given(tensor, self.weights.get(name))
            for name, tensor in saved_names(network).items()
        }
        if self.file is None:
            data = safetensors.torch.save(tensors, metadata={"format": "pt"})
            return {"repaired.safetensors": data, "model.safetensors": data, **self.configs}
        prefix, metadata = self.file.prefix, self.file.metadata
        if metadata is not None:
            tensors = {prefix + name: tensor for name, tensor in tensors.items()}
            return {"repaired.safetensors": safetensors.torch.save(tensors, metadata=metadata)}
        buffer = BytesIO()
        torch.save(_replaced(self.file.content, self.file.keys, prefix, tensors), buffer)
        name = "repaired" + (self.file.suffix or ".pth")
        return {"repaired.safetensors": safetensors.torch.save(tensors), name: buffer.getvalue()}


def read_source(weights: str | Path) -> Source:
    """Read a weights file, a Hugging Face folder, or ``hf:ORG/NAME`` of the hub.

    A folder holds ``model.safetensors``, or shards named in ``model.safetensors.index.json``, and
    a ``config.json`` of timm's or transformers' kind if its network is not named otherwise.

    Raises:
        InputError: see `read_weights_file`; a folder without weights, shards that are missing or
            lie elsewhere, JSON that is none; a hub that cannot be reached.
    """
    if str(weights).startswith("hf:"):
        return _read_folder(_fetched(str(weights).removeprefix("hf:")))
    path = Path(weights)
    if path.is_dir():
        return _read_folder(path)
    if path.name.endswith(".index.json"):
        return _read_folder(path.parent)
    file = read_weights_file(path)
    notes = []
    if file.others:
        notes.append(
            f"the weights are those under {quote('.'.join(file.keys))}; others are left as they "
            f"are: {list_names(file.others)}"
        )
    stated = stated_in_checkpoint(file.content) if file.metadata is None else Stated()
    return Source(file.weights, stated, tuple(notes), file, {}, (fingerprint(path),))


def _read_folder(folder: Path) -> Source:
    names = _shards(folder) if (folder / _INDEX).is_file() else ["model.safetensors"]
    if not (folder / names[0]).is_file():
        raise InputError(f"{folder} is a folder without model.safetensors: expected a weights file")
    weights: dict[str, Tensor] = {}
    for name in names:
        part = read_weights_file(folder / name).content
        assert isinstance(part, Mapping)
        if twice := [key for key in part if key in weights]:
            raise InputError(f"{folder}: {quote(twice[0])} is in two shards")
        weights |= part
    configs = {name: (folder / name).read_bytes() for name in _CONFIGS if (folder / name).is_file()}
    stated = Stated()
    if "config.json" in configs:
        try:
            stated = stated_in_config(
                read_json(folder / "config.json"),
                read_json(folder / _CONFIGS[1]) if _CONFIGS[1] in configs else {},
            )
        except InputError as error:
            raise InputError(f"{folder}: {error}") from error
    read = tuple(fingerprint(folder / name) for name in (*names, *configs))
    return Source(weights, stated, (), None, configs, read)


def _shards(folder: Path) -> list[str]:
    places = read_json(folder / _INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise InputError(f"{folder / _INDEX} has no weight_map")
    names = sorted({str(name) for name in places.values()})
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise InputError(f"{folder / _INDEX} names {quote(name)}: expected files beside it")
        if not (folder / name).is_file():
            raise InputError(f"{folder} lacks the shard {quote(name)}")
    return names


def _fetched(name: str) -> Path:
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise InputError(
            f"hf:{name} needs huggingface_hub: pip install 'shapprune[hub]'"
        ) from error
    try:
        return Path(hub.snapshot_download(name, allow_patterns=_FETCHED))
    except Exception as error:  # the client raises its own, the network's and the system's
        raise InputError(
            f"cannot fetch hf:{name}: {describe(error)}; without a network, name a local folder"
        ) from error


def _as_given(tensor: Tensor, given: Tensor | None) -> Tensor:
    tensor = tensor.detach().cpu()
    if given is not None and given.dtype != tensor.dtype:
        tensor = given if torch.equal(given.to(tensor.dtype), tensor) else tensor.to(given.dtype)
    return tensor.clone(memory_format=torch.contiguous_format)


def _replaced(
    content: Any, keys: tuple[str, ...], prefix: str, tensors: Mapping[str, Tensor]
) -> Any:
    """A copy of a checkpoint with other weights in it."""
    fresh = copy.copy(content)  # an OrderedDict's copy keeps what torch hangs on it
    if keys:
        fresh[keys[0]] = _replaced(content[keys[0]], keys[1:], prefix, tensors)
    else:
        for name in content:
            if (plain := name.removeprefix(prefix)) in tensors:
                fresh[name] = tensors[plain]
    return fresh
