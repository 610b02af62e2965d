"""The file that a report takes its rates on unseen models from, made of a detection's results."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shapprune_bench.documentation.files import Json, read_json, title_of

FILE = Path("src/shapprune/method/unseen.json")
_SET = "test"  # the models that no rule has seen


def unseen(results: Path) -> str | None:
    """What `shapprune.method.detection.unseen` reads; None where no such model was scanned."""
    file = results / "detection" / _SET / "detection.json"
    return json.dumps(_content(read_json(file)), indent=1) + "\n" if file.exists() else None


def _content(measured: Json) -> Mapping[str, Any]:
    clean: dict[str, list[float]] = {}
    poisoned: dict[str, dict[str, list[float]]] = {}
    for scan in measured["scans"]:
        models = poisoned.setdefault(scan["attack"], {}) if scan["backdoored"] else clean
        models.setdefault(scan["model"], []).append(round(scan["score"], 4))
    return {
        "rules": measured["rules"],
        "population": title_of(_SET),
        "clean": list(clean.values()),
        "poisoned": {attack: list(poisoned[attack].values()) for attack in sorted(poisoned)},
    }
