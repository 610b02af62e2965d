"""The files that a command leaves behind, as bytes."""

import json
import os
from collections.abc import Iterable
from fnmatch import fnmatchcase
from io import BytesIO
from pathlib import Path

import numpy as np
from torch import Tensor

from shapprune.checkpoints.source import files_read
from shapprune.cli.inputs import Inputs, run_facts
from shapprune.cli.options import ModelOptions, RepairOptions, ScanOptions
from shapprune.errors import InputError
from shapprune.model.classifier import Classifier
from shapprune.pipeline import RepairResult, ScanResult
from shapprune.reporting.html import render_report
from shapprune.reporting.pictures import trigger_picture
from shapprune.reporting.sarif import sarif
from shapprune.reporting.summary import summarise
from shapprune.reporting.triggers import suspected_triggers

# Files that not every run leaves behind: an earlier one's are taken away. A scan takes no weights.
OF_A_SCAN = ("trigger_*.png",)
OF_A_REPAIR = (*OF_A_SCAN, "repaired.*")
_ALWAYS = ("report.html", "result.json")
_OF_A_FOLDER = ("model.safetensors", "*config.json")  # written where one was repaired


def check_places(options: ScanOptions | RepairOptions) -> None:
    """Before long work: whether the run would remove or replace what it examines or has written.

    Raises:
        InputError: it would; or what is examined is not there.
    """
    examined = files_read(options.weights)
    names = [*_ALWAYS, *(OF_A_REPAIR if isinstance(options, RepairOptions) else OF_A_SCAN)]
    is_file = examined == [Path(options.weights)] and not str(options.weights).startswith("hf:")
    if isinstance(options, RepairOptions) and not is_file:
        names += _OF_A_FOLDER
    check_apart(options.out, options.images, "--out")
    check_apart(options.sarif, options.images, "--sarif")
    if options.sarif and options.out and _is_among(options.sarif, names, options.out):
        raise InputError(f"{options.sarif} is one of the run's own files: name another for --sarif")
    code, _, _ = (options.arch or "").rpartition(":")
    given = [options.images, code if code.endswith(".py") else None]
    for file in (*examined, *(Path(one) for one in given if one)):
        if options.out and would_be_lost(file, names, options.out):
            raise InputError(f"{file} would be removed or replaced by the run: name another --out")
        if options.sarif and os.path.realpath(options.sarif) == os.path.realpath(file):
            raise InputError(f"{file} is what the run reads: name another file for --sarif")


def check_apart(written: Path | None, images: str | None, option: str) -> None:
    """Refuse to write into a folder of images, where the next run would take it for some of them.

    Args:
        written: a file or folder, if there is one.
        images: a folder, or what else names images.
        option: that names what is written.

    Raises:
        InputError: it lies there.
    """
    if written and images and os.path.isdir(images):  # of no name does this raise
        inside, folder = (Path(os.path.realpath(place)) for place in (written, images))
        if inside.is_relative_to(folder):
            raise InputError(f"{written} lies in --images {images}: name another {option}")


def would_be_lost(file: Path, names: Iterable[str], folder: Path) -> bool:
    """Whether a run that writes or removes names like these in a folder takes a file, or what it
    leads to: a link is lost with its target."""
    return any(_is_among(place, names, folder) for place in (file, Path(os.path.realpath(file))))


def _is_among(path: Path, names: Iterable[str], folder: Path) -> bool:
    """Whether a file lies in a folder under a name like one of these."""
    return os.path.realpath(path.parent) == os.path.realpath(folder) and any(
        fnmatchcase(path.name.lower(), name) for name in names
    )


def run_files(
    result: ScanResult | RepairResult, options: ModelOptions, inputs: Inputs
) -> dict[str, bytes]:
    """What a run leaves behind; result.json comes last, so that its presence means the rest's."""
    data, source, about = inputs.data, inputs.source, run_facts(options, inputs)
    files: dict[str, bytes] = {}
    if isinstance(result, RepairResult):
        assert isinstance(result.model, Classifier)
        files |= source.repaired(result.model.network)
    for target, stamp in suspected_triggers(result):
        files[f"trigger_{target}.png"] = trigger_picture(stamp)
    names = data.class_names
    page = render_report(
        result, images=data.images, labels=data.labels, about=about, class_names=names
    )
    files["report.html"] = page.encode()
    files["result.json"] = to_json(summarise(result, about=about, class_names=names))
    return files


def to_json(content: dict[str, object]) -> bytes:
    """A JSON file."""
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()


def to_npz(**tensors: Tensor) -> bytes:
    """An npz file."""
    buffer = BytesIO()
    np.savez(buffer, **{name: tensor.numpy() for name, tensor in tensors.items()})  # type: ignore[arg-type]
    return buffer.getvalue()


def sarif_file(
    result: ScanResult | RepairResult, options: ScanOptions | RepairOptions, inputs: Inputs
) -> dict[Path, bytes]:
    """The SARIF log, if one was asked for."""
    if not options.sarif:
        return {}
    weights = str(options.weights)
    here, place = Path.cwd(), Path(weights).absolute()
    if not weights.startswith("hf:"):
        weights = str(place.relative_to(here) if place.is_relative_to(here) else place)
    log = sarif(
        result,
        labels=inputs.data.labels,
        about=run_facts(options, inputs),
        class_names=inputs.data.class_names,
        weights=weights,
    )
    return {options.sarif: to_json(log)}
