"""Which models `scan-all` scans, and what is said of each: of a folder, or of a list.

A list is a JSON or CSV file that a user writes; all but ``weights`` may be left out. In JSON it is
a list of texts or objects, or a manifest of the bench, which has them under ``models``::

    ["a.pth", {"weights": "hf:ORG/NAME", "mean": [0.5, 0.5, 0.5], "std": 0.25}]

In CSV the first line names the fields, and several numbers stand with spaces between them::

    weights,arch,num_classes,input_size,mean,images
    nets/a.pth,nets.py:Small,10,3 32 32,0.49 0.48 0.45,clean.npz

The fields are those of `SETTINGS`, ``name``, which is that of the weights if it is left out, and
``data``, which is ``images`` below the manifest's ``data_root``. Files are relative to the list's.
"""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os.path import isdir
from pathlib import Path
from typing import Any

from shapprune.checkpoints.registry import find_models, lies_beside
from shapprune.cli.console import print_note
from shapprune.cli.options import ScanAllOptions
from shapprune.errors import InputError
from shapprune.utils.files import each_once, similar_file, unreadable
from shapprune.utils.text import describe, list_names, printable, quote, suggest

# Of a bench's manifest, for its scorer: nothing that a scan may know.
_OF_THE_SCORER = {
    *("backdoored", "attack_failed", "target", "source", "attack", "network", "group"),
    *("accuracy", "asr", "trigger"),
}


@dataclass(frozen=True)
class Entry:
    """A model and what is said of it.

    Attributes:
        name: tells it from the others.
        settings: fields of `ScanOptions`, ``weights`` among them.
        beside: see `Listed`.
    """

    name: str
    settings: Mapping[str, Any]
    beside: tuple[str, ...] = ()


def entries(options: ScanAllOptions) -> list[Entry]:
    """The models that the command names.

    Raises:
        InputError: there are none, or what is wrong with the list, in one line.
    """
    models = options.models
    if not models.is_dir():
        return _of_list(models)
    found, others = find_models(models)
    if others:
        print_note(f"note: files that by their names are no weights, not examined: {others}")
    if not found:
        raise InputError(f"{models} holds no weights files: expected a folder of models, or a list")
    return [Entry(one.name, {"weights": str(one.weights)}, one.beside) for one in found]


def _of_list(file: Path) -> list[Entry]:
    if file.suffix.lower() not in (".json", ".csv"):
        if not file.exists():
            raise InputError(f"no such file or folder: {file}{similar_file(file)}")
        raise InputError(f"{file} is no folder and no list: expected a .json or .csv file")
    try:
        text = file.read_text(encoding="utf-8-sig")
        listed, root = _of_csv(text) if file.suffix.lower() == ".csv" else _of_json(text)
    except OSError as error:
        raise unreadable(file, error) from error
    except (ValueError, RecursionError, csv.Error) as error:
        raise InputError(f"cannot read {file}: {describe(error)}") from error
    if not listed:
        hint = ": its first line must name the fields" if file.suffix.lower() == ".csv" else ""
        raise InputError(f"{file} names no models{hint}")
    found = [_entry(one, file, file.parent / root) for one in listed]
    names = [entry.name for entry in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{file}: two models are called {quote(twice[0])}: give each a name")
    return found


def _of_json(text: str) -> tuple[list[Any], str]:
    content: Any = json.loads(text, object_pairs_hook=each_once)
    root = ""
    if isinstance(content, dict):
        content, root = content.get("models"), str(content.get("data_root") or "")
    if not isinstance(content, list):
        raise ValueError('expected a list of models, or {"models": [...]}')
    return content, root


def _of_csv(text: str) -> tuple[list[Any], str]:
    rows = list(csv.DictReader(text.splitlines(), strict=True, skipinitialspace=True))
    if any(None in row or None in row.values() for row in rows):
        raise ValueError("a line has more or fewer fields than the first one names")
    said = [{field: value for field, value in row.items() if value} for row in rows]
    return [{field: _of_text(field, value) for field, value in row.items()} for row in said], ""


def _of_text(field: str, value: str) -> object:
    if field not in ("num_classes", "per_class", "input_size", "mean", "std"):
        return value
    try:
        numbers = [float(word) if field in ("mean", "std") else int(word) for word in value.split()]
    except ValueError:
        return value  # which is then told with what was expected
    return numbers[0] if len(numbers) == 1 else numbers


def _entry(said: object, file: Path, root: Path) -> Entry:
    if not isinstance(said, str | dict):
        raise InputError(f"{file}: a model must be an object or the name of its file, got {said!r}")
    given: dict[str, Any] = {"weights": said} if isinstance(said, str) else said
    facts = {name: v for name, v in given.items() if v is not None and name not in _OF_THE_SCORER}
    name = facts.pop("name", facts.get("weights"))
    if not isinstance(name, str) or not name:
        what = "a name must be" if "name" in given else "a model needs weights,"
        there = (
            f" among {list_names([str(one) for one in given])}" if "weights" not in given else ""
        )
        raise InputError(f"{file}: {what} a text, got {printable(repr(name), 60)}{there}")
    folder = file.parent
    if "data" in facts:
        facts["images"] = _below(root, facts.pop("data"))
    elif "images" in facts:
        facts["images"] = _below(folder, facts["images"])
    checked = _checked(facts, name, file)
    if "weights" not in checked:
        raise InputError(f"{file}: weights of {quote(name)} must be a text, got nothing")
    weights, arch = checked["weights"], checked.get("arch")
    if arch and arch.rpartition(":")[0].endswith(".py"):
        checked["arch"] = str(folder / arch)
    if weights.startswith("hf:"):
        return Entry(name, checked)
    place = folder / weights
    checked["weights"] = str(place)
    # Unlike Path.is_dir, this raises of no name: what is wrong with a place its own scan tells.
    return Entry(name, checked, lies_beside(place) if isdir(place) else ())


def _below(folder: Path, images: Any) -> Any:
    """Images by their file; what names a known set stays as it is, and so does no name at all."""
    named = isinstance(images, str) and images and ":" not in images
    return str(folder / images) if named else images


def _checked(facts: Mapping[str, Any], name: str, file: Path) -> dict[str, Any]:
    """The settings, in the types of `ScanOptions`."""
    checked: dict[str, Any] = {}
    for field, value in facts.items():
        if field not in SETTINGS:
            meant = suggest(field, SETTINGS) or f": known are {', '.join(SETTINGS)}"
            raise InputError(f"{file}: {quote(name)} has a field {quote(field)}{meant}")
        expected, read = SETTINGS[field]
        if value is None:
            continue
        checked[field] = read(value)
        if checked[field] is None:
            raise InputError(
                f"{file}: {field} of {quote(name)} must be {expected}, got "
                f"{printable(repr(value), 60)}"
            )
    return checked


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _whole(least: int) -> Callable[[Any], int | None]:
    def read(value: Any) -> int | None:
        return value if type(value) is int and value >= least else None

    return read


def _numbers(value: Any) -> tuple[float, ...] | None:
    several: Sequence[Any] = value if isinstance(value, list) and value else [value]
    fit = all(type(one) in (int, float) for one in several)
    return tuple(map(float, several)) if fit else None


def _size(value: Any) -> tuple[int, ...] | None:
    fit = isinstance(value, list) and len(value) == 3 and all(map(_whole(1), value))
    return tuple(value) if fit else None


# What a list can say of a model: what is expected, and how it is read, None where it does not fit.
SETTINGS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "weights": ("a text", _text),
    "entry": ("a text", _text),
    "arch": ("a text", _text),
    "num_classes": ("a whole number from 2", _whole(2)),
    "mean": ("a number or several", _numbers),
    "std": ("a number or several", _numbers),
    "images": ("a text", _text),
    "per_class": ("a whole number from 1", _whole(1)),
    "input_size": ("three numbers C H W", _size),
}
