"""The report: tables in the paper's layout and figures, made from the files of results alone."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from shapprune.errors import InputError
from shapprune.method.outliers import combine, detect, fitting_method
from shapprune.reporting import charts
from shapprune.running.runner import read
from shapprune_bench.page import Figure, Part, Table, pages
from shapprune_bench.tables import paper
from shapprune_bench.tables.cells import Cell
from shapprune_bench.tables.defences import UNREPAIRED
from shapprune_bench.tables.experiments import (
    EXPERIMENTS,
    Profile,
    distinct,
    former,
    models_of,
)
from shapprune_bench.tables.rankings import RANKINGS, TRUTH, found, sizes
from shapprune_bench.tables.results import NONE, Done, cost_of, named, pair, spread
from shapprune_bench.tables.retuning import IMAGES, STEPS
from shapprune_bench.tables.scores import ACC_ASR, curve, curve_figure, score_tables

_PRUNED = (
    "While neurons go in a method's order, before any fine-tuning, on 1,000 test images with the "
    "attacker's trigger; a line shows how many the method itself prunes."
)


def report(folder: Path, profile: Profile) -> dict[str, bytes]:
    """The files of the report on what a folder has of a profile.

    Raises:
        InputError: a file that is no result, or none of this profile.
    """
    cells = [cell for e in EXPERIMENTS.values() for cell in e.cells(profile)]
    cells = distinct([*models_of(cells), *cells])
    cells += [cell for cell in former(cells) if read(folder, cell)]
    results = {cell.name: read(folder, cell) for cell in cells}
    if not any(results.values()):
        raise InputError(f"{folder} has no results of the profile {profile}: see --profile")
    done = Done({name: r for name, r in results.items() if r and r["state"] == "done"}, profile)
    parts: list[Part] = [
        _models(done),
        *score_tables(done, "table1", "Table 1", paper.TABLE1, "With one clean image a class."),
        *score_tables(
            done,
            "table2",
            "Table 2",
            paper.TABLE2,
            "Without any clean image: all but DeepInspect get those that we recover.",
        ),
        *score_tables(
            done,
            "table5",
            "Table 5",
            paper.TABLE5,
            "Without any clean image: pruned by the values for ASR and ACC, or for ASR alone.",
        ),
        curve_figure(done, "fig3", "Fig. 3", "By ShapPruning and by Fine-Pruning. " + _PRUNED),
        curve_figure(done, "fig4", "Fig. 4", "With so many clean images a class. " + _PRUNED),
        *score_tables(
            done,
            "fig7to9",
            "Fig. 7 to 9",
            paper.FIG7TO9,
            "The paper tells its in the captions of Fig. 8 and 9.",
        ),
        curve_figure(done, "fig7to9", "Fig. 7 to 9, curves", _PRUNED),
        *_detection(done),
        _time(done),
        *_ranking(done),
        _retuning(done),
        _all(cells, results),
    ]
    return pages(parts, f"shapprune bench, profile {profile}")


def _models(done: Done) -> Table:
    rows = []
    for cell, result in done.of("models"):
        twin = done[Cell("model", cell.recipe.clean_twin())]
        rows.append(
            [
                cell.recipe.name,
                f"{100 * result['accuracy']:.2f}",
                f"{100 * twin['accuracy']:.2f}" if twin else NONE,
                f"{100 * result['asr']:.2f}",
                *cost_of([result]),
            ]
        )
    note = (
        "On the test images, in per cent. The twin is the same network trained without the attack."
    )
    head = ["model", "ACC", "twin's ACC", "ASR", "seconds", "passes"]
    return Table("Models", note, head, rows)


def _detection(done: Done) -> Iterator[Part]:
    rows, norms, indices = [], [], []
    for cell, result in done.of("fig10"):
        patch, target = result["norms"]["patch"], cell.recipe.target
        others = sorted(norm for c, norm in enumerate(patch) if c != target)
        both = detect(combine(list(result["norms"].values())), method=fitting_method(len(patch)))
        found = {
            "mad": detect(patch, method="mad", logarithm=False).anomaly_index,
            "mad-small": detect(patch, logarithm=False).anomaly_index,
            "both": both.anomaly_index,
        }
        poisoned = cell.recipe.rate > 0
        span = f"{others[0]:.2f} … {others[-1]:.2f}"
        row = [done.row(cell), f"{patch[target]:.2f}" if poisoned else NONE, span]
        outliers = ", ".join(map(str, both.targets)) or "none"
        indices_told = (f"{index:.2f}" for index in found.values())
        rows.append([*row, *indices_told, outliers, *cost_of([result])])
        if poisoned:
            bar = (others[0], others[-1])
            norms.append(charts.Span(done.row(cell), bar, {"target": patch[target]}))
        indices.append(charts.Span(done.row(cell), None, found))
    yield Figure(
        "fig10",
        "Fig. 10",
        "L1 norms of the inverted patches of poisoned models: the bar spans the other classes'.",
        [("", charts.span_chart(norms, title="Norms of the inverted triggers"))] if norms else [],
        {"target": "the target's norm"},
    )
    yield Figure(
        "fig11",
        "Fig. 11",
        "The largest anomaly index among the norms below the median; the paper's bound is 2. "
        "Both takes the logarithms of patches and perturbations together. The verdict of `scan` "
        "is another one: it rests on more evidence.",
        [("", charts.span_chart(indices, title="Anomaly indices", bound=2.0))] if indices else [],
        {"mad": "MAD", "mad-small": "MAD-small", "both": "both kinds"},
    )
    note = "Outliers are the classes whose index, of both kinds of trigger together, is above 2."
    indices_head = ["MAD", "MAD-small", "both", "outliers"]
    head = ["model", "target's norm", "others'", *indices_head, "seconds", "passes"]
    yield Table("Fig. 10 and 11 as numbers", note, head, rows, folded=True)


def _time(done: Done) -> Table:
    rows = []
    for cell, result in done.of("time"):
        known = paper.TIME.get(cell.method)
        told = f"{known:.2f}" if known else NONE
        rows.append([named(cell.method), "all", *cost_of([result]), told])
        stages = result["stages"] if len(result["stages"]) > 1 else []
        rows += [["", stage["name"], *cost_of([stage]), ""] for stage in stages]
    note = (
        "One thread each, on a machine of two cores beside other work: compare the passes rather "
        "than the seconds. Ours with its own verdict repairs nothing where that says clean; told "
        "the target, it repairs. The paper's seconds are on GTSRB and a "
        "Titan RTX, 671.13 of ours for the triggers and 585.95 for the values."
    )
    return Table("Time", note, ["method", "stage", "seconds", "passes", "paper's seconds"], rows)


def _ranking(done: Done) -> Iterator[Part]:
    runs: dict[str, list[Any]] = {}
    for cell, result in done.of("ranking"):
        runs.setdefault(cell.method, []).append(result)
    true = torch.tensor(runs[TRUTH][0]["values"]) if TRUTH in runs else None
    rows, panels = [], []
    for method in (name for name in RANKINGS if name in runs):
        some = runs[method]
        hits, correlation = NONE, NONE
        if true is not None and method != TRUTH:
            top, _ = sizes(len(true))
            values = [torch.tensor(result["values"]) for result in some]
            hits = f"{spread([found(v, true) for v in values], 0)} of {top}"
            both = [torch.corrcoef(torch.stack([v, true])) for v in values]
            correlation = spread([float(c[0, 1]) for c in both])
        known = paper.RANKING.get(method)
        areas = spread([100 * _area(result["curve"]) for result in some], 1)
        theirs = f"{known} of 50" if known else NONE
        rows.append([method, hits, theirs, correlation, areas, str(len(some)), *cost_of(some)])
        panels.append((method, curve(some[0]["curve"])))
    yield Table(
        "Ranking",
        "How many of a ranking's best neurons are among the true best (the paper's 50 of 70, or "
        "the same share of a smaller network); the truth is a long Monte-Carlo run. The area "
        "under ASR is its mean in per cent while the best go, over the points of the figure.",
        ["ranking", "found", "paper's", "correlation", "area", "seeds", "seconds", "passes"],
        rows,
    )
    yield Figure("ranking", "Ranking, curves", _PRUNED, panels, ACC_ASR)


def _area(curve: Sequence[Sequence[float]]) -> float:
    return sum(asr for _, _, asr in curve) / len(curve)


def _retuning(done: Done) -> Table:
    rows = [
        [
            cell.recipe.name,
            cell.method,
            *(pair(result[when]) for when in ("before", "after", "retuned")),
            f"{100 * (result['retuned']['asr'] - result['after']['asr']):+.2f}",
            *cost_of([result]),
        ]
        for cell, result in done.of("retuning")
    ]
    note = (
        f"ACC / ASR in per cent on the test images, with the attacker's trigger: of the poisoned "
        f"model, of the repaired one, and of that after {STEPS} steps of plain fine-tuning on "
        f"{IMAGES:,} clean training images that the repair has not seen (after Min et al. 2024). "
        f'"{UNREPAIRED}" repairs nothing: what such tuning alone does. Seconds and passes are the '
        "repair's."
    )
    head = ["row", "method", "before", "repaired", "retuned", "ASR back", "seconds", "passes"]
    return Table("Retuning", note, head, rows)


def _all(cells: Sequence[Cell], results: Mapping[str, Any]) -> Table:
    rows = []
    for cell in cells:
        result = results[cell.name]
        state, cost, commit = "missing", (NONE, NONE), NONE
        if result:
            state, commit = result["state"], result.get("commit", NONE)
            if state == "done":
                cost = cost_of([result])
            else:
                state = f"failed: {result['error']}"
        images = NONE if cell.kind == "model" else str(cell.per_class)
        words = [cell.kind, cell.recipe.name, cell.method or NONE, images, str(cell.seed)]
        rows.append([*words, *cost, commit, state])
    head = ["kind", "row", "method", "a class", "seed", "seconds", "passes", "commit", "state"]
    return Table("Every cell", "A result is a file of its own.", head, rows, folded=True)
