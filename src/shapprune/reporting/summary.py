"""A result as plain numbers and words: what result.json holds."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from math import isinf, isnan

import torch
from torch import nn

from shapprune.method import detection
from shapprune.method.evaluation import Proxies, Share
from shapprune.method.evidence import Evidence
from shapprune.method.inversion import InvertedTrigger, Kind
from shapprune.method.perturbations import Perturbations
from shapprune.method.repair import Repair
from shapprune.method.settings import RULES, SELECTION
from shapprune.method.triggers import Trigger
from shapprune.method.windows import Windows
from shapprune.model.classifier import Classifier
from shapprune.pipeline import RepairResult, ScanResult
from shapprune.reporting.answers import error_rates
from shapprune.reporting.exits import exit_code

SCHEMA_VERSION = "1.0"  # of result.schema.json: the first number changes where readers must
SCHEMA = f"urn:shapprune:result:{SCHEMA_VERSION}"


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
    facts = {**_scan(scan), "exit_code": exit_code(result), "class_names": class_names}
    if isinstance(result, RepairResult):
        facts |= {"repaired": result.repair is not None, "unrepaired": result.unrepaired}
        if result.repair:
            facts |= {
                "forced": result.forced,
                "incomplete": result.incomplete,
                "spoiled": result.spoiled,
            }
            facts |= _repair(result.repair)
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


def _scan(scan: ScanResult) -> dict[str, object]:
    judgement, recovered = scan.judgement, scan.recovered
    return {
        "$schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "rules": RULES,
        "verdict": scan.verdict,
        "target_classes": scan.targets,
        "mapping": scan.mapping,
        "scores": judgement.scores,
        "untargeted_score": judgement.untargeted,
        "bounds": {"suspicious": judgement.suspicious, "backdoored": judgement.backdoored},
        "false_alarms": judgement.false_alarms,
        "as_high": vars(judgement.as_high),
        "error_rates": {kind: vars(rate) for kind, rate in error_rates(scan).items()},
        "basis": judgement.basis,
        "conclusive": judgement.conclusive,
        "calibration": detection.shipped(judgement.basis).provenance,
        "evidence": _evidence(scan.evidence),
        "parts": judgement.parts,
        "untargeted_parts": judgement.untargeted_parts,
        "accuracy": scan.accuracy,
        "warnings": scan.warnings,
        "recovered": {
            "images": len(recovered.images),
            "layers": recovered.layers,
            "divergence": recovered.divergence,
        }
        if recovered
        else None,
    }


def _evidence(evidence: Evidence) -> dict[str, object]:
    """What was measured; the lists of windows and perturbations follow their classes."""
    untargeted = evidence.untargeted
    return {
        "margins": evidence.margins.values,
        "scale": evidence.scale,
        "windows": _reaches(evidence.windows),
        "perturbations": _reaches(evidence.perturbations),
        "untargeted": [
            {
                "kind": trigger.kind,
                "norm": trigger.norm,
                "moved": trigger.moved,
                "spread": trigger.spread,
                "agreement": trigger.agreement,
                "mapping": trigger.mapping,
            }
            for trigger in untargeted.triggers
        ]
        if untargeted
        else None,
    }


def _reaches(found: Windows | Perturbations | None) -> dict[str, object] | None:
    if not found:
        return None
    return {"classes": found.classes, "shares": found.shares, "margins": found.margins}


def _repair(repair: Repair) -> dict[str, object]:
    neurons, values, pruned = repair.neurons, repair.values, repair.pruned
    score, asr = repair.pruning.score.tolist(), values.asr.values.tolist()
    accuracy = values.accuracy.values.tolist() if values.accuracy else None
    prefix = _prefix(repair.model)
    layers = [layer.name.removeprefix(prefix) for layer in neurons.layers]
    located = [neurons.locate(neuron) for neuron in pruned]
    places = [(layer.removeprefix(prefix), channel) for layer, channel in located]
    return {
        "repaired_classes": repair.targets,
        "repaired_maps": repair.maps,
        "estimator": values.estimator,
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
            for neuron, (layer, channel) in zip(pruned, places, strict=True)
        ],
        "pruned_by_layer": [
            {"layer": name, "pruned": [n for n, _ in places].count(name), "total": layer.size}
            for name, layer in zip(layers, neurons.layers, strict=True)
        ],
        "sufficient": repair.sufficient,
        "asr_bound": SELECTION.asr,
        "curve": [
            {"removed": point.pruned, **_proxies(point.proxies)} for point in repair.pruning.curve
        ],
        "before": _proxies(repair.before),
        "after": _proxies(repair.after),
        "candidates": [
            {
                "way": candidate.way,
                "score": candidate.score,
                "removed": len(candidate.pruned),
                **_proxies(candidate.proxies),
            }
            for candidate in repair.candidates
        ],
        "chosen": repair.chosen,
        "triggers": [
            {"map": t.mapping, "kind": kind_of(t), "norm": t.norm, "asr": t.asr}
            for t in repair.triggers
        ],
    }


def _prefix(model: nn.Module) -> str:
    """Weights files name no such thing: the normalisation around the network is no part of it."""
    return "network." if isinstance(model, Classifier) else ""


def _proxies(proxies: Proxies) -> dict[str, object]:
    shares = {name: share for name, share in vars(proxies).items() if isinstance(share, Share)}
    return {
        **{name: share.value for name, share in shares.items()},
        "asr_by_trigger": proxies.asr_by_trigger,
        "asr_by_map": [
            {"asr": share.value, "interval": (share.low, share.high)}
            for share in proxies.asr_by_map
        ],
        "intervals": {name: (share.low, share.high) for name, share in shares.items()},
    }


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
