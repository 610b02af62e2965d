"""The tables made from the files of results, as Markdown and as one HTML page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import jinja2

from shapprune.bench import paper
from shapprune.bench.cells import Cell
from shapprune.bench.experiments import EXPERIMENTS, METHODS, ROWS, Profile, models_of
from shapprune.bench.runner import read
from shapprune.detection import combine, detect

_NONE = "–"
_NOTHING = "Nothing measured yet."


@dataclass(frozen=True)
class Table:
    """A heading, a sentence and the cells, as both pages print them."""

    title: str
    note: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(folder: Path, profile: Profile) -> list[Table]:
    """What the folder has on a profile, and every cell of it.

    Raises:
        InputError: a file that is no result.
    """
    cells = [cell for e in EXPERIMENTS.values() for cell in e.cells(profile)]
    cells = list({cell.name: cell for cell in [*models_of(cells), *cells]}.values())
    results: dict[str, Any] = {cell.name: read(folder, cell) for cell in cells}
    return [
        _models(cells, results),
        _table1(cells, results, profile),
        _detection(cells, results),
        _time(cells, results),
        _all(cells, results),
    ]


def markdown(found: Sequence[Table], title: str) -> str:
    """The tables as Markdown."""
    parts = [f"# {title}"]
    for table in found:
        lines = [table.head, ["---"] * len(table.head), *table.rows]
        body = "\n".join(f"| {' | '.join(c.replace('|', '/') for c in line)} |" for line in lines)
        body = body if table.rows else _NOTHING
        parts.append(f"## {table.title}\n\n{table.note}\n\n{body}")
    return "\n\n".join(parts) + "\n"


def html(found: Sequence[Table], title: str) -> str:
    """The tables as one page that needs nothing beside itself."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_PAGE).render(tables=found, title=title, nothing=_NOTHING)


def _done(cells: Iterable[Cell], results: Mapping[str, Any]) -> list[tuple[Cell, Any]]:
    found = [(cell, results[cell.name]) for cell in cells]
    return [(cell, result) for cell, result in found if result and result["state"] == "done"]


def _models(cells: Sequence[Cell], results: Mapping[str, Any]) -> Table:
    models = _done((c for c in cells if c.kind == "model"), results)
    twins = {c.recipe.name: r for c, r in models if not c.recipe.rate}
    rows = []
    for cell, result in models:
        if cell.recipe.rate:
            twin = twins.get(cell.recipe.name)
            acc = _percent(twin["accuracy"]) if twin else _NONE
            numbers = (_percent(result["accuracy"]), _percent(result["asr"]), acc)
            rows.append([cell.recipe.name, *numbers, f"{result['seconds']:.0f}"])
    note = "On the test images, in per cent. The twin is the same network without the attack."
    return Table("Models", note, ["model", "ACC", "ASR", "twin's ACC", "seconds"], rows)


def _table1(cells: Sequence[Cell], results: Mapping[str, Any], profile: Profile) -> Table:
    theirs = paper.table1()
    defended = _done((c for c in cells if c.kind == "defend"), results)
    rows = []
    for recipe in ROWS[profile]:
        mine = [(c, r) for c, r in defended if c.recipe == recipe]
        for method in ("before", *METHODS):
            some = [r for c, r in mine if method in ("before", c.method)]
            state = "before" if method == "before" else "after"
            row = [recipe.name, method]
            for i, name in enumerate(("accuracy", "asr")):
                row.append(_spread([100 * r[state][name] for r in some]))
                known = theirs.get((recipe.name, method))
                row.append(f"{known[i]:.2f}" if known else _NONE)
            rows.append([*row, _NONE if method == "before" else str(len(some))])
    head = ["row", "method", "ACC", "paper's", "ASR", "paper's", "seeds"]
    note = (
        "In per cent on the test images, with the attacker's trigger; median (least … most) over "
        "seeds. The paper's figures are of its Table 1, at 96 × 96 on its own models, where "
        "the best of five runs is told."
    )
    return Table("Table 1", note, head, rows)


def _detection(cells: Sequence[Cell], results: Mapping[str, Any]) -> Table:
    rows = []
    for cell, result in _done((c for c in cells if c.kind == "scan"), results):
        patch = result["norms"]["patch"]
        both = combine(list(result["norms"].values()))
        target = cell.recipe.target
        others = sorted(norm for c, norm in enumerate(patch) if c != target)
        rows.append(
            [
                cell.recipe.name,
                "poisoned" if cell.recipe.rate else "clean",
                f"{patch[target]:.2f}",
                f"{others[0]:.2f} … {others[-1]:.2f}",
                *(
                    f"{detect(patch, method=method, logarithm=False).anomaly_index:.2f}"
                    for method in ("mad", "mad-small")
                ),
                f"{detect(both).anomaly_index:.2f}",
            ]
        )
    head = ["row", "model", "target's norm", "others'", "MAD", "MAD-small", "ours"]
    note = (
        "Fig. 10: L1 norms of the inverted patches. Fig. 11: the largest anomaly index among the "
        "norms below the median; the paper's bound is 2. Ours takes the logarithms of both kinds "
        "of trigger together."
    )
    return Table("Fig. 10 and 11", note, head, rows)


def _time(cells: Sequence[Cell], results: Mapping[str, Any]) -> Table:
    rows = [
        [cell.recipe.name, cell.method, f"{result['seconds']:.1f}", f"{result['passes']:,}"]
        for cell, result in _done((c for c in cells if c.kind == "time"), results)
    ]
    note = (
        "One after another on one machine, one thread. The paper, on GTSRB and a Titan RTX: 671.13 "
        "seconds for the triggers and 585.95 for the values, and 704.54 for Neural Cleanse."
    )
    return Table("Time", note, ["row", "method", "seconds", "image passes"], rows)


def _all(cells: Sequence[Cell], results: Mapping[str, Any]) -> Table:
    rows = []
    for cell in cells:
        result = results[cell.name]
        state = "missing" if result is None else result["state"]
        name = cell.recipe.name + ("" if cell.recipe.rate else ", clean")
        cost = [_NONE, _NONE]
        if state == "done":
            passes = result.get("passes")
            cost = [f"{result['seconds']:.1f}", f"{passes:,}" if passes is not None else _NONE]
        elif state == "failed":
            state = f"failed: {result['error']}"
        rows.append([cell.kind, name, cell.method or _NONE, str(cell.seed), *cost, state])
    head = ["kind", "row", "method", "seed", "seconds", "passes", "state"]
    return Table("Every cell", "A result is a file of its own.", head, rows)


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return _NONE
    if min(values) == max(values):
        return f"{values[0]:.2f}"
    return f"{median(values):.2f} ({min(values):.2f} … {max(values):.2f})"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{{ title }}</title>
<style>
:root { color-scheme: light dark; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem;
  font: 1rem/1.5 system-ui, "DejaVu Sans", sans-serif; }
p { max-width: 44rem; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #8886; text-align: left;
  white-space: nowrap; }
td:last-child { white-space: normal; }
@media (max-width: 40rem) { th, td { padding: .3rem .35rem; } table { font-size: .85rem; } }
</style></head><body><h1>{{ title }}</h1>
{% for table in tables %}<h2>{{ table.title }}</h2><p>{{ table.note }}</p>
{% if table.rows %}<div class="wide"><table><thead>
<tr>{% for word in table.head %}<th>{{ word }}</th>{% endfor %}
</tr></thead><tbody>{% for row in table.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table></div>{% else %}<p>{{ nothing }}</p>{% endif %}
{% endfor %}</body></html>
"""
