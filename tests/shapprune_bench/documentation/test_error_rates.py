"""The error rates that a report tells are those of the file that ``--calibrate`` wrote."""

import json
from importlib.resources import files
from itertools import chain
from pathlib import Path

import pytest

from shapprune.method.detection import shipped
from shapprune.reporting.answers import answer, error_rates
from toys import CLASSES
from verdicts import scan_of

FILE = files("shapprune.method") / "calibration.json"
DEV = Path(__file__).parents[3] / "benchmarks" / "results" / "detection" / "dev" / "detection.json"


@pytest.mark.parametrize("basis", ["images", "recovered", "margins"])
@pytest.mark.parametrize("targets", [(1,), ()])
def test_they_are_counted_from_the_calibration(basis, targets):
    scan = scan_of(targets, calibration=shipped(basis), basis=basis)
    backdoored = scan.judgement.verdict == "backdoored"
    bound = scan.judgement.backdoored if backdoored else scan.judgement.suspicious
    file = json.loads(FILE.read_text(encoding="utf-8"))["bases"][basis]
    models = {"clean": file["clean"], "poisoned": list(chain(*file["poisoned"].values()))}
    for kind, rate in error_rates(scan).items():
        scores = list(chain(*models[kind]))
        assert (rate.hits, rate.of) == (sum(score > bound for score in scores), len(scores))
        assert rate.low < rate.hits / rate.of < rate.high


def test_they_are_those_of_the_population_that_was_scanned():
    """Both were counted by ``bench detection --calibrate``, and stand in files of their own."""
    scan = scan_of(calibration=shipped("images"))
    scans = json.loads(DEV.read_text(encoding="utf-8"))["scans"]
    said = " ".join(answer(scan, names=[""] * CLASSES, per_class=(2,) * CLASSES).sure)
    for kind, rate in error_rates(scan).items():
        some = [s["verdict"] for s in scans if s["backdoored"] == (kind == "poisoned")]
        assert (rate.hits, rate.of) == (some.count("backdoored"), len(some))
        assert f"{rate.hits} of {rate.of} scans of {kind} models" in said
