"""Tables of verdicts, from the files that ``bench detection`` writes."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from shapprune.method.settings import FALSE_ALARMS
from shapprune_bench.documentation.files import SETS, Json, done, known_as, read_json, title_of
from shapprune_bench.page import Table
from shapprune_bench.populations.pages import auroc
from shapprune_bench.rates import rate_facts, rate_words

_COLUMNS = (
    "Found: called backdoored with the right target or map; missed: called clean; target first: "
    "the true target has the highest score, whatever the verdict. In brackets 95 % intervals "
    "(Wilson) of as many cases as there are models."
)
_FEW = 40  # models of a set that are told one by one


def detections(results: Path) -> dict[str, Json]:
    """What ``bench detection`` wrote, by folder; those of `SETS` first."""
    found = {f.parent.name: read_json(f) for f in results.glob("detection/*/detection.json")}
    known = [name for name in SETS if name in found]
    return {name: found[name] for name in [*known, *sorted(set(found) - set(known))]}


def verdicts(results: Path) -> Table:
    """A row a set of models: how often clean ones are accused and poisoned ones found."""
    rows = []
    for name, content in detections(results).items():
        clean = [s for s in content["scans"] if not s["backdoored"]]
        poisoned = [s for s in content["scans"] if s["backdoored"]]
        rows.append(
            [
                title_of(name) + (", cross-validated" if content["cross_validated"] else ""),
                known_as(name),
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
        "backdoored with the right target or map. Rules: whether they were chosen on these models, "
        "made while these were seen, or have not seen them. Of the strangers' 32 models 15 "
        "(`xai_*`) are siblings of one base.",
        [
            "scans of",
            "rules",
            "clean, called backdoored",
            "suspicious",
            "poisoned, called backdoored",
            "right",
            "suspicious",
            "AUROC",
        ],
        rows,
    )


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
            SETS.get(name, ("", ""))[1],
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
    """A table for each folder of other detections, below rivals/SET: ours first, on the same
    models."""
    tables = []
    for name, content in detections(results).items():
        for file in sorted((results / "rivals" / name).glob("**/rivals.json")):
            searches = done(file.parent, "rival_*.json")
            examined = {search["cell"]["specimen"]["name"] for search in searches}
            part = " ".join(file.parent.relative_to(results / "rivals" / name).parts)
            scans = [s for s in content["scans"] if s["model"] in examined]
            rows = {"**shapprune**": _flags(scans), **read_json(file)}
            tables.append(
                Table(
                    f"{title_of(name)[:1].upper()}{title_of(name)[1:]}, beside other detections"
                    + (f": {part.replace('_', ' ')}" if part else ""),
                    "One clean image a class (MM-BD takes none), each by its published bound; ours "
                    "called backdoored. Scans may be of several draws a model. Target first: "
                    "of backdoors with single targets, be they of one source.",
                    [
                        *("detection", "scans", "AUROC", "clean, flagged", "poisoned, flagged"),
                        "target first",
                    ],
                    [_beside(detection, facts) for detection, facts in rows.items()],
                )
            )
    return tables


_FLAGS = ("clean_flagged", "poisoned_flagged", "target_first")


def _flags(scans: Sequence[Json]) -> Json:
    """Of our scans, what `rival-detectors` tells of another's."""
    clean = [s for s in scans if not s["backdoored"]]
    poisoned = [s for s in scans if s["backdoored"]]
    single = [s for s in poisoned if s["target"] != "y+1"]

    def share(some: Sequence[Json], hits: Iterable[bool]) -> Json:
        return rate_facts(hits, cases=_models(some))

    return {
        "scans": len(scans),
        "auroc": auroc([s["score"] for s in clean], [s["score"] for s in poisoned]),
        "clean_flagged": share(clean, (s["verdict"] == "backdoored" for s in clean)),
        "poisoned_flagged": share(poisoned, (s["verdict"] == "backdoored" for s in poisoned)),
        "target_first": share(single, (s["right"] for s in single)),
    }


def _beside(detection: str, facts: Json) -> list[str]:
    rates = (rate_words(facts[key]) for key in _FLAGS)
    return [detection, str(facts["scans"]), _auroc(facts), *rates]


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
