"""ACC and ASR after defences, in the paper's layout and as curves."""

from collections.abc import Sequence
from typing import Any

from shapprune.reporting import charts, svg
from shapprune_bench.page import Figure, Table
from shapprune_bench.tables import paper
from shapprune_bench.tables.results import (
    FORMER_NAMES,
    NONE,
    Done,
    best_of,
    cost_of,
    median_of,
    named,
    pair,
    spreads,
)

_BEST_OF = 5  # runs, as in the paper


def score_tables(
    done: Done, experiment: str, title: str, theirs: paper.Figures, note: str
) -> tuple[Table, Table]:
    """In the paper's layout, a line for ours and one for its own; and what is behind each cell."""
    runs: dict[tuple[str, str], list[Any]] = {}
    for cell, result in done.of(experiment):
        runs.setdefault((cell.recipe.name, cell.method), []).append(result)
    shown = [*runs, *(known for known in theirs if known[0] in {name for name, _ in runs})]
    methods = [method for method in dict.fromkeys(m for _, m in shown) if method != "before"]
    layout, details, mixed = [], [], False
    for name in dict.fromkeys(name for name, _ in runs):
        some = [result for (of, _), found in runs.items() for result in found if of == name]
        several = list(dict.fromkeys(result.get("weights") for result in some))
        mixed |= len(several) > 1
        for weights in several:
            before = next(r["before"] for r in some if r.get("weights") == weights)
            row = f"{name} {weights or NONE}" if len(several) > 1 else name
            measured = [pair(before)]
            for method in methods:
                found = [r for r in runs.get((name, method), []) if r.get("weights") == weights]
                measured.append(pair(median_of(found)) if found else NONE)
                best = best_of(found) if len(found) >= _BEST_OF else ""
                measured[-1] += f" (best {best})" if best else ""
                if found:
                    figures = [*spreads(found), best or NONE, str(len(found)), *cost_of(found)]
                    details.append([row, named(method), *figures])
            layout.append([row, "measured", *measured])
        known = [theirs.get((name, method)) for method in ("before", *methods)]
        layout.append(["", "paper", *(f"{k[0]:.2f} / {k[1]:.2f}" if k else NONE for k in known)])
    told = (
        f"{note} ACC / ASR in per cent on the test images, with the attacker's trigger; medians "
        "over seeds, and of five the best one too (the largest ACC less ASR), as the paper tells "
        "it alone. The paper's are at 96 × 96 on its own models."
    )
    if any(method in FORMER_NAMES for method in methods):
        told += (
            " What version 0.1.0 had instead of the paper's method took its Algorithm 1, but our "
            "verdict, triggers and distillation; it is not computed any more."
        )
    if mixed:
        told += " A recipe makes other weights on another machine: a line for each that was met."
    head = ["row", "method", "ACC", "ASR", "best", "seeds", "seconds", "passes"]
    return (
        Table(title, told, ["", "", "before", *map(named, methods)], layout),
        Table(
            f"{title}: seeds, spread and cost",
            "Median (least … most) over the seeds; seconds and image passes are medians.",
            head,
            details,
            folded=True,
        ),
    )


def curve_figure(done: Done, experiment: str, title: str, note: str) -> Figure:
    """What becomes of ACC and ASR while neurons go, for each of an experiment's cells."""
    panels = []
    for cell, result in done.of(experiment):
        if result.get("curve") and cell.seed == 0:
            amount = "" if cell.per_class == 1 else f", {cell.per_class} images a class"
            caption = f"{done.row(cell)}, {named(cell.method)}{amount}"
            panels.append((caption, curve(result["curve"], result.get("pruned"))))
    return Figure(experiment, title, note, panels, ACC_ASR)


ACC_ASR = {name: charts.SERIES[name] for name in ("accuracy", "asr")}


def curve(points: Sequence[Sequence[float]], chosen: int | None = None) -> svg.Chart:
    """A chart of [neurons removed, ACC, ASR], with a line at the number that was chosen."""
    removed, accuracy, asr = zip(*points, strict=True)
    counts = [int(count) for count in removed]
    return charts.curve_chart(counts, {"accuracy": accuracy, "asr": asr}, chosen=chosen)
