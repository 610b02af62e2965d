"""Where a network's weights come from, and how they go back: files, folders, the hub."""

import importlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from shapprune.checkpoints.architectures import saved_names
from shapprune.checkpoints.averages import Copies, find_copies, in_type_of, rewritten
from shapprune.checkpoints.entries import entry_notes
from shapprune.checkpoints.kinds import foreign_folder
from shapprune.checkpoints.metadata import Stated, stated_in_checkpoint, stated_in_config
from shapprune.checkpoints.naming import Match, is_normalisation, match, own_normalisation
from shapprune.checkpoints.shards import INDEX, is_part, part_names, read_parts, refuse_part
from shapprune.checkpoints.state_dict import WeightsFile, read_of_folder, read_weights_file
from shapprune.errors import InputError
from shapprune.utils.files import Fingerprint, fingerprint, read_json, unreadable
from shapprune.utils.text import describe, list_names, quote

# As transformers and timm choose, best first.
WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".th", ".ckpt", ".tar")
_CONFIGS = ("config.json", "preprocessor_config.json", "processor_config.json")
_FETCHED = [*_CONFIGS, "*.safetensors", "model.safetensors.index.json"]
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_PICKLED = ["pytorch_model*.bin", "pytorch_model.bin.index.json"]  # only where there is no other


@dataclass(frozen=True, eq=False)
class Source:
    """Weights with all that came with them.

    Attributes:
        weights: the named tensors, without the wrappers' prefixes.
        stated: what the source says of its network.
        notes: for the user.
        file: the file read; None for a folder.
        configs: a folder's small files by name.
        inner: of a folder whose weights are one file, that file.
        files: what was read, for the record.
    """

    weights: dict[str, Tensor]
    stated: Stated
    notes: tuple[str, ...]
    file: WeightsFile | None
    configs: Mapping[str, bytes]
    files: tuple[Fingerprint, ...] = ()
    inner: WeightsFile | None = None
    _found: dict[tuple[tuple[str, str], ...], Copies] = field(default_factory=dict, init=False)

    @property
    def entry(self) -> str | None:
        """Where in the file the weights are, see `find_weights`; None for a folder or a file that
        holds them alone."""
        if self.file is None:
            return None
        place = ".".join((*self.file.keys, self.file.prefix.strip("."))).strip(".")
        below = any(other.startswith(f"{place}.") for other in self.file.others)
        return f"{place}." if below else place or ("." if self.file.others else None)

    def match(self, network: nn.Module) -> Match:
        """Which of the weights are the network's."""
        return match(saved_names(network), self.weights)

    def copies(self, network: nn.Module) -> Copies | None:
        """All copies of the network's weights in the file; None where these are in parts."""
        file = self.file or self.inner
        if file is None:
            return None
        names = self.match(network).names
        own = {name: self.weights[given] for name, given in names.items()}
        inside_file = {name: file.prefix + given for name, given in names.items()}
        asked = tuple(inside_file.items())  # thrice in a run, and dear where a file holds much
        if asked not in self._found:
            self._found[asked] = find_copies(file.content, file.keys, own, inside_file)
        return self._found[asked]

    def notes_on(self, network: nn.Module) -> tuple[str, ...]:
        """For the user: how the weights were fitted to the network, and what else is there."""
        found, notes = self.match(network), []
        if found.prefix:
            notes.append(f"the weights' names begin with {quote(found.prefix)}")
        elif found.prefix is None:
            notes.append("the weights were found each by the end of its name and its shape")
        ignored = list(found.ignored)
        if own_normalisation(ignored, self.weights) and self.stated.mean is None:
            ignored = [name for name in ignored if not is_normalisation(name)]
            notes.append("the file's own mean and std are used, unless --mean or --std is given")
        if ignored:
            notes.append(f"tensors that the network lacks are ignored: {list_names(ignored)}")
        if found.copies:
            notes.append(
                f"examined is one of several sets of weights, not {list_names(list(found.copies))}"
                + (": --entry NAME examines these" if self.file else "")
            )
        copies, file = self.copies(network), self.file or self.inner
        if copies and file:
            told = file.others
            notes += copies.notes(told) if self.file else copies.warnings(told, named=False)
        return tuple(notes)

    def facts(self, network: nn.Module) -> dict[str, object]:
        """Which weights of a file are meant, and what else it holds, for result.json."""
        copies = self.copies(network)
        if copies is None or self.file is None:
            return {}
        return {
            "entry": self.entry,
            "copies": [*copies.averages],
            "left_out_if_repaired": [*copies.removed],
        }

    def repaired(self, network: nn.Module) -> dict[str, bytes]:
        """Files with the network's weights: as safetensors, and in the layout that came in.

        Each tensor has the type that it had in the source, and the very bits if it is unchanged.
        Other copies of the weights in a checkpoint get them, too, see `copies`, unless nothing has
        changed.

        Returns:
            ``repaired.safetensors``, and one of: ``repaired`` with the source's suffix, all other
            entries of the checkpoint as they were; ``model.safetensors`` beside its
            ``config.json``.
        """
        names = self.match(network).names
        before = {name: self.weights[given] for name, given in names.items()}
        tensors = {
            name: in_type_of(before.get(name), tensor)
            for name, tensor in saved_names(network).items()
        }
        if self.file is None:
            data = safetensors.torch.save(tensors, metadata={"format": "pt"})
            return {"repaired.safetensors": data, "model.safetensors": data, **self.configs}
        content, copies = self.file.content, self.copies(network)
        assert copies is not None
        if any(not torch.equal(tensors[name], before[name]) for name in before):
            content = rewritten(content, copies, tensors)
        if self.file.metadata is not None:
            assert isinstance(content, dict)
            data = safetensors.torch.save(content, metadata=self.file.metadata)
            return {"repaired.safetensors": data}
        buffer = BytesIO()
        torch.save(content, buffer)
        name = "repaired" + (self.file.suffix or ".pth")
        return {"repaired.safetensors": safetensors.torch.save(tensors), name: buffer.getvalue()}


def read_source(weights: str | Path, *, entry: str | None = None) -> Source:
    """Read a weights file, a Hugging Face folder, or ``hf:ORG/NAME`` of the hub.

    A folder holds ``model.safetensors`` or ``pytorch_model.bin``, or parts named in an index
    beside them (which may stand in the folder's place), and a ``config.json`` of timm's or
    transformers' kind if its network is not named otherwise.

    Args:
        entry: which weights of a checkpoint, see `read_weights_file`.

    Raises:
        InputError: see `read_weights_file`; a folder without weights, parts that are missing, lie
            elsewhere or do not agree with their index, one part alone, JSON that is none; a hub
            that cannot be reached.
    """
    path = Path(weights)
    if str(weights).startswith("hf:"):
        path = _fetched(str(weights).removeprefix("hf:"))
    if path.is_dir() or path.name.endswith(INDEX):
        if entry is not None:
            raise InputError(f"{path} is a folder: entry picks among the weights of one file")
        try:
            return _read_folder(path) if path.is_dir() else _read_folder(path.parent, path.name)
        except OSError as error:
            raise unreadable(path, error) from error
    if _HUB_NAME.fullmatch(str(weights)) and not path.parent.exists():
        raise InputError(f"no such file: {path}: a model of the hub is named hf:{path}")
    refuse_part(path)
    file = read_weights_file(path, entry)
    notes = tuple(entry_notes(file.keys, file.others, asked=entry is not None))
    stated = stated_in_checkpoint(file.content) if file.metadata is None else Stated()
    return Source(file.weights, stated, notes, file, {}, (fingerprint(path),))


def _read_folder(folder: Path, index: str | None = None) -> Source:
    first, notes = (index, ()) if index else _first(folder)
    file, inner = folder / first, None
    if first.endswith(INDEX):
        names, weights = part_names(file), read_parts(file)
    else:
        inner = read_of_folder(file)
        names, weights = [first], inner.weights
        notes = (*notes, *entry_notes(inner.keys, inner.others, asked=None))
    configs = {name: (folder / name).read_bytes() for name in _CONFIGS if (folder / name).is_file()}
    stated = Stated()
    if "config.json" in configs:
        try:
            stated = stated_in_config(
                read_json(folder / "config.json"),
                _preprocessor(folder, configs),
            )
        except InputError as error:
            raise InputError(f"{folder}: {error}") from error
    files = tuple(fingerprint(folder / name) for name in (*names, *configs))
    return Source(weights, stated, notes, None, configs, files, inner)


def _preprocessor(folder: Path, names: Iterable[str]) -> Mapping[str, Any]:
    """The image processor's configuration, which may stand in that of a processor of several."""
    if _CONFIGS[1] in names:
        return read_json(folder / _CONFIGS[1])
    inner = read_json(folder / _CONFIGS[2]).get("image_processor") if _CONFIGS[2] in names else {}
    return inner if isinstance(inner, Mapping) else {}


def files_read(weights: str | Path) -> list[Path]:
    """The local files that `read_source` reads, which need not be there.

    Raises:
        InputError: see `weights_files`.
    """
    path = Path(weights)
    try:
        if path.name.endswith(INDEX):
            folder, first = path.parent, path.name
        elif path.is_dir():
            folder, first = path, _first(path)[0]
        else:
            return [path]
        names = [first, *(part_names(folder / first) if first.endswith(INDEX) else ())]
        configs = [name for name in _CONFIGS if (folder / name).is_file()]
    except OSError as error:
        raise unreadable(path, error) from error
    return [folder / name for name in (*names, *configs)]


def weights_files(folder: Path) -> list[str]:
    """The files that a Hugging Face library would load.

    Raises:
        InputError: there are none, or an index whose parts are not all there.
    """
    first, _ = _first(folder)
    return part_names(folder / first) if first.endswith(INDEX) else [first]


def _first(folder: Path) -> tuple[str, tuple[str, ...]]:
    """The weights file or index that a library would begin with, and what to know of the others."""
    there = [name for name in WEIGHTS if (folder / name).is_file()]
    if not there:
        return _unusual(folder), ()
    first, *others = there
    if not others:
        return first, ()
    note = (
        f"examined is {quote(first)} alone: {list_names(others)} beside it may hold other weights, "
        "and goes without a repair"
    )
    return first, (note,)


def _unusual(folder: Path) -> str:
    """The one weights file or index of a folder where no library would look for it."""
    if advice := foreign_folder(folder):
        raise InputError(f"{folder} {advice}")
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    indices = [name for name in files if name.endswith(INDEX)]
    others = [name for name in files if Path(name).suffix in SUFFIXES]
    if len(indices) == 1:
        parts = part_names(folder / indices[0])
        others = [indices[0], *(name for name in others if name not in parts)]
    elif any(map(is_part, others)):
        raise InputError(
            f"{folder} holds parts of a model's weights without their index: expected a file such "
            "as model.safetensors.index.json beside them"
        )
    if len(others) == 1:
        return others[0]
    found = f": name one of its files, {list_names(others)}" if others else ""
    raise InputError(
        f"{folder} is a folder without model.safetensors or pytorch_model.bin: expected a "
        f"weights file{found}"
    )


def _fetched(name: str) -> Path:
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise InputError(
            f"hf:{name} needs huggingface_hub: pip install 'shapprune[hub]'"
        ) from error
    try:
        folder = Path(hub.snapshot_download(name, allow_patterns=_FETCHED))
        if not any((folder / weights).is_file() for weights in WEIGHTS):
            folder = Path(hub.snapshot_download(name, allow_patterns=[*_FETCHED, *_PICKLED]))
    except Exception as error:  # the client raises its own, the network's and the system's
        raise InputError(
            f"cannot fetch hf:{name}: {describe(error)}; without a network, name a local folder"
        ) from error
    return folder
