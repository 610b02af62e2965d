"""Pages on what was measured, docs/results, and README.md's summary, from benchmarks/results.

No figure in them is written by hand, and a test compares them with the files.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from shapprune.method.settings import SELECTION
from shapprune_bench.documentation.attacks import attacks
from shapprune_bench.documentation.cells import retuning, table1
from shapprune_bench.documentation.files import known_as
from shapprune_bench.documentation.repairs import (
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
        models = models_of(some)
        failed = sum(r["state"] == "failed" for r in some)
        if not models:
            rows.append([f"{title}: none ({failed} failed)", *[""] * 6])
            continue
        lost, asr = zip(*map(medians, models), strict=True)
        draws_lost, draws_asr = zip(*(medians([r]) for m in models for r in m), strict=True)
        gone = sum(asr <= 100 * SELECTION.asr for asr in draws_asr)
        draws = sorted({len(runs) for runs in models})
        rows.append(
            [
                f"{title}: {len(models)}" + (f" ({failed} failed)" if failed else ""),
                known_as(some[0]["folder"]),
                " to ".join(map(str, dict.fromkeys([draws[0], draws[-1]]))),
                f"{median(lost):.1f} ({max(draws_lost):.1f})",
                f"{median(asr):.1f} ({max(draws_asr):.1f})",
                f"{gone} of {len(draws_asr)}",
                f"{median(float(r['seconds']) for runs in models for r in runs):.0f}",
            ]
        )
    head = ["models", "rules", "draws each", "accuracy lost", "ASR left"]
    head += [f"ASR at most {100 * SELECTION.asr:g} %", "seconds"]
    note = (
        f"Of repairs by rules {rules}, told the attacker's target, the median model and in "
        "brackets the worst draw; accuracy and ASR in points of per cent, on unseen images with "
        "the attacker's trigger. Here strangers' `xai_*` models have a row of their own."
    )
    first = verdicts(results)
    both = [markdown(first.head, first.rows), note, markdown(head, rows)]
    return "\n\n".join([first.note, *both])


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
