"""A result as SARIF 2.1.0 (OASIS), which code scanning and security dashboards read.

A finding is of the weights file that was examined, also after a repair: that file is as it was. A
clean model has no findings.
"""

import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

import torch
from torch import Tensor

from shapprune.pipeline import RepairResult, ScanResult
from shapprune.reporting import findings
from shapprune.reporting.answers import Answers, answer
from shapprune.reporting.exits import exit_code
from shapprune.reporting.words import as_list, labels_of
from shapprune.utils.text import printable

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/"
_HELP = "Do not use these weights before you know more: see the report of shapprune."

# Of each rule: what it says, its level, and GitHub's severity of it, 0 to 10.
_RULES = {
    "backdoor-target": ("A class is the target of a backdoor.", "error", "9.0"),
    "backdoor-map": ("A backdoor sends the images of each class elsewhere.", "error", "9.0"),
    "suspected-backdoor": ("A class, or a map of classes, stands out.", "warning", "6.0"),
    "too-few-data": ("The data are too few to say that the model is clean.", "warning", "4.0"),
}


def sarif(
    result: ScanResult | RepairResult,
    *,
    labels: Tensor,
    about: Mapping[str, object],
    class_names: Sequence[str] | None,
    weights: str,
) -> dict[str, object]:
    """A SARIF log of one run.

    Args:
        labels, about, class_names: see `shapprune.reporting.html.render_report`.
        weights: where the weights are, relative to the root of the sources if they are below it.
    """
    scan = result.scan if isinstance(result, RepairResult) else result
    names = labels_of(class_names, scan.evidence.classes)
    counts = torch.bincount(labels.cpu(), minlength=len(names)).tolist()
    answers = answer(result, names=names, per_class=counts)
    artifacts = _artifacts(as_list(about.get("files")), weights)
    driver = {
        "name": "shapprune",
        "semanticVersion": version("shapprune"),
        "shortDescription": {"text": "Tells whether an image classifier carries a backdoor."},
        "rules": [_rule(name) for name in _RULES],
    }
    run: dict[str, object] = {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"shapprune/{quote(os.fsencode(weights), safe='')}/"},
        "invocations": [_invocation(result, about)],
        "artifacts": artifacts,
        "results": [_finding(*found, answers, artifacts[0]) for found in _found(scan, names)],
    }
    return {"$schema": f"{_SCHEMA}sarif-schema-2.1.0.json", "version": "2.1.0", "runs": [run]}


def _found(scan: ScanResult, names: Sequence[str]) -> list[tuple[str, str, float]]:
    """Of each finding its rule, what it is about, and the score."""
    judgement = scan.judgement
    sure = judgement.verdict == "backdoored"
    if judgement.verdict == "clean":
        return []
    if judgement.undecided:
        return [("too-few-data", findings.why_too_few(judgement), judgement.score)]
    found = []
    if findings.no_single_target(judgement):
        moved = findings.mapping_words(judgement.mapping)
        what = findings.NO_SINGLE_TARGET + (f": {moved}" if moved else "")
        found.append(("backdoor-map" if sure else "suspected-backdoor", what, judgement.score))
    for c, mark in findings.marks(judgement).items():
        rule = "backdoor-target" if mark == "target" else "suspected-backdoor"
        found.append((rule, f"class {names[c]}", judgement.scores[c]))
    return found


def _finding(
    rule: str, what: str, score: float, answers: Answers, artifact: Mapping[str, Any]
) -> dict[str, object]:
    text, level, _ = _RULES[rule]
    said = f"{text[:-1]}: {what}. {answers.headline} " + " ".join(answers.sure[:-1])
    digest = artifact.get("hashes", {}).get("sha-256", "")
    same = sha256(f"{digest} {rule} {what}".encode()).hexdigest()[:16]
    return {
        "ruleId": rule,
        "ruleIndex": list(_RULES).index(rule),
        "level": level,
        "message": {"text": printable(said, 1000)},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {**artifact["location"], "index": 0},
                    # Of a binary file there is no line, but code scanning shows none without.
                    "region": {"startLine": 1},
                }
            }
        ],
        "partialFingerprints": {"primaryLocationLineHash": f"{same}:1"},
        "properties": {"score": score},
    }


def _rule(name: str) -> dict[str, object]:
    text, level, severity = _RULES[name]
    return {
        "id": name,
        "name": "".join(word.capitalize() for word in name.split("-")),
        "shortDescription": {"text": text},
        "fullDescription": {"text": text},
        "help": {"text": _HELP},
        "defaultConfiguration": {"level": level},
        "properties": {
            "tags": ["security"],
            "precision": "high" if level == "error" else "medium",
            "security-severity": severity,
        },
    }


def _artifacts(files: Sequence[Mapping[str, Any]], weights: str) -> list[dict[str, Any]]:
    """The files examined; at least the place that was named."""
    if not files:
        return [{"location": {"uri": _uri(weights)}, "roles": ["analysisTarget"]}]
    folder = weights if PurePath(weights).name != files[0]["name"] else None
    return [
        {
            "location": {"uri": _uri(f"{folder}/{file['name']}" if folder else weights)},
            "length": file["bytes"],
            "lastModifiedTimeUtc": file["modified"],
            "hashes": {"sha-256": file["sha256"]},
            "roles": ["analysisTarget"],
        }
        for file in files
    ]


def _uri(place: str) -> str:
    if place.startswith("hf:"):
        return "hf:" + quote(os.fsencode(place[3:]))
    path = PurePath(place)
    # By its bytes, as `as_uri` has it, too: a name need not be UTF-8.
    return path.as_uri() if path.is_absolute() else quote(os.fsencode(path.as_posix()))


def _invocation(
    result: ScanResult | RepairResult, about: Mapping[str, object]
) -> dict[str, object]:
    return {
        "executionSuccessful": True,
        "commandLine": printable(str(about.get("command", "shapprune")), 1000),
        "exitCode": exit_code(result),
        "toolExecutionNotifications": [
            {"level": "warning", "message": {"text": printable(str(note), 1000)}}
            for note in as_list(about.get("notes"))
        ],
    }
