"""The attacks on the test population: what the verdict says of each, and what a repair leaves."""

from collections.abc import Sequence
from pathlib import Path

from shapprune_bench.documentation.files import Json, known_as, title_of, told_of
from shapprune_bench.documentation.repairs import models_of, newest_rules, repairs, way
from shapprune_bench.documentation.verdicts import detections
from shapprune_bench.page import Table

_SETS = ("test", "test_again")


def attacks(results: Path) -> list[Table]:
    """A table a set, and in it a row a poisoned model, sorted by attack and data."""
    there = detections(results)
    return [_of_set(name, there[name]["scans"], results) for name in _SETS if name in there]


def _of_set(name: str, every: Sequence[Json], results: Path) -> Table:
    own = [r for r in repairs(results) if r["folder"] == name]
    own = [r for r in own if r["cell"]["rules"] == newest_rules(own)]
    repaired = {runs[0]["cell"]["specimen"]["name"]: runs for runs in models_of(own)}
    scans: dict[str, list[Json]] = {}
    for scan in every:
        if scan["backdoored"]:
            scans.setdefault(scan["model"], []).append(scan)
    title = title_of(name)
    return Table(
        title[:1].upper() + title[1:],
        f"{told_of(name)} Of the repair's rules: {known_as(name, 'repair')}. One clean image a "
        "class. Right: called backdoored with the right target or map. The repair is told the "
        "attacker's target; ACC and ASR in per cent on unseen images with the attacker's trigger, "
        "median over draws (least … most). Sufficient: by the defender's own measure, the upper "
        "end of the ASR's interval is low enough; that can be wrong where our trigger is unlike "
        "the attacker's. Trojans are in the development population only. Empty: not measured.",
        [
            *("attack", "data", "model", "scans", "backdoored", "right", "suspicious"),
            *("repairs", "ACC", "ASR", "sufficient"),
        ],
        sorted(_row(model, some, repaired.get(model, [])) for model, some in scans.items()),
    )


def _row(model: str, scans: Sequence[Json], runs: Sequence[Json]) -> list[str]:
    verdicts = [scan["verdict"] for scan in scans]
    row = [
        *(scans[0]["attack"], scans[0]["data"], model, str(len(scans))),
        str(verdicts.count("backdoored")),
        str(sum(scan["found"] for scan in scans)),
        str(verdicts.count("suspicious")),
    ]
    if not runs:
        return [*row, "", "", "", ""]
    both = [way(runs, key) for key in ("accuracy", "asr")]
    return [*row, str(len(runs)), *both, str(sum(run["sufficient"] for run in runs))]
