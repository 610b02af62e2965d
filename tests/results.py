"""Results made by hand, one of each kind, for tests of what is shown of them."""

import json
from dataclasses import replace

import torch

from shapprune.method.attribution import NeuronValues
from shapprune.method.evaluation import Proxies, Share
from shapprune.method.inversion import InvertedTrigger
from shapprune.method.pruning import CurvePoint, Pruning
from shapprune.method.recovery import Recovery
from shapprune.method.repair import Repair
from shapprune.method.selection import Candidate
from shapprune.method.triggers import all_to_one
from shapprune.model.classifier import Classifier
from shapprune.model.neurons import find_neurons
from shapprune.pipeline import RepairResult, ScanResult
from shapprune.reporting.html import render_report
from shapprune.reporting.summary import summarise
from shapprune.shapley import ShapleyValues
from shapprune.utils.progress import Stage
from toys import CLASSES, TARGET, backdoored_net, toy_images, true_trigger
from verdicts import calibration_of, mapped_scan, perturbation, scan_of

NEURONS = find_neurons(backdoored_net(), toy_images()[0])
MODEL = Classifier(backdoored_net())
REMOVED = (4, 12)
HOSTILE = "<script>alert('x')</script>\" onload=\"x&amp;\x1b[31m\u202e"
ABOUT = {
    "command": "shapprune repair weights.pth",
    "weights": f"downloads/{HOSTILE}.pth",
    "arch": "models.py:Net",
    "mean": [0.5],
    "std": [0.25],
    "notes": [f"3 images of {HOSTILE} were resized"],
    "device": "cpu",
}
DOUBTFUL = calibration_of(3, 6)  # the scores of targets and maps lie between


def proxies(accuracy: float, agreement: float, asr: float, high: float = 0.03) -> Proxies:
    def share(value: float) -> Share:
        return Share(value, value - 0.05, min(1, value + 0.05))

    return Proxies(
        share(accuracy), share(agreement), share(agreement), Share(asr, 0, high), (0, 0, asr)
    )


def repair_of(target: int) -> Repair:
    values = torch.linspace(1, -1, len(NEURONS))
    shapley = ShapleyValues(values, values.abs(), torch.full((len(NEURONS),), 9), 9)
    curve = tuple(
        CurvePoint(k, proxies(0.9 - k / 50, 1 - k / 20, max(0, 1 - k)))
        for k in (0, 1, 2, 3, 4, 6, 8)
    )
    stamps = (true_trigger(), true_trigger().scaled(0.1), perturbation())
    # Layers have the names that they have inside a Classifier.
    neurons = replace(
        NEURONS, layers=tuple(replace(a, name=f"network.{a.name}") for a in NEURONS.layers)
    )
    mapping = all_to_one(target, CLASSES)
    after = proxies(0.88, 0.95, 0.01)
    return Repair(
        MODEL,
        (mapping,),
        tuple(InvertedTrigger(mapping, stamp, stamp.norm, 0.98, 200) for stamp in stamps),
        neurons,
        NeuronValues("multilinear", shapley, shapley, None, (values,), 9),
        Pruning(values, curve),
        (
            Candidate("pruned", 0, REMOVED, curve[2].proxies),
            Candidate("tuned", 0, REMOVED, after),
        ),
        1,
        True,
        True,
        proxies(0.9, 1.0, 1.0),
        after,
    )


def recovered_images(layers: int) -> Recovery:
    divergence = 0.1 if layers else float("nan")
    return Recovery(*toy_images(), layers, divergence, Stage("recover images", 2, 300))


def result_of(case: str) -> ScanResult | RepairResult:
    found, clean, mapped = scan_of(), scan_of(()), mapped_scan()
    doubtful, guided = scan_of(calibration=DOUBTFUL), recovered_images(2)
    unguided, few = recovered_images(0), scan_of((), basis="margins")
    failed = scan_of((), basis="recovered", untargeted=-2.5, failed=True)
    return {
        "scan": found,
        "clean scan": clean,
        "suspicious scan": doubtful,
        "map scan": mapped,
        "suspicious map scan": mapped_scan(calibration=DOUBTFUL),
        "two targets": scan_of((TARGET, 1)),
        "repair": RepairResult(MODEL, found, repair_of(TARGET), found.stages),
        "clean": RepairResult(MODEL, clean, None, clean.stages),
        "suspicious": RepairResult(MODEL, doubtful, repair_of(TARGET), found.stages),
        "map": RepairResult(MODEL, mapped, None, mapped.stages),
        "forced": RepairResult(MODEL, found, repair_of(2), found.stages),
        "forced, clean": RepairResult(MODEL, clean, repair_of(2), found.stages),
        "forced, map": RepairResult(MODEL, mapped, repair_of(2), mapped.stages),
        "recovered": replace(found, recovered=guided),
        "margins": replace(scan_of(basis="margins"), recovered=unguided),
        "too few": replace(few, recovered=unguided),
        "too few, repair": RepairResult(MODEL, few, None, few.stages),
        "too few, forced": RepairResult(MODEL, few, repair_of(2), few.stages),
        "too few, recovery failed": replace(failed, recovered=guided, accuracy=0.2),
        "43 classes": scan_of(classes=43),
        "200 classes": scan_of(classes=200),
        "43 classes, map": mapped_scan(43),
        "200 classes, map": mapped_scan(200),
    }[case]


SCANS = ["scan", "clean scan", "suspicious scan", "map scan", "suspicious map scan", "two targets"]
SCANS += ["recovered", "margins", "too few", "43 classes", "200 classes", "43 classes, map"]
SCANS += ["200 classes, map", "too few, recovery failed"]
CASES = [*SCANS, "repair", "clean", "suspicious", "map", "forced", "forced, clean", "forced, map"]
CASES += ["too few, repair", "too few, forced"]


def verdict_of(case: str) -> str:
    found = [word for word in ("clean", "suspicious") if word in case]
    found += ["suspicious"] if "too few" in case else []
    return found[0] if found else "backdoored"


def page_of(case: str, names: list[str] | None = None, **about: object) -> str:
    images, labels = toy_images()
    return render_report(
        result_of(case),
        images=images,
        labels=labels,
        about={**ABOUT, **about},
        class_names=names,
    )


def summary_of(case: str) -> dict[str, object]:
    result = summarise(result_of(case), about=ABOUT, class_names=None)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    return result
