"""A result as plain numbers and words: what result.json holds."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from math import isinf, isnan

import torch
from torch import nn

from shapprune.compact import Compact
from shapprune.mending import Repair
from shapprune.models import Classifier
from shapprune.pipeline import RepairResult, ScanResult
from shapprune.proxies import Proxies
from shapprune.stamps import Trigger
from shapprune.triggers import InvertedTrigger, Kind


def summarise(
    result: ScanResult | RepairResult,
    *,
    about: Mapping[str, object],
    class_names: Sequence[str] | None,
) -> dict[str, object]:
    """A result as a dictionary that JSON can hold.

    Shares are in [0, 1]. JSON has no infinity: an infinite number becomes the string "Infinity",
    which ``float`` reads, and NaN becomes None.

    Args:
        about: the run's inputs; its entries stand beside the result's, which win.
        class_names: in the order of the labels, None where they are not known.
    """
    scan = result.scan if isinstance(result, RepairResult) else result
    passes = [stage.passes for stage in result.stages if stage.passes is not None]
    facts: dict[str, object] = {
        "verdict": scan.verdict,
        "target_classes": scan.targets,
        "anomaly_index": scan.anomaly_index,
        "bound": scan.detection.bound,
        "norms": scan.detection.norms,
        "indices": scan.detection.indices,
        "class_names": class_names,
        "accuracy": scan.accuracy,
        "recovered": {
            "images": len(scan.recovered.images),
            "layers": scan.recovered.layers,
            "divergence": scan.recovered.divergence,
        }
        if scan.recovered
        else None,
        "inversions": {
            inversion.kind: {
                "norms": inversion.norms,
                "indices": detection.indices,
                "asr": [trigger.asr for trigger in inversion.triggers],
                "steps": [trigger.steps for trigger in inversion.triggers],
                "passes": inversion.passes,
            }
            for inversion, detection in zip(scan.inversions, scan.detections, strict=True)
        },
        "trials": [
            {
                "class": trial.targets[0],
                "target": trial.targets[0] in scan.targets,
                "before": _proxies(trial.before),
                "pruned": _proxies(trial.pruned),
                "after": _proxies(trial.after),
            }
            for trial in scan.trials
        ],
    }
    if isinstance(result, RepairResult):
        facts |= {"repaired": result.repair is not None}
        if result.repair:
            facts |= {"forced": set(result.repair.targets) != set(scan.targets)}
            facts |= _repair(result.repair)
        facts |= {"compact": _compact(result.compact) if result.compact else None}
    facts |= {
        "stages": [
            {"name": stage.name, "seconds": stage.seconds, "passes": stage.passes}
            for stage in result.stages
        ],
        "seconds": sum(stage.seconds for stage in result.stages),
        "passes": sum(passes),
        "seed": scan.seed,
        "versions": versions(),
    }
    summary = plain({**facts, **{k: v for k, v in about.items() if k not in facts}})
    assert isinstance(summary, dict)
    return summary


def versions() -> dict[str, str]:
    """What was computed with."""
    return {
        "shapprune": version("shapprune"),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def kind_of(trigger: InvertedTrigger) -> Kind:
    """The kind of an inverted trigger, as `Inversion.kind` has it."""
    return "patch" if isinstance(trigger.stamp, Trigger) else "perturbation"


def _repair(repair: Repair) -> dict[str, object]:
    neurons, values, removed = repair.neurons, repair.values, repair.pruning.removed
    score, asr = repair.pruning.score.tolist(), values.asr.values.tolist()
    accuracy = values.accuracy.values.tolist() if values.accuracy else None
    prefix = _prefix(repair.model)
    layers = [layer.name.removeprefix(prefix) for layer in neurons.layers]
    located = [neurons.locate(neuron) for neuron in removed]
    places = [(layer.removeprefix(prefix), channel) for layer, channel in located]
    return {
        "repaired_classes": repair.targets,
        "estimator": values.estimator,
        "mode": values.mode,
        "unlearned": repair.unlearned,
        "neurons_total": len(neurons),
        "pruned_neurons": [
            {
                "layer": layer,
                "channel": channel,
                "value": score[neuron],
                "asr_value": asr[neuron],
                "accuracy_value": accuracy[neuron] if accuracy else None,
            }
            for neuron, (layer, channel) in zip(removed, places, strict=True)
        ],
        "pruned_by_layer": [
            {"layer": name, "pruned": [n for n, _ in places].count(name), "total": layer.size}
            for name, layer in zip(layers, neurons.layers, strict=True)
        ],
        "pruning_sufficient": repair.pruning.sufficient,
        "curve": [
            {"removed": point.removed, **_proxies(point.proxies)} for point in repair.pruning.curve
        ],
        "before": _proxies(repair.before),
        "pruned": _proxies(repair.pruned),
        "after": _proxies(repair.after),
        "triggers": [
            {"target": t.target, "kind": kind_of(t), "norm": t.norm, "asr": t.asr}
            for t in repair.triggers
        ],
    }


def _compact(compact: Compact) -> dict[str, object]:
    prefix = _prefix(compact.model)
    return {
        "taken": [
            {"layer": layer.removeprefix(prefix), "channel": channel}
            for layer, channel in compact.taken
        ],
        "left": [
            {
                "layer": left.layer.removeprefix(prefix),
                "channel": left.channel,
                "why": left.why.replace(prefix, "") if prefix else left.why,
            }
            for left in compact.left
        ],
        "parameters": compact.parameters,
        "multiply_accumulates": compact.operations,
        "difference": compact.difference,
    }


def _prefix(model: nn.Module) -> str:
    """Weights files name no such thing: the normalisation around the network is no part of it."""
    return "network." if isinstance(model, Classifier) else ""


def _proxies(proxies: Proxies) -> dict[str, object]:
    return {**vars(proxies)}


def plain(value: object) -> object:
    """What JSON has types for, see `summarise`; all else as a string."""
    if isinstance(value, float):
        if isnan(value):
            return None
        return ("-" if value < 0 else "") + "Infinity" if isinf(value) else float(value)
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence):
        return [plain(entry) for entry in value]
    return str(value)
