"""Tables of verdicts, from the files that ``bench detection`` writes."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from shapprune.method.settings import FALSE_ALARMS
from shapprune_bench.documentation.files import (
    SETS,
    Json,
    done,
    known_as,
    read_json,
    title_of,
    told_of,
)
from shapprune_bench.page import Table
from shapprune_bench.rates import auroc_words, rate_facts, rate_words, resampled_aurocs

_RIGHT_MAP = (
    "an all-to-all map is right where more than half of the classes that the verdict tells go to "
    "the next"
)
_COLUMNS = (
    f"Found: called backdoored with the right target or map ({_RIGHT_MAP}); missed: called clean; "
    "target first: the true target or map has the highest score, whatever the verdict. In brackets "
    "95 % intervals (Wilson) of as many cases as there are models."
)
_FEW = 40  # models of a set that are told one by one


def detections(results: Path) -> dict[str, Json]:
    """What ``bench detection`` wrote, by folder; those of `SETS` first."""
    found = {f.parent.name: read_json(f) for f in results.glob("detection/*/detection.json")}
    known = [name for name in SETS if name in found]
    return {name: found[name] for name in [*known, *sorted(set(found) - set(known))]}


def verdicts(results: Path, *, compare: bool = True) -> Table:
    """A row a set of models: how often clean ones are accused and poisoned ones found.

    Args:
        compare: whether the same models of another set follow where it is beside one.
    """
    rows, there = [], detections(results)
    for name, content in there.items():
        scans, cross = content["scans"], content["cross_validated"]
        rows.append(_row(title_of(name), name, scans, cross_validated=cross))
        beside = SETS[name].beside if name in SETS else None
        if compare and beside in there:
            models = {scan["model"] for scan in scans}
            same = [scan for scan in there[beside]["scans"] if scan["model"] in models]
            title = f"the same models: {title_of(beside)}"
            rows.append(_row(title, beside, same, cross_validated=False))
    rules = "/".join(sorted({str(c["rules"]) for c in there.values()}))
    return Table(
        "Verdicts",
        f"Of scans by rules {rules}, {FALSE_ALARMS:.0%} false alarms asked for; models: clean + "
        f"poisoned; right: called backdoored with the right target or map ({_RIGHT_MAP}). Rules: "
        "whether they were chosen on these models, made while these were seen, or have not seen "
        "them. Intervals are of 95 %, of as many cases as there are models: Wilson's, and of the "
        "AUROC by bootstrap; siblings count as cases of their own. Cross-validated are the scores; "
        "the thresholds are quantiles of these scores, which sets the share of clean scans.",
        [
            *("scans of", "rules", "models", "clean, called backdoored", "suspicious"),
            *("poisoned, called backdoored", "right", "suspicious", "AUROC"),
        ],
        rows,
    )


def _row(title: str, name: str, scans: Sequence[Json], *, cross_validated: bool) -> list[str]:
    clean, poisoned = _by_truth(scans)
    accused = (s["verdict"] == "backdoored" for s in clean)
    found = rate_facts((s["verdict"] == "backdoored" for s in poisoned), cases=_models(poisoned))
    return [
        title + (", cross-validated" if cross_validated else ""),
        known_as(name),
        f"{_models(clean)} + {_models(poisoned)}",
        _count(clean, "backdoored") + " (set)"
        if cross_validated
        else rate_words(rate_facts(accused, cases=_models(clean))),
        _count(clean, "suspicious"),
        rate_words(found),
        f"{sum(s['found'] for s in poisoned)}",
        _count(poisoned, "suspicious"),
        auroc_words(_scores(clean), _scores(poisoned)),
    ]


def _scores(scans: Iterable[Json]) -> list[list[float]]:
    """Of each model, in the order of their names, those of its draws."""
    found: dict[str, list[float]] = {}
    for scan in sorted(scans, key=lambda s: (str(s["model"]), int(s["seed"]))):
        found.setdefault(scan["model"], []).append(scan["score"])
    return list(found.values())


_RATES = ("found", "at_least_suspicious", "missed", "right_first")
_HEAD = ("AUROC", "found", "at least suspicious", "missed", "target first")


def by_kind(results: Path) -> list[Table]:
    """Tables of a set: rates by attack, after its ROC; of a large one by data and network, too."""
    tables: list[Table] = []
    for name, content in detections(results).items():
        title = title_of(name)[:1].upper() + title_of(name)[1:]
        there = f"../../benchmarks/results/detection/{name}"
        every = content["all"]
        notes = [
            told_of(name),
            "" if tables else _COLUMNS,
            _told("Clean, called backdoored", every["false_alarms"]),
            _told("Target first, of all-to-one", every["all_to_one_right_first"]),
            f"[Every scan]({there}/report.md).",
        ]
        picture = f"![ROC, each attack in grey]({there}/roc.svg)\n\n" if every["auroc"] else ""
        attacks = {"all poisoned": every, **content["by_attack"]}
        tables.append(
            Table(
                title,
                picture + " ".join(words for words in notes if words),
                ["attack", *_HEAD],
                [[attack, *_cells(rates)] for attack, rates in attacks.items()],
            )
        )
        if _models(content["scans"]) > _FEW:
            tables.append(
                Table(
                    f"{title}, by data and network",
                    "",
                    ["models", "clean, called backdoored", *_HEAD],
                    [
                        [models, rate_words(rates["false_alarms"]), *_cells(rates)]
                        for key in ("by_data", "by_network")
                        for models, rates in content[key].items()
                    ],
                )
            )
    return tables


def _told(what: str, rate: Json) -> str:
    return f"{what}: {rate_words(rate)}." if rate["of"] else ""


def _cells(rates: Json) -> list[str]:
    return [_auroc(rates), *(rate_words(rates[key]) for key in _RATES)]


def beside_others(results: Path) -> list[Table]:
    """A table for each folder of other detections, below rivals/SET: ours first, on the same models
    and draws of images."""
    tables = []
    for name, content in detections(results).items():
        for file in sorted((results / "rivals" / name).glob("**/rivals.json")):
            theirs = _rivals(done(file.parent, "rival_*.json"))
            drawn = {(s["model"], s["seed"]) for scans in theirs.values() for s in scans}
            ours = [
                {**s, "flagged": s["verdict"] == "backdoored", "first": s["right"]}
                for s in content["scans"]
                if (s["model"], s["seed"]) in drawn
            ]
            part = " ".join(file.parent.relative_to(results / "rivals" / name).parts)
            tables.append(
                Table(
                    f"{title_of(name)[:1].upper()}{title_of(name)[1:]}, beside other detections"
                    + (f": {part.replace('_', ' ')}" if part else ""),
                    f"{told_of(name)} One clean image a class (MM-BD takes none), each by its "
                    "published bound; ours called backdoored. Scans may be of several draws a "
                    "model. First: the class that stands out most is a target; all-to-all is left "
                    "out. Ours less theirs: of AUROCs on the same scans, a 95 % interval by "
                    "bootstrap over models; where it holds 0, the difference may be chance.",
                    [
                        *("detection", "scans", "AUROC", "ours less theirs", "clean, flagged"),
                        *("poisoned, flagged", "first"),
                    ],
                    [
                        _beside("**shapprune**", ours, None),
                        *(_beside(method, scans, ours) for method, scans in theirs.items()),
                    ],
                )
            )
    return tables


def _rivals(searches: Sequence[Json]) -> dict[str, list[Json]]:
    """The scans of each detection."""
    found: dict[str, list[Json]] = {}
    for search in searches:
        model = search["cell"]["specimen"]
        for method, told in search["told"].items():
            targets = model["target"] if isinstance(model["target"], list) else [model["target"]]
            scan = {
                **{key: model[key] for key in ("backdoored", "target")},
                **{"model": model["name"], "seed": search["cell"]["seed"]},
                **{"score": told["score"], "flagged": told["flagged"]},
                "first": told["first"] in targets,
            }
            found.setdefault(method, []).append(scan)
    return found


def _beside(method: str, scans: Sequence[Json], ours: Sequence[Json] | None) -> list[str]:
    """A detection's row; ours are the same scans by us, for the difference."""
    clean, poisoned = _by_truth(scans)
    single = [s for s in poisoned if s["target"] != "y+1"]
    rates = (
        rate_words(rate_facts((bool(s[key]) for s in some), cases=_models(some)))
        for some, key in ((clean, "flagged"), (poisoned, "flagged"), (single, "first"))
    )
    scores = [_scores(some) for some in (clean, poisoned)]
    ahead = ""
    if ours and all(scores):
        drawn = {(s["model"], s["seed"]) for s in scans}
        same = [s for s in ours if (s["model"], s["seed"]) in drawn]
        own = [_scores(some) for some in _by_truth(same)]
        steps = resampled_aurocs(*own) - resampled_aurocs(*scores)
        ahead = "{:.2f} to {:.2f}".format(*np.quantile(steps, [0.025, 0.975]))
    return [method, str(len(scans)), auroc_words(*scores), ahead, *rates]


def _by_truth(scans: Iterable[Json]) -> tuple[list[Json], list[Json]]:
    """Those of clean models, and those of poisoned ones."""
    every = list(scans)
    return [s for s in every if not s["backdoored"]], [s for s in every if s["backdoored"]]


def by_model(results: Path) -> list[Table]:
    """A table a small set: how often each model was called what, over draws of images."""
    tables = []
    for name, content in detections(results).items():
        found: dict[str, list[Json]] = {}
        for scan in content["scans"]:
            found.setdefault(scan["model"], []).append(scan)
        if len(found) > _FEW:
            continue
        rows = [
            [
                model,
                scans[0]["attack"] if scans[0]["backdoored"] else "clean",
                *(_count(scans, verdict) for verdict in ("backdoored", "suspicious", "clean")),
                f"{sum(s['found'] for s in scans)}" if scans[0]["backdoored"] else "",
                f"{median(s['score'] for s in scans):.2f}",
                f"{median(s['seconds'] for s in scans):.0f}",
            ]
            for model, scans in found.items()
        ]
        tables.append(
            Table(
                f"{title_of(name)[:1].upper()}{title_of(name)[1:]}, model by model",
                "Over draws of the images; score and seconds are medians.",
                [
                    *("model", "attack", "backdoored", "suspicious", "clean", "right"),
                    *("score", "seconds"),
                ],
                rows,
            )
        )
    return tables


def _models(scans: Sequence[Json]) -> int:
    return len({scan["model"] for scan in scans})


def _count(scans: Sequence[Json], verdict: str) -> str:
    return f"{sum(s['verdict'] == verdict for s in scans)} of {len(scans)}" if scans else ""


def _auroc(rates: Json) -> str:
    return "" if rates["auroc"] is None else f"{rates['auroc']:.2f}"
