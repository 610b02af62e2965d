"""Tables of repairs, from the files that ``bench repair`` writes and of version 0.1.0."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from shapprune_bench.documentation.files import (
    SETS,
    Json,
    read_json,
    spread,
    title_of,
    told_of,
)
from shapprune_bench.page import Table


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
        cell, title = result["cell"], title_of(result["folder"])
        if cell["per_class"] != 1:
            count = f"{cell['per_class']} images a class" if cell["per_class"] else "no images"
            title = f"{title}, {count}"
        if cell["by_verdict"]:
            title = f"{title}, target by the verdict"
        found.setdefault(title, []).append(result)
    return found


def models_of(some: Sequence[Json]) -> list[list[Json]]:
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


def after_whole_run(run: Json) -> float:
    """The ASR that `shapprune repair` leaves by its own verdict, by a repair that was told the
    target: the same where the verdict names just that, else the model's own.

    Maps of several sources are not in the files; such models count as left alone.
    """
    wanted = run["cell"]["specimen"]["target"]
    wanted = [wanted] if isinstance(wanted, int) else wanted
    named = run["verdict"] != "clean" and run["cell"]["specimen"]["source"] is None
    same = named and isinstance(wanted, list) and sorted(run["targets"]) == sorted(wanted)
    return float(run["after" if same else "before"]["asr"])


def repair_tables(every: Sequence[Json], note: str) -> list[Table]:
    """A table for each group of models, a row a model; the note begins its caption."""
    tables = []
    for title, some in groups(every).items():
        failed = sorted({r["cell"]["specimen"]["name"] for r in some if r["state"] == "failed"})
        failures = f" Failed: {', '.join(failed)}." if failed else ""
        known = told_of(some[0]["folder"], "repair")
        by_verdict = some[0]["cell"]["by_verdict"]
        told = "Targets are the verdict's." if by_verdict else "Told the attacker's target."
        rows = [
            [
                runs[0]["cell"]["specimen"]["name"],
                str(runs[0]["cell"]["specimen"]["attack"]),
                str(len(runs)),
                way(runs, "accuracy"),
                way(runs, "asr"),
                spread([100 * r["after"]["right"] for r in runs]),
                f"{sum(r['sufficient'] for r in runs)}",
                f"{median(r['seconds'] for r in runs):.0f}",
            ]
            for runs in models_of(some)
        ]
        tables.append(
            Table(
                title[:1].upper() + title[1:],
                f"{note} {known}{failures} {told} ACC and ASR in per cent on unseen images, the "
                "first 1,000 of the test part, with the attacker's trigger; medians over draws "
                "(least … most). Answered rightly again: under the trigger. Sufficient: by the "
                "defender's own measure, which can be wrong where our trigger is unlike the "
                "attacker's.",
                [
                    *("model", "attack", "draws", "ACC", "ASR", "answered rightly again"),
                    *("sufficient", "seconds"),
                ],
                rows,
            )
        )
    return tables


def clean_repairs(results: Path) -> dict[str, list[list[Json]]]:
    """What ``bench clean-repair`` measured, by folder and model."""
    found: dict[str, list[Json]] = {}
    for file in sorted(results.glob("clean-repair/*/clean-repair_*.json")):
        found.setdefault(file.parent.name, []).append(read_json(file))
    return {folder: models_of(some) for folder, some in found.items()}


def clean_repair_tables(results: Path) -> list[Table]:
    """A table a set, a row a model."""
    return [
        Table(
            f"Clean models: {title_of(folder)}",
            f"{told_of(folder, 'repair')} Repaired all the same, by `--force-target first`, from "
            "one image a class: what the scan names, and where it names nothing the class of the "
            "highest score. ACC in per cent on unseen images.",
            ["model", "draws", "ACC", "seconds"],
            [
                [
                    runs[0]["cell"]["specimen"]["name"],
                    str(len(runs)),
                    way(runs, "accuracy"),
                    f"{median(r['seconds'] for r in runs):.0f}",
                ]
                for runs in models
            ],
        )
        for folder, models in clean_repairs(results).items()
    ]


def version_0_1(results: Path) -> Table:
    """Five draws a model by version 0.1.0, of `benchmarks/repair.py`: in per cent already."""
    every = [read_json(file) for file in sorted(results.glob("version_0_1/*_[0-9].json"))]
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


def way(runs: Sequence[Json], key: str) -> str:
    """Accuracy or ASR before and after, in per cent."""
    before, after = ([100 * float(r[when][key]) for r in runs] for when in ("before", "after"))
    return f"{median(before):.1f} → {spread(after)}"
