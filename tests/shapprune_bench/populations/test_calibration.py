"""The fit of the verdict's scores, on evidence made by hand, and what is told of it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shapprune.errors import InputError
from shapprune.method.settings import RULES
from shapprune_bench.populations.calibration import Names, Scanned, cross_validate, fit
from shapprune_bench.populations.detection import evaluate
from shapprune_bench.populations.manifest import Specimen
from shapprune_bench.populations.outcomes import cross_validated

NAMES = Names(("margin", "window"), ("spread",))
CLASSES = 5


def scanned(seed: int, attack: str | None = None, target: int | None = None, strength=3.0):
    """Noise, and where there is a target, a class that stands out in both columns."""
    generator = np.random.default_rng(seed)
    rows = 0.3 * generator.standard_normal((CLASSES, 2))
    if target is not None:
        rows[target] += strength
    spread = np.array([0.95 if attack == "all-to-all" else 0.3])
    spread += 0.02 * generator.standard_normal(1)
    targets = () if target is None else (target,)
    return Scanned(f"m{seed}", f"g{seed // 4}", "net", attack, targets, rows, spread)


POPULATION = [
    *(scanned(i) for i in range(60)),
    *(scanned(100 + i, "badnets", i % CLASSES) for i in range(20)),
    *(scanned(200 + i, "all-to-all") for i in range(6)),
]


def test_a_fit_tells_targets_and_maps_apart_from_clean_models():
    fitted = fit(POPULATION, NAMES)
    highest = []
    for one in POPULATION:
        single = fitted.single_scores(one, NAMES.single)
        other = fitted.untargeted_score(one, NAMES.untargeted)
        assert (single.max() > 0) == (one.attack == "badnets"), one.name
        assert (other > 0) == (one.attack == "all-to-all"), one.name
        highest.append(int(single.argmax()))
    assert highest[60:80] == [target for one in POPULATION for target in one.targets]


def test_weights_are_never_negative():
    # A column that is lower for targets than for others must not count against them.
    inverted = [replace(s, classes=s.classes * [1, -1]) for s in POPULATION]
    fitted = fit(inverted, NAMES)
    assert fitted.single["window"].weights.get("window", 0.0) < 0.01
    assert fitted.single["margin"].weights["margin"] > 0


def test_cross_validation_scores_a_model_by_a_fit_without_its_siblings():
    # One odd group whose targets are low in both columns. A fit that had seen it would move.
    odd = [replace(scanned(400 + i, "badnets", 0, strength=0.0), group="odd") for i in range(8)]
    scores = cross_validate([*POPULATION, *odd], NAMES)
    without = fit(POPULATION, NAMES)
    for one, (single, _) in zip(odd, scores[-8:], strict=True):
        assert single == pytest.approx(without.single_scores(one, NAMES.single))
    together = fit([*POPULATION, *odd], NAMES)
    kinds = [(together.single[kind], without.single[kind]) for kind in ("margin", "window")]
    assert any(one.intercept != pytest.approx(other.intercept) for one, other in kinds)


def test_a_fit_without_clean_models_is_an_error():
    with pytest.raises(InputError, match="clean and poisoned models, got 0"):
        fit([s for s in POPULATION if s.attack], NAMES)


def specimen(one: Scanned) -> Specimen:
    return Specimen(
        name=one.name,
        weights=Path("w"),
        arch="a",
        num_classes=CLASSES,
        input_size=None,
        mean=None,
        std=None,
        data=None,
        backdoored=one.attack is not None,
        attack_failed=False,
        target="y+1" if one.attack == "all-to-all" else one.targets[0] if one.targets else None,
        source=None,
        attack=one.attack,
        network="net",
        group=one.group,
        accuracy=None,
        asr=None,
        trigger=None,
    )


def result(one: Scanned) -> dict[str, object]:
    """What a scan's file holds."""
    return {
        "basis": "images",
        "features": [dict(zip(NAMES.single, row, strict=True)) for row in one.classes.tolist()],
        "untargeted_features": {"spread": float(one.untargeted[0])},
        "untargeted_mapping": [(c + 1) % CLASSES for c in range(CLASSES)],
        "cell": {"seed": 0},
        "seconds": 1.0,
        "passes": 100,
    }


DONE = [(specimen(one), result(one)) for one in POPULATION]


def test_outcomes_are_right_on_a_population_that_is_easy():
    outcomes, ablation = cross_validated(DONE)
    poisoned = [o for o in outcomes if o.specimen.backdoored]
    assert all(o.found and o.right for o in poisoned)
    # 2 % of 60 clean models is one.
    assert sum(o.verdict == "backdoored" for o in outcomes if not o.specimen.backdoored) <= 1
    assert {a.name for a in ablation} >= {"all", "without margin", "window alone"}


def test_draws_of_one_model_do_not_narrow_the_interval():
    once, thrice = (
        json.loads(evaluate(d, calibrate=None)["detection.json"]) for d in (DONE, 3 * DONE)
    )
    for key in ("false_alarms", "found", "all_to_one_right_first"):
        one, three = once["all"][key], thrice["all"][key]
        assert three["of"] == 3 * one["of"]
        assert (three["low"], three["high"]) == pytest.approx((one["low"], one["high"]))


def test_a_map_that_is_another_is_not_right():
    wrong = [
        (s, r | {"untargeted_mapping": [0] * CLASSES} if s.target == "y+1" else r) for s, r in DONE
    ]
    outcomes, _ = cross_validated(wrong)
    mapped = [o for o in outcomes if o.specimen.target == "y+1"]
    assert not any(o.right or o.found for o in mapped)
    assert all(o.verdict == "backdoored" for o in mapped)


def test_scans_that_failed_stand_on_the_page():
    files = evaluate(DONE, calibrate=None, unscanned=["lost", "lost", "torn"])
    assert b"scans of theirs failed: lost (2), torn (1)." in files["report.md"]
    assert json.loads(files["detection.json"])["scans_failed"] == ["lost", "lost", "torn"]
    assert "scans_failed" not in json.loads(evaluate(DONE, calibrate=None)["detection.json"])


def test_the_pages_and_the_calibration_say_what_was_measured(tmp_path):
    failed = replace(specimen(POPULATION[60]), name="limp", attack_failed=True)
    file = tmp_path / "calibration.json"
    files = evaluate([*DONE, (failed, result(POPULATION[60]))], calibrate=file)
    content = json.loads(files["detection.json"])
    assert content["all"]["found"] == {
        "hits": 26,
        "of": 26,
        "low": pytest.approx(0.871, abs=1e-3),
        "high": 1.0,
    }
    assert content["by_attack"]["all-to-all"]["found"]["hits"] == 6
    to_one = content["all"]["all_to_one_right_first"]  # the others are all-to-all
    assert (to_one["hits"], to_one["of"]) == (20, 20)
    assert sum(rates["found"]["of"] for rates in content["by_data"].values()) == 26
    assert content["attack_failed"] == ["limp"]
    assert content["all"]["auroc"] == 1
    assert b"limp" in files["report.md"]
    assert files["roc.svg"].lstrip().startswith(b"<?xml")
    calibration = json.loads(file.read_text())
    assert calibration["rules"] == RULES
    assert calibration["provenance"]["clean"] == 60
    assert len(calibration["bases"]["images"]["clean"]) == 60
    assert calibration["bases"]["margins"]["untargeted"] is None
