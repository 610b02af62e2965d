"""The models of a folder with all that is below it: a hub's mirror, a registry, a heap of files."""

import os
from dataclasses import dataclass
from pathlib import Path

from shapprune.checkpoints.source import SUFFIXES, WEIGHTS, weights_files
from shapprune.errors import InputError

_PICKLES = (".pkl", ".pickle", ".joblib")  # which may hold a model, or code for who loads it
# Models of other frameworks and wrappings, which a scan tells by their kind: each is a row with
# its error, since who looks for their models must not take them for examined.
_FOREIGN = (
    *(*_PICKLES, ".pt2", ".onnx", ".h5", ".hdf5", ".keras", ".gguf", ".ggml", ".tflite"),
    *(".pb", ".msgpack", ".mlmodel", ".caffemodel", ".pdparams", ".engine", ".plan"),
)


@dataclass(frozen=True)
class Listed:
    """A model that was found.

    Attributes:
        name: its path below the folder, which tells it from all others.
        weights: a file, or a Hugging Face folder.
        beside: weights files and pickles of such a folder that are no part of the model.
    """

    name: str
    weights: Path
    beside: tuple[str, ...] = ()


def find_models(folder: Path) -> tuple[list[Listed], int]:
    """Every weights file, and every Hugging Face folder as one model, in the order of the names;
    and how many other files there are, which by their names are no weights and are passed over.

    Links are followed, each folder once. Names that begin with a dot are passed over; below a
    Hugging Face folder, also the same model in the formats of other frameworks. A folder that
    cannot be read is listed as a model, to be told as one that could not be scanned.
    """
    found: list[Listed] = []
    others = 0
    seen: set[Path] = set()
    left = [(folder, False)]  # and whether it is below a Hugging Face folder
    while left:
        place, inside_hub = left.pop()
        name = place.relative_to(folder).as_posix() if place != folder else _own_name(folder)
        try:
            real = place.resolve()
            there = sorted(path for path in place.iterdir() if not path.name.startswith("."))
            folders = [path for path in there if path.is_dir()]
        except (OSError, RuntimeError):  # RuntimeError: a link that leads to itself, until 3.12
            found.append(Listed(name, place))
            continue
        if real in seen:
            continue
        seen.add(real)
        files = [path for path in there if path not in folders]
        if any(path.name in WEIGHTS for path in files):
            inside_hub = True
            found.append(Listed(name, place, lies_beside(place)))
        else:
            ends = SUFFIXES + (_PICKLES if inside_hub else _FOREIGN)
            mine = [path for path in files if path.suffix.lower() in ends]
            found += [Listed(path.relative_to(folder).as_posix(), path) for path in mine]
            others += len(files) - len(mine)
        left += [(path, inside_hub) for path in reversed(folders)]
    return found, others


def _own_name(folder: Path) -> str:
    """Its name, unless something inside has the same."""
    name = Path(os.path.realpath(folder)).name
    return "." if not name or os.path.lexists(folder / name) else name


def lies_beside(folder: Path) -> tuple[str, ...]:
    """The weights files and pickles of a Hugging Face folder that are no part of its model."""
    try:
        own = weights_files(folder)
        there = sorted(path for path in folder.iterdir() if not path.is_dir())
    except (InputError, OSError):  # the scan will say it
        return ()
    ends = SUFFIXES + _PICKLES
    return tuple(
        path.name
        for path in there
        if path.suffix.lower() in ends and path.name not in own and not path.name.startswith(".")
    )
