"""Tables of verdicts and repairs, read from the JSON files of benchmarks/results."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from shapprune.bench.page import Table
from shapprune.method.settings import FALSE_ALARMS

Json = Mapping[str, Any]

_SEEN = "Seen while the rules were made; no bound was fitted to them."

# What folders of results are about, and what the rules had to do with these models.
SETS = {
    "dev": (
        "development population",
        "The verdict's rules were chosen on these and fitted to them.",
    ),
    "zoo_and_demo": (
        "the zoo and the demo",
        "Seen while the rules were made; no bound was fitted to them.",
    ),
    "foreign": (
        "strangers' models",
        "Seen while the rules were made; no bound was fitted to them.",
    ),
    "foreign_without_images": (
        "strangers' models, without images",
        "The bounds are those for given images.",
    ),
}


# Verdicts.


def detections(results: Path) -> dict[str, Json]:
    """What ``bench detection`` wrote, by folder; those of `SETS` first."""
    found = {f.parent.name: read_json(f) for f in results.glob("detection/*/detection.json")}
    known = [name for name in SETS if name in found]
    return {name: found[name] for name in [*known, *sorted(set(found) - set(known))]}


def verdicts(results: Path) -> Table:
    rows = []
    for name, content in detections(results).items():
        clean = [s for s in content["scans"] if not s["backdoored"]]
        poisoned = [s for s in content["scans"] if s["backdoored"]]
        rows.append(
            [
                _title(name) + (", cross-validated" if content["cross_validated"] else ""),
                _count(clean, "backdoored"),
                _count(clean, "suspicious"),
                _count(poisoned, "backdoored"),
                f"{sum(s['found'] for s in poisoned)}",
                _count(poisoned, "suspicious"),
                _auroc(content["all"]),
            ]
        )
    rules = "/".join(sorted({str(c["rules"]) for c in detections(results).values()}))
    return Table(
        "Verdicts",
        f"Of scans by rules {rules}, {FALSE_ALARMS:.0%} false alarms asked for; right: called "
        "backdoored with the right target or map.",
        [
            "scans of",
            "clean, accused",
            "suspected",
            "poisoned, called backdoored",
            "right",
            "suspected",
            "AUROC",
        ],
        rows,
    )


def by_attack(results: Path) -> list[Table]:
    """A table a set: rates by attack, with Wilson's intervals."""
    tables = []
    for name, content in detections(results).items():
        attacks = {"all poisoned": content["all"], **content["by_attack"]}
        rows = [
            [
                attack,
                _auroc(rates),
                _rate(rates["found"]),
                _rate(rates["at_least_suspicious"]),
                _rate(rates["missed"]),
                _rate(rates["right_first"]),
            ]
            for attack, rates in attacks.items()
        ]
        about = SETS.get(name, ("", ""))[1]
        where = f"[Every scan](../../benchmarks/results/detection/{name}/report.md)."
        false_alarms = content["all"]["false_alarms"]
        clean = f"Clean, called backdoored: {_rate(false_alarms)}." if false_alarms["of"] else ""
        tables.append(
            Table(
                _title(name)[:1].upper() + _title(name)[1:],
                " ".join(words for words in (about, clean, where) if words),
                ["attack", "AUROC", "found", "at least suspicious", "missed", "target first"],
                rows,
            )
        )
    return tables


def _count(scans: Sequence[Json], verdict: str) -> str:
    return f"{sum(s['verdict'] == verdict for s in scans)} of {len(scans)}" if scans else ""


def _auroc(rates: Json) -> str:
    return "" if rates["auroc"] is None else f"{rates['auroc']:.2f}"


def _rate(rate: Json) -> str:
    return f"{rate['hits']} of {rate['of']} ({rate['low']:.0%} to {rate['high']:.0%})"


# Repairs.


def repairs(results: Path) -> list[Json]:
    """What ``bench repair`` wrote, each with its folder's name."""
    files = sorted(results.glob("repairs/*/repair_*.json"))
    return [{**read_json(file), "folder": file.parent.name} for file in files]


def newest_rules(every: Sequence[Json]) -> str:
    """The latest version of the rules.

    >>> newest_rules([{"cell": {"rules": "2.9"}}, {"cell": {"rules": "2.10"}}])
    '2.10'
    """
    known = {str(result["cell"]["rules"]) for result in every}
    return max(known, key=lambda rules: [int(part) for part in rules.split(".")], default="–")


def groups(every: Sequence[Json]) -> dict[str, list[Json]]:
    """Repairs of one set of models, with as many images and targets from the same source."""
    found: dict[str, list[Json]] = {}
    order = list(SETS)
    for result in sorted(
        every, key=lambda r: order.index(r["folder"]) if r["folder"] in order else len(order)
    ):
        cell, title = result["cell"], _title(result["folder"])
        if cell["per_class"] != 1:
            count = f"{cell['per_class']} images a class" if cell["per_class"] else "no images"
            title = f"{title}, {count}"
        if cell["by_verdict"]:
            title = f"{title}, target by the verdict"
        found.setdefault(title, []).append(result)
    return found


def by_model(some: Sequence[Json]) -> list[list[Json]]:
    """The repairs that were done, model by model."""
    found: dict[str, list[Json]] = {}
    for result in some:
        if result["state"] == "done":
            found.setdefault(result["cell"]["specimen"]["name"], []).append(result)
    return list(found.values())


def medians(runs: Sequence[Json]) -> tuple[float, float]:
    """The accuracy lost and the ASR left over one model's draws, in per cent."""
    lost = median(r["before"]["accuracy"] - r["after"]["accuracy"] for r in runs)
    return 100 * lost, 100 * median(r["after"]["asr"] for r in runs)


def repair_tables(every: Sequence[Json], note: str) -> list[Table]:
    tables = []
    for title, some in groups(every).items():
        failed = sorted({r["cell"]["specimen"]["name"] for r in some if r["state"] == "failed"})
        failures = f" Failed: {', '.join(failed)}." if failed else ""
        rows = [
            [
                runs[0]["cell"]["specimen"]["name"],
                str(runs[0]["cell"]["specimen"]["attack"]),
                str(len(runs)),
                _pairs(runs, "accuracy"),
                _pairs(runs, "asr"),
                spread([100 * r["after"]["right"] for r in runs]),
                f"{sum(r['sufficient'] for r in runs)}",
                f"{median(r['seconds'] for r in runs):.0f}",
            ]
            for runs in by_model(some)
        ]
        tables.append(
            Table(
                title[:1].upper() + title[1:],
                f"{note}{failures} ACC and ASR in per cent on unseen images, with the attacker's "
                "trigger; medians over draws (least … most). Answered rightly again: under the "
                "trigger. Sufficient: by the defender's own measure.",
                [
                    *("model", "attack", "draws", "ACC", "ASR", "answered rightly again"),
                    *("sufficient", "seconds"),
                ],
                rows,
            )
        )
    return tables


def version_0_1(results: Path) -> Table:
    """Five draws a model by version 0.1.0, of `benchmarks/repair.py`: in per cent already."""
    every = [read_json(file) for file in sorted(results.glob("*_[0-9].json"))]
    found: dict[str, list[Json]] = {}
    for result in every:
        found.setdefault(result["model"], []).append(result)
    rows = []
    for name, runs in found.items():
        wanted = [] if runs[0]["target"] is None else [runs[0]["target"]]
        after = [r["after"]["asr"] for r in runs] if wanted else []
        rows.append(
            [
                name,
                f"{sum(r['targets'] == wanted for r in runs)} of {len(runs)}",
                f"{median(r['before']['accuracy'] for r in runs):.1f} → "
                + spread([r["after"]["accuracy"] for r in runs]),
                f"{median(r['before']['asr'] for r in runs):.1f} → {spread(after)}"
                if after
                else "",
                f"{median(r['pruned_neurons'] for r in runs):.0f}",
                f"{median(r['seconds'] for r in runs):.0f}",
            ]
        )
    return Table(
        "Version 0.1.0",
        "Other rules, whole runs with its own verdict. Most files are older than the release; "
        "[which and why](../notes/figures-0.1.md).",
        ["model", "target right", "ACC", "ASR", "neurons pruned", "seconds"],
        rows,
    )


def _pairs(runs: Sequence[Json], key: str) -> str:
    before, after = ([100 * float(r[when][key]) for r in runs] for when in ("before", "after"))
    return f"{median(before):.1f} → {spread(after)}"


def spread(values: Sequence[float]) -> str:
    """Median and range, which a single value has not.

    >>> spread([1.0, 3.0, 2.04]), spread([1.0, 1.01])
    ('2.0 (1.0 … 3.0)', '1.0')
    """
    middle, least, most = (f"{of(values):.1f}" for of in (median, min, max))
    return middle if least == most else f"{middle} ({least} … {most})"


# Files.


def _title(folder: str) -> str:
    return SETS[folder][0] if folder in SETS else folder.replace("_", " ")


def read_json(file: Path) -> Json:
    """A file of results."""
    content: Json = json.loads(file.read_text(encoding="utf-8"))
    return content
