"""Weights in several files, as large models come: parts, and an index of which tensor is where.

Everything must agree: libraries differ in whether they go by the index or take all that the parts
hold, and what is examined has to be what any of them would load.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from shapprune.checkpoints.state_dict import read_of_folder
from shapprune.errors import InputError
from shapprune.utils.files import read_json
from shapprune.utils.text import quote

INDEX = ".index.json"
_PART = re.compile(r"-(\d{1,9})-of-(\d{1,9})\.(safetensors|bin)$", re.IGNORECASE)


def is_part(name: str) -> bool:
    """Whether a file holds a part of the weights, by its name.

    >>> is_part("model-00001-of-00002.safetensors"), is_part("model-00001-of-00001.safetensors")
    (True, False)
    """
    numbers = _PART.search(name)
    return numbers is not None and int(numbers[2]) != 1


def refuse_part(path: Path) -> None:
    """Raise an InputError if a file is one of several that only together are weights."""
    if is_part(path.name):
        raise InputError(
            f"{path} is one part of a model's weights: give the folder with all parts and their "
            f"index, {quote(str(path.absolute().parent))}"
        )


def part_names(index: Path) -> list[str]:
    """The files that an index names, all of which are there beside it, in the order of the names.

    Raises:
        InputError: it is no index, names files elsewhere or of another kind, or one is missing.
    """
    return sorted(_places(index))


def read_parts(index: Path) -> dict[str, Tensor]:
    """The weights of all parts together, under the names of the index.

    Raises:
        InputError: see `part_names` and `read_of_folder`; tensors that are not where the index
            says, or of which it says nothing.
    """
    weights: dict[str, Tensor] = {}
    for name, expected in sorted(_places(index).items()):
        file = read_of_folder(index.parent / name)
        part = {file.prefix + key: tensor for key, tensor in file.weights.items()}
        if twice := sorted(part.keys() & weights.keys()):
            raise InputError(f"{index.parent}: {quote(twice[0])} is in two parts")
        if absent := sorted(expected - part.keys()):
            raise InputError(
                f"{index.parent / name} lacks {quote(absent[0])}, which {index.name} names"
            )
        if unnamed := sorted(part.keys() - expected):
            what = f"holds {quote(unnamed[0])}, which {index.name} does not name there"
            raise InputError(f"{index.parent / name} {what}")
        weights |= part
    return weights


def _places(index: Path) -> dict[str, set[str]]:
    """The names of the tensors that each file holds, as the index says."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, Mapping) or not places:
        raise InputError(f"{index} has no weight_map")
    suffix = Path(index.name.removesuffix(INDEX)).suffix
    parts: dict[str, set[str]] = {}
    for key, name in places.items():
        beside = isinstance(name, str) and not set(name) & set("/\\\0") and name.endswith(suffix)
        if not beside or name == suffix:
            raise InputError(f"{index} names {quote(str(name))}: expected files beside it")
        parts.setdefault(name, set()).add(key)
    for name in sorted(parts):
        if not (index.parent / name).is_file():
            raise InputError(
                f"{index.parent} lacks the part {quote(name)}, which {index.name} names"
            )
    return parts
