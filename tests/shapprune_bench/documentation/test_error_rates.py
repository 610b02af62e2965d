"""The error rates that a report tells are those of the file that ``--calibrate`` wrote."""

import json
from importlib.resources import files
from itertools import chain
from pathlib import Path

import pytest

from shapprune.method.detection import shipped
from shapprune.method.settings import RULES
from shapprune.reporting.answers import answer, error_rates
from toys import CLASSES
from verdicts import scan_of

FILE = files("shapprune.method") / "calibration.json"
DETECTION = Path(__file__).parents[3] / "benchmarks" / "results" / "detection"
DEV, TEST = (DETECTION / name / "detection.json" for name in ("dev", "test"))


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


@pytest.mark.parametrize("targets", [(1,), ()])
def test_those_on_unseen_models_are_told_beside_them(targets):
    scan = scan_of(targets, calibration=shipped("images"))
    measured = json.loads(TEST.read_text(encoding="utf-8"))
    assert measured["rules"] == RULES
    said = " ".join(answer(scan, names=[""] * CLASSES, per_class=(2,) * CLASSES).sure)
    assert "“test population”" in said
    for kind in ("clean", "poisoned"):
        some = [s["verdict"] for s in measured["scans"] if s["backdoored"] == (kind == "poisoned")]
        count = some.count("backdoored")
        if not targets:  # it was below the lower bound
            count += some.count("suspicious")
        assert f"{count} of {len(some)} scans of {kind} models" in said


def test_rates_of_given_images_are_not_told_of_others():
    for basis in ("recovered", "margins"):
        scan = scan_of(calibration=shipped(basis), basis=basis)
        said = answer(scan, names=[""] * CLASSES, per_class=(2,) * CLASSES).sure
        assert not any("no part in making the rules" in words for words in said)
