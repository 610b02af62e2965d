"""SARIF logs, against the schema of OASIS (its text of version 2.1.0, draft-04 of JSON Schema)."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft4Validator

from results import ABOUT, CASES, HOSTILE, result_of, verdict_of
from shapprune.reporting.exits import exit_code
from shapprune.reporting.sarif import sarif
from toys import TARGET, toy_images

SCHEMA = json.loads(Path(__file__).with_name("sarif-2.1.0.schema.json").read_text("utf-8"))
VALIDATOR = Draft4Validator(SCHEMA, format_checker=Draft4Validator.FORMAT_CHECKER)
FILES = [
    {"name": name, "bytes": 10, "sha256": "ab" * 32, "modified": "2026-01-02T03:04:05Z"}
    for name in ("model.safetensors", "config.json")
]


def log_of(case: str, weights: str = "models/net.pth", **more: object) -> dict[str, object]:
    result = result_of(case)
    labels = toy_images()[1]
    about = {**ABOUT, **more}
    log = sarif(result, labels=labels, about=about, class_names=None, weights=weights)
    VALIDATOR.validate(log)
    assert json.loads(json.dumps(log, allow_nan=False)) == log
    return log["runs"][0]


@pytest.mark.parametrize("case", CASES)
def test_logs_are_as_the_schema_says(case):
    run = log_of(case)
    verdict, found = verdict_of(case), run["results"]
    levels = {"clean": set(), "suspicious": {"warning"}, "backdoored": {"error"}}
    assert {finding["level"] for finding in found} == levels[verdict]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert all(rules[finding["ruleIndex"]] == finding["ruleId"] for finding in found)
    assert run["invocations"][0]["exitCode"] == exit_code(result_of(case))


@pytest.mark.parametrize(
    ("case", "found"),
    [
        ("clean", []),
        ("repair", ["backdoor-target"]),
        ("two targets", ["backdoor-target"] * 2),
        ("map scan", ["backdoor-map"]),
        ("suspicious map scan", ["suspected-backdoor"]),
        ("suspicious", ["suspected-backdoor"]),
        ("too few", ["too-few-data"]),
    ],
)
def test_findings_have_their_rules(case, found):
    assert [finding["ruleId"] for finding in log_of(case)["results"]] == found


def test_findings_say_what_and_where():
    (finding,) = log_of("scan", files=FILES[:1], weights="models/model.safetensors")["results"]
    assert f"target of a backdoor: class {TARGET}." in finding["message"]["text"]
    assert "scans of clean models" in finding["message"]["text"]
    place = finding["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "models/model.safetensors", "index": 0}
    assert place["region"] == {"startLine": 1}


def test_findings_are_the_same_in_every_run_and_others_of_other_files():
    def prints(case: str, **changes: str) -> list[str]:
        run = log_of(case, files=[FILES[0] | changes], weights="model.safetensors")
        return [f["partialFingerprints"]["primaryLocationLineHash"] for f in run["results"]]

    assert prints("two targets") == prints("two targets")
    assert len(set(prints("two targets"))) == 2
    assert prints("scan") != prints("scan", sha256="cd" * 32)


@pytest.mark.parametrize(
    ("weights", "uris"),
    [
        ("model.safetensors", ["model.safetensors"]),
        ("a b/model.safetensors", ["a%20b/model.safetensors"]),
        ("/data/model.safetensors", ["file:///data/model.safetensors"]),
        ("a\udcff/model.safetensors", ["a%FF/model.safetensors"]),  # a name that is not UTF-8
        ("hf:a\udcff", ["hf:a%FF/model.safetensors"]),
        ("folder", ["folder/model.safetensors", "folder/config.json"]),
        ("hf:ORG/NAME", ["hf:ORG/NAME/model.safetensors", "hf:ORG/NAME/config.json"]),
    ],
)
def test_files_are_told_with_their_hashes(weights, uris):
    artifacts = log_of("scan", weights=weights, files=FILES[: len(uris)])["artifacts"]
    assert [artifact["location"]["uri"] for artifact in artifacts] == uris
    assert artifacts[0]["hashes"] == {"sha-256": "ab" * 32}


def test_what_strangers_say_is_told_without_control_characters():
    run = log_of("scan", notes=[HOSTILE], command=f"shapprune scan {HOSTILE}")
    (note,) = run["invocations"][0]["toolExecutionNotifications"]
    assert "\x1b" not in note["message"]["text"]
    assert "\u202e" not in run["invocations"][0]["commandLine"]


def test_the_schema_refuses_what_is_wrong():
    assert not VALIDATOR.is_valid({"version": "2.1.0"})
    assert not VALIDATOR.is_valid({"version": "2.1.0", "runs": [{"tool": {"driver": {}}}]})
