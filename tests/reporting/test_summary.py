"""result.json, of results made by hand."""

import json
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from results import ABOUT, CASES, NEURONS, SCANS, summary_of, verdict_of
from shapprune.method.detection import add_odds
from shapprune.method.rates import wilson
from shapprune.method.settings import RULES, SELECTION
from shapprune.reporting.exits import MEANINGS
from shapprune.reporting.summary import summarise
from toys import CLASSES, TARGET
from verdicts import POPULATION, next_class, scan_of


def test_summary_of_a_repair():
    run = summary_of("repair")
    assert run["verdict"] == "backdoored"
    assert run["target_classes"] == run["repaired_classes"] == [TARGET]
    assert run["mapping"] is None
    assert run["bounds"] == {"suspicious": -2, "backdoored": -1}
    assert run["scores"][TARGET] == max(run["scores"]) > run["bounds"]["backdoored"]
    assert run["untargeted_score"] < run["bounds"]["suspicious"]
    assert (run["rules"], run["false_alarms"], run["basis"]) == (RULES, 0.02, "images")
    assert run["as_high"] == {"hits": 0, "of": 100, "low": 0, "high": wilson(0, 100).high}
    assert run["calibration"]["population"] == POPULATION
    assert (run["repaired"], run["forced"]) == (True, False)
    assert run["pruned_neurons"][0] == {
        "layer": "bn1",
        "channel": 4,
        "value": pytest.approx(7 / 15),
        "asr_value": pytest.approx(7 / 15),
        "accuracy_value": pytest.approx(7 / 15),
    }
    assert run["pruned_by_layer"] == [
        {"layer": "bn1", "pruned": 1, "total": 8},
        {"layer": "bn2", "pruned": 1, "total": 8},
    ]
    assert run["neurons_total"] == len(NEURONS)
    rates = {"accuracy": 0.88, "agreement": 0.95, "kept": 0.95}
    point = run["curve"][1]
    assert point.items() >= {"removed": 1, **rates, "asr": 0, "asr_by_trigger": [0, 0, 0]}.items()
    assert point["intervals"]["accuracy"] == pytest.approx([0.83, 0.93])
    assert (run["sufficient"], run["asr_bound"]) == (True, SELECTION.asr)
    assert run["repaired_maps"] == [[5, 5, 5, 5, 5, None, 5, 5]]
    assert run["candidates"][run["chosen"]]["way"] == "tuned"
    after = {**rates, "asr": 0.01, "asr_by_trigger": [0, 0, 0.01]}
    assert run["after"].items() >= after.items()
    assert run["after"]["intervals"]["asr"] == [0, 0.03]
    assert [t["kind"] for t in run["triggers"]] == ["patch", "patch", "perturbation"]
    assert (run["seconds"], run["passes"], run["seed"]) == (1.75, 1000, 3)
    assert set(run["versions"]) == {"shapprune", "python", "torch"}
    assert run["arch"] == "models.py:Net"


def test_summary_of_the_evidence():
    """Lists of all classes are in their order, the others beside the classes they are of."""
    run = summary_of("scan")
    evidence = run["evidence"]
    assert evidence["margins"][TARGET] == max(evidence["margins"]) == pytest.approx(26.4)
    for kind, part in (("windows", 1), ("perturbations", 2)):
        assert evidence[kind]["classes"] == list(range(CLASSES))
        assert evidence[kind]["shares"][TARGET] == pytest.approx(0.98 / part)
        assert evidence[kind]["margins"][TARGET] == 8 / part
    kinds = [trigger["kind"] for trigger in evidence["untargeted"]]
    assert kinds == ["patch", "perturbation", "window"]
    assert evidence["untargeted"][0] | {"mapping": 0} == {
        **{"kind": "patch", "norm": 4, "moved": 0.875, "mapping": 0},
        **{"spread": pytest.approx(1), "agreement": pytest.approx(0.875)},
    }
    for c, score in enumerate(run["scores"]):
        assert score == pytest.approx(add_odds([values[c] for values in run["parts"].values()]))
    assert set(run["untargeted_parts"]) == {"spread", "window spread"}


def test_summary_of_a_map():
    run = summary_of("map scan")
    assert run["target_classes"] == []
    assert run["mapping"] == [1, 2, 3, 4, 5, 6, 7, 0]
    assert run["untargeted_score"] > run["bounds"]["backdoored"]
    answers = next_class(CLASSES)
    answers[2] = 0  # of which there was no image
    scan = scan_of((), answers=answers, untargeted=4.0)
    some = summarise(scan, about=ABOUT, class_names=None)
    assert some["mapping"] == [1, 2, None, 4, 5, 6, 7, 0]


def test_summary_of_margins_alone():
    run = summary_of("margins")
    assert run["basis"] == "margins"
    assert (run["evidence"]["windows"], run["evidence"]["untargeted"]) == (None, None)
    assert (run["evidence"]["perturbations"], run["untargeted_score"]) == (None, None)


@pytest.mark.parametrize("case", CASES)
def test_summary_of_other_cases(case):
    run, verdict = summary_of(case), verdict_of(case)
    assert run["verdict"] == verdict
    targets = [TARGET, 1] if case == "two targets" else [TARGET]
    named = verdict != "clean" and "map" not in case and "too few" not in case
    assert run["target_classes"] == (targets if named else [])
    assert (run["mapping"] is None) == ("map" not in case)
    assert run.get("forced", False) == ("forced" in case)
    repaired = "forced" in case or case in ("repair", "suspicious")
    assert run.get("repaired") == (None if case in SCANS else repaired)
    unrepaired = case in ("map", "too few, repair")
    assert run.get("unrepaired") == (None if case in SCANS else unrepaired)
    assert run["conclusive"] == ("margins" not in case and "too few" not in case)


def test_numbers_that_json_lacks():
    scan = scan_of()
    endless = replace(scan.evidence.margins, values=(float("inf"), *[1.0] * (CLASSES - 1)))
    scan = replace(scan, evidence=replace(scan.evidence, margins=endless), accuracy=float("nan"))
    run = summarise(scan, about={"low": float("-inf")}, class_names=None)
    assert run["evidence"]["margins"][0] == "Infinity"
    assert float(run["evidence"]["margins"][0]) == float("inf")
    assert (run["accuracy"], run["low"]) == (None, "-Infinity")
    json.dumps(run, allow_nan=False)


# Its schema

SCHEMA = json.loads((files("shapprune.reporting") / "result.schema.json").read_text("utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)


def test_the_schema_is_one_and_of_this_version():
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$id"] == summary_of("scan")["$schema"]
    assert SCHEMA["$id"].endswith(":" + summary_of("scan")["schema_version"])


@pytest.mark.parametrize("case", CASES)
def test_results_are_as_the_schema_says(case):
    run = summary_of(case)
    VALIDATOR.validate(run)
    assert set(run) <= set(SCHEMA["properties"])


def test_odd_numbers_are_as_the_schema_says():
    scan = scan_of()
    endless = replace(scan.evidence.margins, values=(float("inf"), *[1.0] * (CLASSES - 1)))
    scan = replace(scan, evidence=replace(scan.evidence, margins=endless), accuracy=float("nan"))
    VALIDATOR.validate(summarise(scan, about={}, class_names=["a"] * CLASSES))


@pytest.mark.parametrize(
    "wrong",
    [
        {"verdict": "fine"},
        {"verdict": "clean"},  # beside a target
        {"exit_code": 0},  # of a backdoored model
        {"scores": ["high"]},
        {"accuracy": "0.9"},
        {"files": [{"name": "net.pth", "bytes": 3, "sha256": "abc", "modified": "today"}]},
        {"repaired": True},  # without what was done
        {"evidence": summary_of("scan")["evidence"] | {"more": 1}},
    ],
)
def test_the_schema_refuses_what_is_wrong(wrong):
    assert not VALIDATOR.is_valid(summary_of("scan") | wrong)


@pytest.mark.parametrize("field", ["$schema", "verdict", "bounds", "error_rates", "evidence"])
def test_the_schema_refuses_what_is_missing(field):
    run = summary_of("scan")
    del run[field]
    assert not VALIDATOR.is_valid(run)


def test_the_docs_name_every_field():
    page = (Path(__file__).parents[2] / "docs" / "outputs.md").read_text("utf-8")
    assert set(re.findall(r"^\| `([\w$]+)` \|", page, re.M)) >= set(SCHEMA["properties"])
    for code, (scanned, _) in MEANINGS.items():
        assert f"| {code} | {scanned}" in page
