"""The report: tables in the paper's layout and figures, made from the files of results alone."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from shapprune.bench import paper
from shapprune.bench.cells import Cell
from shapprune.bench.defences import UNREPAIRED
from shapprune.bench.experiments import EXPERIMENTS, FORMER, Profile, distinct, former, models_of
from shapprune.bench.page import Figure, Part, Table, pages
from shapprune.bench.rankings import RANKINGS, TRUTH, found, sizes
from shapprune.bench.retuning import IMAGES, STEPS
from shapprune.bench.runner import read
from shapprune.method.outliers import combine, detect, fitting_method
from shapprune.reporting import charts, svg

_NONE = "–"
_FORMER = {old: f"0.1.0 instead of {new}" for new, old in FORMER.items()}
_BEST_OF = 5  # runs, as in the paper
_PRUNED = (
    "While neurons go in a method's order, before any fine-tuning, on 1,000 test images with the "
    "attacker's trigger; a line shows how many the method itself prunes."
)


def report(folder: Path, profile: Profile) -> dict[str, bytes]:
    """The files of the report on what a folder has of a profile.

    Raises:
        InputError: a file that is no result.
    """
    cells = [cell for e in EXPERIMENTS.values() for cell in e.cells(profile)]
    cells = distinct([*models_of(cells), *cells])
    cells += [cell for cell in former(cells) if read(folder, cell)]
    results = {cell.name: read(folder, cell) for cell in cells}
    done = Done({name: r for name, r in results.items() if r and r["state"] == "done"}, profile)
    parts: list[Part] = [
        _models(done),
        *_scores(done, "table1", "Table 1", paper.TABLE1, "With one clean image a class."),
        *_scores(
            done,
            "table2",
            "Table 2",
            paper.TABLE2,
            "Without any clean image: all but DeepInspect get those that we recover.",
        ),
        *_scores(
            done,
            "table5",
            "Table 5",
            paper.TABLE5,
            "Without any clean image: pruned by the values for ASR and ACC, or for ASR alone.",
        ),
        _curves(done, "fig3", "Fig. 3", "By ShapPruning and by Fine-Pruning. " + _PRUNED),
        _curves(done, "fig4", "Fig. 4", "With so many clean images a class. " + _PRUNED),
        *_scores(
            done,
            "fig7to9",
            "Fig. 7 to 9",
            paper.FIG7TO9,
            "The paper tells its in the captions of Fig. 8 and 9.",
        ),
        _curves(done, "fig7to9", "Fig. 7 to 9, curves", _PRUNED),
        *_detection(done),
        _time(done),
        *_ranking(done),
        _retuning(done),
        _all(cells, results),
    ]
    return pages(parts, f"shapprune bench, profile {profile}")


class Done:
    """The results that there are, by their experiments' cells."""

    def __init__(self, results: Mapping[str, Any], profile: Profile) -> None:
        self._results, self._profile = results, profile

    def of(self, experiment: str) -> list[tuple[Cell, Any]]:
        """An experiment's cells that are done, in its order, and then what they have replaced."""
        cells = list(EXPERIMENTS[experiment].cells(self._profile))
        return [(cell, self[cell]) for cell in [*cells, *former(cells)] if self[cell]]

    def __getitem__(self, cell: Cell) -> Any:
        """A cell's result, None if there is none."""
        return self._results.get(cell.name)


def _models(done: Done) -> Table:
    rows = []
    for cell, result in done.of("models"):
        twin = done[Cell("model", cell.recipe.clean_twin())]
        rows.append(
            [
                cell.recipe.name,
                f"{100 * result['accuracy']:.2f}",
                f"{100 * twin['accuracy']:.2f}" if twin else _NONE,
                f"{100 * result['asr']:.2f}",
                *_cost([result]),
            ]
        )
    note = (
        "On the test images, in per cent. The twin is the same network trained without the attack."
    )
    head = ["model", "ACC", "twin's ACC", "ASR", "seconds", "passes"]
    return Table("Models", note, head, rows)


def _scores(
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
            row = f"{name} {weights or _NONE}" if len(several) > 1 else name
            measured = [_pair(before)]
            for method in methods:
                found = [r for r in runs.get((name, method), []) if r.get("weights") == weights]
                measured.append(_pair(_median(found)) if found else _NONE)
                best = _best(found) if len(found) >= _BEST_OF else ""
                measured[-1] += f" (best {best})" if best else ""
                if found:
                    figures = [*_spreads(found), best or _NONE, str(len(found)), *_cost(found)]
                    details.append([row, _named(method), *figures])
            layout.append([row, "measured", *measured])
        known = [theirs.get((name, method)) for method in ("before", *methods)]
        layout.append(["", "paper", *(f"{k[0]:.2f} / {k[1]:.2f}" if k else _NONE for k in known)])
    told = (
        f"{note} ACC / ASR in per cent on the test images, with the attacker's trigger; medians "
        "over seeds, and of five the best one too (the largest ACC less ASR), as the paper tells "
        "it alone. The paper's are at 96 × 96 on its own models."
    )
    if any(method in _FORMER for method in methods):
        told += (
            " What version 0.1.0 had instead of the paper's method took its Algorithm 1, but our "
            "verdict, triggers and distillation; it is not computed any more."
        )
    if mixed:
        told += " A recipe makes other weights on another machine: a line for each that was met."
    head = ["row", "method", "ACC", "ASR", "best", "seeds", "seconds", "passes"]
    return (
        Table(title, told, ["", "", "before", *map(_named, methods)], layout),
        Table(
            f"{title}: seeds, spread and cost",
            "Median (least … most) over the seeds; seconds and image passes are medians.",
            head,
            details,
            folded=True,
        ),
    )


def _curves(done: Done, experiment: str, title: str, note: str) -> Figure:
    panels = []
    for cell, result in done.of(experiment):
        if result.get("curve") and cell.seed == 0:
            amount = "" if cell.per_class == 1 else f", {cell.per_class} images a class"
            caption = f"{cell.recipe.name}, {_named(cell.method)}{amount}"
            panels.append((caption, _curve(result["curve"], result.get("pruned"))))
    return Figure(experiment, title, note, panels, _ACC_ASR)


_ACC_ASR = {name: charts.SERIES[name] for name in ("accuracy", "asr")}


def _curve(points: Sequence[Sequence[float]], chosen: int | None = None) -> svg.Chart:
    removed, accuracy, asr = zip(*points, strict=True)
    counts = [int(count) for count in removed]
    return charts.curve_chart(counts, {"accuracy": accuracy, "asr": asr}, chosen=chosen)


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
        row = [cell.recipe.name, f"{patch[target]:.2f}" if poisoned else _NONE, span]
        outliers = ", ".join(map(str, both.targets)) or "none"
        indices_told = (f"{index:.2f}" for index in found.values())
        rows.append([*row, *indices_told, outliers, *_cost([result])])
        if poisoned:
            bar = (others[0], others[-1])
            norms.append(charts.Span(cell.recipe.name, bar, {"target": patch[target]}))
        indices.append(charts.Span(cell.recipe.name, None, found))
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
        told = f"{known:.2f}" if known else _NONE
        rows.append([_named(cell.method), "all", *_cost([result]), told])
        stages = result["stages"] if len(result["stages"]) > 1 else []
        rows += [["", stage["name"], *_cost([stage]), ""] for stage in stages]
    note = (
        "One after another on one machine, one thread. The paper's seconds are on GTSRB and a "
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
        hits, correlation = _NONE, _NONE
        if true is not None and method != TRUTH:
            top, _ = sizes(len(true))
            values = [torch.tensor(result["values"]) for result in some]
            hits = f"{_spread([found(v, true) for v in values], 0)} of {top}"
            both = [torch.corrcoef(torch.stack([v, true])) for v in values]
            correlation = _spread([float(c[0, 1]) for c in both])
        known = paper.RANKING.get(method)
        areas = _spread([100 * _area(result["curve"]) for result in some], 1)
        theirs = f"{known} of 50" if known else _NONE
        rows.append([method, hits, theirs, correlation, areas, str(len(some)), *_cost(some)])
        panels.append((method, _curve(some[0]["curve"])))
    yield Table(
        "Ranking",
        "How many of a ranking's best neurons are among the true best (the paper's 50 of 70, or "
        "the same share of a smaller network); the truth is a long Monte-Carlo run. The area "
        "under ASR is its mean in per cent while the best go, over the points of the figure.",
        ["ranking", "found", "paper's", "correlation", "area", "seeds", "seconds", "passes"],
        rows,
    )
    yield Figure("ranking", "Ranking, curves", _PRUNED, panels, _ACC_ASR)


def _area(curve: Sequence[Sequence[float]]) -> float:
    return sum(asr for _, _, asr in curve) / len(curve)


def _retuning(done: Done) -> Table:
    rows = [
        [
            cell.recipe.name,
            cell.method,
            *(_pair(result[when]) for when in ("before", "after", "retuned")),
            f"{100 * (result['retuned']['asr'] - result['after']['asr']):+.2f}",
            *_cost([result]),
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
        state, cost, commit = "missing", (_NONE, _NONE), _NONE
        if result:
            state, commit = result["state"], result.get("commit", _NONE)
            if state == "done":
                cost = _cost([result])
            else:
                state = f"failed: {result['error']}"
        images = _NONE if cell.kind == "model" else str(cell.per_class)
        words = [cell.kind, cell.recipe.name, cell.method or _NONE, images, str(cell.seed)]
        rows.append([*words, *cost, commit, state])
    head = ["kind", "row", "method", "a class", "seed", "seconds", "passes", "commit", "state"]
    return Table("Every cell", "A result is a file of its own.", head, rows, folded=True)


def _median(results: Sequence[Any]) -> dict[str, float]:
    return {key: median(result["after"][key] for result in results) for key in ("accuracy", "asr")}


def _best(results: Sequence[Any]) -> str:
    """Of the run with the largest ACC less ASR."""
    after = [result["after"] for result in results]
    return _pair(max(after, key=lambda score: score["accuracy"] - score["asr"]))


def _named(method: str) -> str:
    """What a column is headed: the files of version 0.1.0 call its hybrids by names of ours."""
    return _FORMER.get(method, method)


def _pair(score: Mapping[str, float]) -> str:
    return f"{100 * score['accuracy']:.2f} / {100 * score['asr']:.2f}"


def _spreads(results: Sequence[Any]) -> list[str]:
    return [
        _spread([100 * result["after"][key] for result in results]) for key in ("accuracy", "asr")
    ]


def _spread(values: Iterable[float], digits: int = 2) -> str:
    """The median, and the range where there is one."""
    found = sorted(values)
    if found[0] == found[-1]:
        return f"{found[0]:.{digits}f}"
    return f"{median(found):.{digits}f} ({found[0]:.{digits}f} … {found[-1]:.{digits}f})"


def _cost(results: Sequence[Any]) -> tuple[str, str]:
    """Median seconds and image passes, where they are known."""
    passes = [result["passes"] for result in results if result.get("passes") is not None]
    seconds = f"{median(result['seconds'] for result in results):.1f}"
    return seconds, f"{median(passes):,.0f}" if passes else _NONE
