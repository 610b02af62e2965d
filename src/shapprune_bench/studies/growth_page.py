"""What scans cost as classes, pixels and parameters grow, as a page."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import ceil, floor, log10
from typing import Any

from markupsafe import Markup

from shapprune.reporting.svg import Chart, chart, element, marker, text
from shapprune_bench.page import Figure, Part, Table, pages

Done = Sequence[tuple[Any, Mapping[str, Any]]]  # points and their results, in the study's order

BASE, LARGEST = "classes-10", "resnet50"
_FLOPS = 67e12  # a second, of an H200 (SXM) in float32 without tensor cores, by its data sheet
_USED = 0.1  # share of it that a scan is taken to use: assumed
_AXES = {"classes": "classes", "pixels": "pixels a side", "parameters": "parameters"}
# By the markers that charts have.
_KEYS = {"accuracy": "seconds", "agreement": "passes", "asr": "MiB of memory"}
_TOP, _HEIGHT, _LINE = 10.0, 210.0, 15.0  # of a plot, in pixels


def report(done: Done) -> dict[str, bytes]:
    """The pages: a chart of each measure, a row a point, a row a point with its stages."""
    in_all = passes_by_classes([r for _, r in done])
    whole = [(point, r) for point, r in done if "stages" in r]
    panels = [(title, _curves(_values(whole, axis), title)) for axis, title in _AXES.items()]
    figure = Figure(
        "growth",
        "As one measure grows",
        "All axes are logarithmic; the others stay as they are at 10 classes, 32 pixels and "
        "100,000 parameters.",
        [(title, drawn) for title, drawn in panels if drawn],
        _KEYS,
    )
    parts: list[Part] = [figure, _table(done, in_all), _stages(whole)]
    return pages(parts, "What a scan costs as networks and images grow")


def passes_by_classes(results: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Of whole scans; a scan's passes hang on its classes alone, so one that was stopped borrows
    them."""
    return {r["cell"]["classes"]: r["passes"] for r in results if "stages" in r}


def _values(whole: Done, axis: str) -> list[tuple[float, Mapping[str, float]]]:
    """Where the points of an axis stand on it, and what they cost, in order."""
    found = []
    for point, result in whole:
        if point.name == BASE or point.name.startswith(f"{axis}-"):
            at = {"classes": point.classes, "pixels": point.side, **result}[axis]
            found.append((float(at), _drawn(result)))
    return sorted(found, key=lambda pair: pair[0])


def _drawn(result: Mapping[str, Any]) -> dict[str, float]:
    """What a plot shows of a scan, by the markers; memory where the system tells it."""
    shown = {"accuracy": result["seconds"], "agreement": result["passes"]}
    if (added := _added(result)) is not None:
        shown["asr"] = added
    return {key: max(float(value), 1e-9) for key, value in shown.items()}


def _added(result: Mapping[str, Any]) -> int | None:
    """MiB that a scan adds to its process at most; None where the system tells none."""
    memory: Mapping[str, int | None] = result["memory_mib"]
    before, most = memory["before"], memory["at_most"]
    return None if before is None or most is None else most - before


def _curves(values: Sequence[tuple[float, Mapping[str, float]]], across: str) -> Chart | None:
    """Seconds, passes and memory on one logarithmic axis; None of fewer than two points."""
    if len(values) < 2:
        return None
    ends = [cost for _, costs in values for cost in costs.values()]
    low, high = floor(log10(min(ends))), ceil(log10(max(ends)))
    first, last = log10(values[0][0]), log10(values[-1][0])

    def x(value: float) -> str:
        return f"{4 + 92 * (log10(value) - first) / (last - first):.3f}%"

    def y(value: float) -> float:
        return _TOP + _HEIGHT * (high - log10(value)) / (high - low)

    bottom = _TOP + _HEIGHT
    parts: list[Markup] = []
    for power in range(low, high + 1):
        at = y(10.0**power)
        parts.append(element("line", x1="0", x2="100%", y1=at, y2=at, class_="grid"))
        words = _round(10.0**power)
        parts.append(text(words, x="-6", y=at + 4, class_="tick", text_anchor="end"))
    for value, _ in values:
        words = _round(value)
        parts.append(text(words, x=x(value), y=bottom + _LINE, class_="tick", text_anchor="middle"))
    for key, name in _KEYS.items():
        known = [(value, costs[key]) for value, costs in values if key in costs]
        spots = [(x(value), f"{y(cost):.1f}") for value, cost in known]
        for (x1, y1), (x2, y2) in pairwise(spots):
            parts.append(element("line", x1=x1, x2=x2, y1=y1, y2=y2, class_=key))
        for spot, (value, cost) in zip(spots, known, strict=True):
            parts.append(marker(key, *spot, f"{value:,.0f} {across}: {cost:,g} {name}"))
    return chart(parts, bottom + _LINE + 6, f"Seconds, passes and memory over {across}")


def _round(value: float) -> str:
    """A tick, which has little room."""
    return f"{value:,g}" if value < 10_000 else f"{value:.0e}".replace("e+0", "e")


def _table(done: Done, in_all: Mapping[int, int]) -> Table:
    rows = [
        [
            point.name,
            f"{point.classes:,}",
            str(point.side),
            f"{result['parameters']:,}",
            f"{result['operations'] / 1e6:,.1f}",
            *_costs(result, in_all),
        ]
        for point, result in done
    ]
    refused = [f"{p.name} is refused: “{r['refused']}”." for p, r in done if "refused" in r]
    notes = [
        "One image a class, one thread. A pass is one image forward, or its gradient on the way "
        "back; M MACs are millions of multiply-accumulates of one. Memory is what the scan adds "
        "at most to its process. Layers are random but the last, which was fitted to the "
        "images: a verdict on such a network means nothing. It costs what a trained one does.",
        *refused,
        *_stopped(done, in_all),
        *_on_a_gpu(done, in_all),
    ]
    head = ["point", "classes", "pixels", "parameters", "M MACs", "passes", "seconds"]
    return Table("Scans", " ".join(notes), [*head, "memory, MiB"], rows)


def _costs(result: Mapping[str, Any], in_all: Mapping[int, int]) -> list[str]:
    """The cells of passes, seconds and memory."""
    if "refused" in result:
        return ["refused", "", ""]
    more = _added(result)
    added = "–" if more is None else f"{more:,}"
    if "stages" in result:
        return [f"{result['passes']:,}", f"{result['seconds']:,}", added]
    passes, seconds = expected(result, in_all) or (None, None)
    cells = [f"of {passes:,}", f"of about {seconds:,.0f}"] if passes else ["stopped", "stopped"]
    measured = [f"{result['passes']:,}", f"{result['seconds']:,}"]
    return [*(f"{m} {cell}" for m, cell in zip(measured, cells, strict=True)), added]


def expected(result: Mapping[str, Any], in_all: Mapping[int, int]) -> tuple[int, float] | None:
    """Passes and seconds of a whole scan; None where it was stopped and no other tells."""
    passes = result.get("passes") if "stages" in result else in_all.get(result["cell"]["classes"])
    if not passes or not result["passes"]:
        return None
    return passes, result["seconds"] * passes / result["passes"]


def _stopped(done: Done, in_all: Mapping[int, int]) -> list[str]:
    return [
        f"{point.name} was stopped after {result['seconds']:,} s: a whole scan takes about "
        f"{found[1] / 3600:.1f} h at that pace, an estimate."
        for point, result in done
        if "stopped" in result and (found := expected(result, in_all))
    ]


def _on_a_gpu(done: Done, in_all: Mapping[int, int]) -> list[str]:
    """What the largest network is expected to take on a GPU."""
    for point, result in done:
        found = expected(result, in_all) if point.name == LARGEST else None
        if found:
            operations = 2 * found[0] * result["operations"]
            minutes = operations / (_USED * _FLOPS) / 60
            return [
                f"On a GPU {point.name} is expected to take about {minutes:.0f} minutes, which is "
                f"an estimate and was not measured: {operations:.1e} floating-point operations at "
                f"{_USED:.0%} (assumed) of the {_FLOPS / 1e12:.0f} TFLOP/s of an H200 in float32. "
                "Small networks use less of a GPU than that."
            ]
    return []


def _stages(whole: Done) -> Table:
    names = list(dict.fromkeys(stage["name"] for _, r in whole for stage in r["stages"]))
    rows = []
    for point, result in whole:
        costs = {s["name"]: f"{s['passes'] or 0:,} in {s['seconds']:,} s" for s in result["stages"]}
        rows.append([point.name, *(costs.get(name, "") for name in names)])
    return Table("By stage", "Passes and seconds.", ["point", *names], rows, folded=True)
