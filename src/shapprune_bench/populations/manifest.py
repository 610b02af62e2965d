"""Manifests: which models a folder holds, how to load them, and what is true of them.

A manifest is a JSON file that a user can write by hand for models of their own::

    {
     "format": 1,
     "data_root": "../data",
     "models": [
      {
       "name": "mine-3",
       "weights": "mine-3.safetensors",
       "arch": "nets.py:Net?width=32",
       "num_classes": 10,
       "input_size": [3, 32, 32],
       "mean": [0.49, 0.48, 0.45],
       "std": 0.25,
       "data": "cifar10.npz",
       "backdoored": true,
       "target": 7
      }
     ]
    }

For each model:

- ``name``: unique in the file.
- ``weights``: see `load_classifier`; relative to the manifest's folder.
- ``arch``: see `build_network`; a ``file.py`` is relative to the manifest's folder.
- ``num_classes``; ``input_size`` (C, H, W), or null for that of the data's first image; ``mean``
  and ``std``, null for a network that takes images in [0, 1].
- ``data``: where clean images come from, see `load_images`: a file or folder below ``data_root``,
  or null where there are none. ``data_root`` is relative to the manifest's folder, and that folder
  if it is left out.
- ``backdoored``: whether it is. If so, ``target``: a class, a list of classes that are all
  targets, or "y+1" for all-to-all; else null. ``source``: the only class that is moved, or null.
- ``attack_failed``: the model was poisoned, but its attack does not work: it counts neither as
  backdoored nor as clean. False if left out.
- ``attack``, ``network``: words to sort results by; ``group``: models of a group are siblings, and
  are never on both sides of a split. By default each is a group of its own.
- ``accuracy``, ``asr``: ACC and ASR in [0, 1]; ``trigger``: a file that `attacked_images` reads,
  for the scorer of repairs. Null or left out where unknown.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeGuard

from shapprune.checkpoints.loading import load_classifier
from shapprune.errors import InputError
from shapprune.model.classifier import Classifier
from shapprune.utils.files import unreadable
from shapprune.utils.text import describe, quote, suggest

FORMAT = 1
NAME = "population.json"
_MOST_NAME, _HUGE = 120, 1e30
_TRIGGERS = ("trigger.npz", "samples.npz")  # of a sub-folder

TrueTarget: TypeAlias = int | tuple[int, ...] | Literal["y+1"] | None


@dataclass(frozen=True)
class Specimen:
    """A model of a manifest, and what only the scorer may know of it; see the module.

    Attributes:
        name: unique in its manifest.
        weights: file or folder.
        arch: see `build_network`; with the whole path where it is a file.
        num_classes: classes that it tells apart.
        input_size: (C, H, W); None: as the first image is.
        mean, std: of the images it was trained on; None: it takes images in [0, 1].
        data: of clean images, see `load_images`; None: there are none.
        backdoored: true also where the attack failed.
        attack_failed: neither backdoored nor clean: not to be counted.
        target: a class, several, "y+1" or, if it is not backdoored, None.
        source: the only class that is moved, if there is one.
        attack, network: words to sort by; the attack of a clean model is None.
        group: siblings share it.
        accuracy, asr: in [0, 1], where known.
        trigger: the attacker's, where known.
    """

    name: str
    weights: Path
    arch: str
    num_classes: int
    input_size: tuple[int, int, int] | None
    mean: float | tuple[float, ...] | None
    std: float | tuple[float, ...] | None
    data: str | None
    backdoored: bool
    attack_failed: bool
    target: TrueTarget
    source: int | None
    attack: str | None
    network: str
    group: str
    accuracy: float | None
    asr: float | None
    trigger: Path | None

    @property
    def files(self) -> list[Path]:
        """Those that it is read from, and its images."""
        code = self.arch.rpartition(":")[0]
        named = [code if code.endswith(".py") else None, self.trigger]
        named.append(self.data if self.data and ":" not in self.data else None)
        return [self.weights, *(Path(file) for file in named if file)]

    def load(self) -> Classifier:
        """The model, in eval mode, on the CPU.

        Raises:
            InputError: see `load_classifier`.
        """
        return load_classifier(
            self.weights,
            arch=self.arch,
            num_classes=self.num_classes,
            mean=self.mean,
            std=self.std,
        )


def read_manifest(path: Path, *, data_root: Path | None = None) -> list[Specimen]:
    """The models of a manifest, or of a folder.

    Args:
        path: a manifest; a folder with `NAME`; or a folder with a sub-folder a model, which holds
            ``model.safetensors`` and ``case.json``: that has the fields of a manifest, but no name
            and no weights. There ``arch`` names a class of ``arch.py`` beside the sub-folders,
            ``data`` an npz file without its ending, ``trigger`` stands for ``attack``, and names
            with the same first word (before the first "_") are a group. The attacker's trigger
            is ``trigger.npz`` or ``samples.npz`` beside the model, see `attacked_images`.
        data_root: the folder of the data, instead of the manifest's; a folder of sub-folders has
            ``data`` beside it.

    Raises:
        InputError: no manifest there, or what is wrong with it, in one line.
    """
    if path.is_dir() and not (path / NAME).exists():
        return _read_cases(path, data_root or path.parent / "data")
    file = path / NAME if path.is_dir() else path
    content = _json(file)
    if content.get("format") != FORMAT or not isinstance(content.get("models"), list):
        raise InputError(f"{file} is no manifest: expected format {FORMAT} and a list of models")
    if not content["models"]:
        raise InputError(f"{file} lists no models")
    _check_names(content, ("format", "data_root", "models"), f"{file} has")
    for entry in content["models"]:
        if isinstance(entry, dict):
            known = [field.name for field in fields(Specimen)]
            _check_names(entry, known, f"{file}: a model has")
    root = data_root or file.parent / str(content.get("data_root") or "")
    found = [_specimen(entry, file.parent, root, str(file)) for entry in content["models"]]
    return _distinct(found, file)


def _check_names(content: Mapping[str, Any], known: Sequence[str], has: str) -> None:
    """A field that is misspelt would be taken for one that was left out."""
    for name in content:
        if name not in known:
            meant = suggest(name, known) or f": known are {', '.join(known)}"
            raise InputError(f"{has} a field {quote(name)}{meant}")


def _read_cases(folder: Path, root: Path) -> list[Specimen]:
    found = []
    for file in sorted(folder.glob("*/case.json")):
        case, name = _json(file), file.parent.name
        facts = {
            "group": name.partition("_")[0],
            "attack": case.get("trigger") if case.get("backdoored") else None,
            "network": case.get("arch"),
            **case,
            "name": name,
            "weights": f"{name}/model.safetensors",
            "arch": f"arch.py:{case.get('arch')}",
            "data": f"{case['data']}.npz" if case.get("data") else None,
            "trigger": next((f"{name}/{f}" for f in _TRIGGERS if (file.parent / f).exists()), None),
        }
        found.append(_specimen(facts, folder, root, str(file)))
    if not found:
        raise InputError(f"{folder} has neither {NAME} nor sub-folders with model and case.json")
    return found


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(file, error) from error
    except ValueError as error:
        raise InputError(f"{file} is no JSON: {describe(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} must hold an object, got a {type(content).__name__}")
    return content


def _specimen(entry: object, folder: Path, root: Path, where: str) -> Specimen:
    if not isinstance(entry, dict):
        raise InputError(f"{where}: a model must be an object, got {entry!r}")
    facts: Mapping[str, Any] = entry
    _check(facts, where)
    name, size = facts["name"], facts.get("input_size")
    data, trigger = facts.get("data"), facts.get("trigger")
    return Specimen(
        name=name,
        weights=folder / facts["weights"],
        arch=_arch(facts["arch"], folder),
        num_classes=facts["num_classes"],
        input_size=tuple(size) if size else None,
        mean=_tuple(facts.get("mean")),
        std=_tuple(facts.get("std")),
        data=data if not data or ":" in data else str(root / data),
        backdoored=facts["backdoored"],
        attack_failed=facts.get("attack_failed", False),
        target=_tuple(facts.get("target")),
        source=facts.get("source"),
        attack=facts.get("attack"),
        network=facts.get("network") or facts["arch"],
        group=facts.get("group") or name,
        accuracy=facts.get("accuracy"),
        asr=facts.get("asr"),
        trigger=folder / trigger if trigger else None,
    )


def _check(facts: Mapping[str, Any], where: str) -> None:
    """Raise an InputError about the first field that is not what it must be."""
    name = str(facts.get("name") or "?")

    def wrong(field: str, expected: str) -> InputError:
        return InputError(
            f"{where}: {field} of {name} must be {expected}, got {facts.get(field)!r}"
        )

    for field in ("name", "weights", "arch"):
        if not isinstance(facts.get(field), str) or not facts[field]:
            raise wrong(field, "a text")
    if len(name) > _MOST_NAME:  # it is part of files' names
        raise wrong("name", f"a text of at most {_MOST_NAME} letters")
    classes: Any = facts.get("num_classes")
    if not _is_class(classes) or classes < 2:
        raise wrong("num_classes", "a whole number from 2")
    for field in ("backdoored", "attack_failed"):
        if not isinstance(facts.get(field, False), bool):
            raise wrong(field, "true or false")
    if "backdoored" not in facts:
        raise wrong("backdoored", "true or false")
    target, source = facts.get("target"), facts.get("source")
    several = target if isinstance(target, list) else [target]
    known = target == "y+1" or (
        bool(several) and all(_is_class(one) and one < classes for one in several)
    )
    if not (known if facts["backdoored"] else target is None):
        one = f'a class below {classes}, a list of such or "y+1"'
        raise wrong("target", one if facts["backdoored"] else "null of a clean model")
    if source is not None and not (_is_class(source) and source < classes and known):
        raise wrong("source", f"a class below {classes} of a backdoored model, or null")
    size = facts.get("input_size")
    if size is not None and not (
        isinstance(size, list) and len(size) == 3 and all(_is_class(n) and n for n in size)
    ):
        raise wrong("input_size", "[C, H, W] or null")
    for field, least in (("mean", -_HUGE), ("std", 0)):
        value = facts.get(field)
        several = value if isinstance(value, list) and value else [value]
        if value is not None and not all(_is_number(one) and least < one for one in several):
            one = f"a finite number{' above 0' if field == 'std' else ''}"
            raise wrong(field, f"{one}, a list of such or null")
    if (facts.get("mean") is None) != (facts.get("std") is None):
        raise InputError(f"{where}: mean and std of {name} go together: give both, or none")
    for field in ("accuracy", "asr"):
        value = facts.get(field)
        if value is not None and not (_is_number(value) and 0 <= value <= 1):
            raise wrong(field, "a share in [0, 1] or null")
    for field in ("data", "attack", "network", "group", "trigger"):
        if not isinstance(facts.get(field) or "", str):
            raise wrong(field, "a text or null")


def _arch(spec: str, folder: Path) -> str:
    source, colon, name = spec.rpartition(":")
    return f"{folder / source}{colon}{name}" if source.endswith(".py") else spec


def _is_class(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _HUGE


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _distinct(found: Sequence[Specimen], file: Path) -> list[Specimen]:
    names: set[str] = set()
    for specimen in found:
        if specimen.name in names:
            raise InputError(f"{file}: two models are called {specimen.name}")
        names.add(specimen.name)
    return list(found)
