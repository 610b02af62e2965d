"""The files that a command leaves behind, as bytes."""

import json
from io import BytesIO

import numpy as np
from torch import Tensor

from shapprune.cli.inputs import Inputs, run_facts
from shapprune.cli.options import ModelOptions
from shapprune.model.classifier import Classifier
from shapprune.pipeline import RepairResult, ScanResult
from shapprune.reporting.html import render_report, suspected_triggers, trigger_picture
from shapprune.reporting.summary import summarise


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
