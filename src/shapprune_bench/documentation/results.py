"""Pages on what was measured, docs/results, and README.md's summary, from benchmarks/results.

No figure in them is written by hand, and a test compares them with the files.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from shapprune.method.settings import SELECTION
from shapprune_bench.documentation.attacks import attacks
from shapprune_bench.documentation.cells import retuning, table1
from shapprune_bench.documentation.files import Json, known_as
from shapprune_bench.documentation.repairs import (
    after_whole_run,
    clean_repair_tables,
    groups,
    medians,
    models_of,
    newest_rules,
    repair_tables,
    repairs,
    version_0_1,
)
from shapprune_bench.documentation.verdicts import beside_others, by_kind, by_model, verdicts
from shapprune_bench.page import Part, pages


def result_pages(results: Path) -> dict[str, str]:
    """The pages by their names in docs/results, as Markdown.

    Args:
        results: the folder benchmarks/results.
    """
    every = repairs(results)
    newest = [r for r in every if r["cell"]["rules"] == newest_rules(every)]
    older = [r for r in every if r not in newest]
    return {
        "detection.md": _page(
            "Verdicts",
            [
                verdicts(results),
                *beside_others(results),
                *by_kind(results),
                *by_model(results),
            ],
        ),
        "attacks.md": _page("Attacks, one by one", attacks(results)),
        "repair.md": _page(
            "Repairs",
            [
                *repair_tables(newest, f"Rules {newest_rules(every)}."),
                *repair_tables(older, "Older rules."),
                *clean_repair_tables(results),
                version_0_1(results),
            ],
        ),
        "retuning.md": _page("Retuning", [retuning(results)]),
        "table1.md": _page("The paper's Table 1, on two cores", [table1(results)]),
    }


def summary(results: Path) -> str:
    """What README.md shows: verdicts and repairs in two tables."""
    every = repairs(results)
    rules = newest_rules(every)
    rows = []
    for title, some in groups([r for r in every if r["cell"]["rules"] == rules]).items():
        runs = [run for model in models_of(some) for run in model]
        known = known_as(some[0]["folder"], "repair")
        failed = sum(r["state"] == "failed" for r in some)
        told = f" ({failed} failed)" if failed else ""
        rows.append([f"{title}: {len(models_of(some))}{told}", known, *_repaired(runs)])
    head = ["models", "rules", "draws each", "accuracy lost", "ASR left"]
    head += ["right under the trigger", f"ASR at most {100 * SELECTION.asr:g} %", "whole run"]
    note = (
        f"Of repairs by rules {rules}, told the attacker's target: the median model and in "
        "brackets the worst draw; accuracy in percentage points, ASR and right answers under the "
        "trigger in per cent, on unseen images with the attacker's trigger. Whole run: ASR at most "
        "that where nothing is told and the verdict names just the target; runs that repair a map "
        "count as left alone. Strangers' `xai_*` models, siblings of one base, have a row of their "
        "own here."
    )
    first = verdicts(results, compare=False)
    both = [markdown(first.head, first.rows), note, markdown(head, rows)]
    return "\n\n".join([first.note, *both])


def _repaired(runs: Sequence[Json]) -> list[str]:
    """Of the repairs of several models, what the summary tells."""
    if not runs:
        return [""] * 6
    models = models_of(runs)
    lost, asr = zip(*map(medians, models), strict=True)
    draws_lost, draws_asr = zip(*(medians([run]) for run in runs), strict=True)
    right = [median(100 * float(r["after"]["right"]) for r in model) for model in models]
    ends = [100 * after_whole_run(run) for run in runs]
    draws = sorted({len(model) for model in models})
    return [
        " to ".join(map(str, dict.fromkeys([draws[0], draws[-1]]))),
        f"{median(lost):.1f} ({max(draws_lost):.1f})",
        f"{median(asr):.1f} ({max(draws_asr):.1f})",
        f"{median(right):.0f} ({min(100 * float(r['after']['right']) for r in runs):.0f})",
        f"{_gone(draws_asr)} of {len(runs)}",
        f"{_gone(ends)} of {len(runs)}",
    ]


def _gone(rates: Sequence[float]) -> int:
    """How many ASRs in per cent are at most what is asked for."""
    return sum(rate <= 100 * SELECTION.asr for rate in rates)


def _page(title: str, parts: Sequence[Part]) -> str:
    made_by = (
        "Made by `python -m shapprune_bench.documentation` from the files of benchmarks/results."
    )
    head, body = pages(parts, title)["report.md"].decode().split("\n", 1)
    return f"{head}\n\n{made_by}\n{body}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
