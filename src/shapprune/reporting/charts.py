"""Small charts as SVG, for the report.

Across, positions are percentages, and down, pixels: a chart takes any width, and its words keep
their size. Axis labels stand outside the plot, where the page leaves room for them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, exp, floor, inf, log, log10

from markupsafe import Markup, escape

from shapprune.utils.text import printable

_HEIGHT = 170.0  # of the plots, in pixels
_TOP = 22.0
_LINE = 15.0  # between lines of words
_SPAN = 34.0  # between the lines of `span_chart`
_BAR = 17.0  # the height of a line of `score_chart`
_MOST_BARS = 30
_MAP = 420.0  # the height of `map_chart` at most
_MOST_TOLD = 12  # classes of a map whose shares stand in the cells
_MOST_TICKS = 16  # below a curve, on half a page


@dataclass(frozen=True)
class Bar:
    """A line of `score_chart`.

    Attributes:
        tick: a short name, beside the plot.
        name: what it is about.
        value: how long it is.
        mark: what became of it: "target", "suspected" or nothing.
    """

    tick: str
    name: str
    value: float
    mark: str = ""


def score_chart(
    bars: Sequence[Bar], *, bounds: Mapping[str, float], clean: Sequence[float] = ()
) -> "Chart":
    """Scores as bars from the left, the highest on top, with bounds as rules.

    Of many, the highest are shown, and the others as one span.

    Args:
        bars: at least one, in any order.
        bounds: by their names.
        clean: scores of clean models, shown as strokes in a line of their own.
    """
    order = sorted(bars, key=lambda bar: -bar.value)
    shown, rest = order[:_MOST_BARS], order[_MOST_BARS:]
    values = [v for v in (*(bar.value for bar in bars), *bounds.values(), *clean) if abs(v) < inf]
    pad = 0.04 * (max(values) - min(values)) or 1.0
    low, high = min(values) - pad, max(values) + pad

    def x(value: float) -> float:
        return 100 * min(max((value - low) / (high - low), 0.0), 1.0)

    top = _TOP + _LINE * (len(bounds) - 1)
    lines = len(shown) + bool(rest) + bool(clean)
    bottom = top + _BAR * lines
    parts = []
    for tick in _even_ticks(low, high):
        at = f"{x(tick):.3f}%"
        parts.append(_element("line", x1=at, x2=at, y1=top, y2=bottom, class_="grid"))
        parts.append(
            _text(
                f"{tick:g}".replace("-", "−"),
                x=at,
                y=bottom + _LINE,
                class_="tick",
                text_anchor="middle",
            )
        )
    y = top
    names: list[Markup] = []
    for bar in shown:
        parts += _bar(bar, x(bar.value), y)
        if bar.mark:
            words = f"{printable(bar.name, 24)}: {_minus(bar.value)}, {bar.mark}"
            outside = x(bar.value) < 45
            at, kind = f"{x(bar.value) if outside else 0:.3f}%", bar.mark
            if not outside:
                kind = "" if bar.mark == "suspected" else "inside"  # of a bar that is paler
            told = _text(words, x="6", y=y + 12, class_=f"name {kind}")
            names.append(_element("svg", told, x=at))
        y += _BAR
    if rest:
        hint = f"{len(rest)} others: {_minus(rest[-1].value)} to {_minus(rest[0].value)}"
        left, right = (f"{x(bar.value):.3f}%" for bar in (rest[-1], rest[0]))
        middle, title = y + _BAR / 2, _element("title", hint)
        parts.append(
            _element("line", title, class_="span", x1=left, x2=right, y1=middle, y2=middle)
        )
        told = _text(f"{len(rest)} others", x="6", y=middle + 4, class_="tick")
        room = x(rest[0].value) < 75
        names.append(_element("svg", told, x=right if room else "0"))
        y += _BAR
    if clean:
        for value in clean:
            at = f"{x(value):.3f}%"
            parts.append(_element("line", x1=at, x2=at, y1=y + 3, y2=y + _BAR - 2, class_="stroke"))
        parts.append(_text("clean", x="-6", y=y + 12, class_="tick", text_anchor="end"))
    for i, (name, bound) in enumerate(bounds.items()):
        at, above = f"{x(bound):.3f}%", top - 8 - _LINE * (len(bounds) - 1 - i)
        parts.append(_element("line", class_="bound", x1=at, x2=at, y1=above + 3, y2=bottom))
        anchor = "end" if x(bound) > (30 if i == 0 else 70) else "start"
        words = f"{name}: above {_minus(bound)}"
        parts.append(_text(words, x=at, y=above, class_="tick", text_anchor=anchor))
    words = "The score of each class, and the bounds"
    return _chart([*parts, *names], bottom + _LINE + 6, words)


def _bar(bar: Bar, end: float, y: float) -> list[Markup]:
    hint = _element("title", f"{bar.name}: score {_minus(bar.value)}")
    parts = [
        _element(
            "rect",
            hint,
            x="0",
            width=f"{max(end, 0.3):.3f}%",
            y=f"{y + 2:.1f}",
            height=f"{_BAR - 4:.1f}",
            class_=f"bar {bar.mark}",
        )
    ]
    parts.append(_text(bar.tick, x="-6", y=y + 12, class_="tick", text_anchor="end"))
    return parts


def map_chart(answers: Sequence[Sequence[float]]) -> "Chart":
    """Where the images of each class (row) go, as shares of their row, in shades.

    Args:
        answers: one row a class, as many columns; a row without images is empty.
    """
    n = len(answers)
    step, side = 100 / n, max(1.0, min(24.0, _MAP / n))
    every = max(1, -(-n // 20))
    parts = []
    for c in range(0, n, every):
        at, y = f"{(c + 0.5) * step:.3f}%", _TOP + (c + 0.5) * side + 4
        parts.append(_text(str(c), x=at, y=_TOP - 8, class_="tick", text_anchor="middle"))
        parts.append(_text(str(c), x="-6", y=y, class_="tick", text_anchor="end"))
    for row, counts in enumerate(answers):
        y, whole = _TOP + row * side, sum(counts)
        for column, count in enumerate(counts):
            if not count:
                continue
            share = count / whole
            parts.append(
                _element(
                    "rect",
                    _element("title", f"{row} → {column}: {share:.0%}"),
                    x=f"{column * step:.3f}%",
                    width=f"{step:.3f}%",
                    y=f"{y:.1f}",
                    height=f"{side:.1f}",
                    fill_opacity=f"{max(share, 0.06):.2f}",
                    class_="cell own" if row == column else "cell",
                )
            )
            if n <= _MOST_TOLD and share >= 0.1:
                at, middle = f"{(column + 0.5) * step:.3f}%", y + side / 2 + 4
                words = f"{100 * share:.0f}"
                parts.append(_text(words, x=at, y=middle, class_="cell", text_anchor="middle"))
    parts.append(_element("rect", width="100%", y=_TOP, height=n * side, class_="frame"))
    return _chart(parts, _TOP + n * side + 6, "Where the images of each class (row) go (column)")


def curve_chart(
    pruned: Sequence[int], series: Mapping[str, Sequence[float]], *, chosen: int | None = None
) -> "Chart":
    """ACC, agreement and ASR over the number of neurons pruned (as Fig. 3).

    Args:
        pruned: the numbers, one step apart however irregular they are.
        series: shares in [0, 1] under some of the names in `SERIES`.
        chosen: how many neurons went in the end.
    """

    def y(share: float) -> float:
        return _TOP + _HEIGHT * (1 - share)

    step = 100 / len(pruned)
    xs = [(i + 0.5) * step for i in range(len(pruned))]
    parts = [_gridline(y(share), f"{share:.0%}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    below = _TOP + _HEIGHT + _LINE + 3
    for i, (x, count) in enumerate(zip(xs, pruned, strict=True)):
        at = f"{x:.3f}%"
        if len(pruned) <= _MOST_TICKS or i % 2 == 0 or count == chosen:
            mine = "tick chosen" if count == chosen else "tick"
            parts.append(_text(str(count), x=at, y=below, class_=mine, text_anchor="middle"))
        if count == chosen:
            parts.append(_element("line", x1=at, x2=at, y1=_TOP, y2=y(0), class_="chosen"))
            anchor = "start" if x < 25 else "end" if x > 75 else "middle"
            words = f"{chosen} pruned"
            parts.append(_text(words, x=at, y=_TOP - 8, class_="name", text_anchor=anchor))
    for name, shares in series.items():
        for i in range(len(pruned) - 1):
            parts.append(
                _element(
                    "line",
                    x1=f"{xs[i]:.3f}%",
                    x2=f"{xs[i + 1]:.3f}%",
                    y1=f"{y(shares[i]):.1f}",
                    y2=f"{y(shares[i + 1]):.1f}",
                    class_=name,
                )
            )
        for x, count, share in zip(xs, pruned, shares, strict=True):
            title = f"{count} pruned: {SERIES[name]} {share:.1%}"
            parts.append(_marker(name, f"{x:.3f}%", f"{y(share):.1f}", title))
    names = ", ".join(SERIES[name] for name in series)
    return _chart(parts, below + 6, f"{names} over the number of neurons pruned")


SERIES = {"accuracy": "ACC", "agreement": "agreement", "asr": "ASR"}


@dataclass(frozen=True)
class Span:
    """A line of `span_chart`.

    Attributes:
        name: what it is about.
        bar: from where to where, or None.
        marks: values by the names of their markers, see `legend`.
    """

    name: str
    bar: tuple[float, float] | None
    marks: Mapping[str, float]


def span_chart(spans: Sequence[Span], *, title: str, bound: float | None = None) -> "Chart":
    """Bars and marks across a logarithmic axis, a line for each thing (as Fig. 10 and 11).

    Args:
        spans: at least one; values that are not positive and finite stand at the ends.
        bound: where a rule is drawn.
    """
    ends = [v for span in spans for v in (*(span.bar or ()), *span.marks.values())]
    ends = [value for value in ends if 0 < value < inf] + ([bound] if bound else [])
    low, high = log(min(ends, default=1)) - 0.1, log(max(ends, default=1)) + 0.1

    def x(value: float) -> str:
        share = (log(value) - low) / (high - low) if 0 < value < inf else float(value > 0)
        return f"{100 * share:.3f}%"

    bottom = _TOP + _SPAN * len(spans)
    parts = []
    for tick in _ticks(exp(low), exp(high)):
        at = x(tick)
        parts.append(_element("line", x1=at, x2=at, y1=_TOP, y2=bottom, class_="grid"))
        parts.append(
            _text(f"{tick:g}", x=at, y=bottom + _LINE, class_="tick", text_anchor="middle")
        )
    if bound:
        at = x(bound)
        parts.append(_element("line", x1=at, x2=at, y1=_TOP, y2=bottom, class_="bound"))
        words = f"bound {bound:g}"
        parts.append(_text(words, x=at, y=_TOP - 8, class_="tick", text_anchor="middle"))
    for i, span in enumerate(spans):
        y = _TOP + _SPAN * i + _LINE
        parts.append(_text(span.name, x="0", y=y, class_="name"))
        y += 0.6 * _LINE
        if span.bar:
            words = f"{span.name}: {span.bar[0]:.3g} to {span.bar[1]:.3g}"
            hint, (one, other) = _element("title", words), map(x, span.bar)
            parts.append(_element("line", hint, class_="span", x1=one, x2=other, y1=y, y2=y))
        for name, value in span.marks.items():
            words = f"{span.name}: {name} {value:.3g}"
            parts.append(_marker(name, x(value), f"{y:.1f}", words))
    return _chart(parts, bottom + _LINE + 6, title)


def legend(keys: Mapping[str, str] = SERIES) -> Markup:
    """A marker and a name each.

    Args:
        keys: what each of these markers stands for.
    """
    found = [
        Markup(
            '<span class="key"><svg width="26" height="12" aria-hidden="true">{}{}</svg> {}</span>'
        ).format(
            _element("line", x1=0, x2=26, y1=6, y2=6, class_=name), _marker(name, "13", "6"), title
        )
        for name, title in keys.items()
    ]
    return Markup(" ").join(found)


class Chart(Markup):
    """An svg element that takes any width.

    Attributes:
        height: in pixels.
    """

    height: float


def sheet(panels: Sequence[tuple[str, Chart]], keys: Mapping[str, str]) -> str:
    """Charts under their captions, two beside each other, as an SVG file of its own.

    Args:
        panels: captions and charts; one alone gets the whole width.
        keys: see `legend`.
    """
    across = min(2, len(panels))
    whole, left, right = 820.0, 44.0, 56.0  # the sheet, and what axis labels take at both sides
    parts = []
    for i, (name, words) in enumerate(keys.items()):
        at = left + i * whole / max(4, len(keys))
        parts.append(_marker(name, str(at), "14"))
        parts.append(_text(words, x=str(at + 12), y=18, class_="name"))
    top = 34.0
    for row in range(0, len(panels), across):
        some = panels[row : row + across]
        for i, (caption, chart) in enumerate(some):
            at = left + i * whole / across
            parts.append(_text(caption, x=str(at), y=top + 12, class_="caption"))
            parts.append(
                _element("svg", chart, x=at, y=top + 22, width=whole / across - left - right)
            )
        top += max(chart.height for _, chart in some) + 40
    style = Markup("<style>text {{ font-family: system-ui, sans-serif; }} {}</style>").format(STYLE)
    page = _element("rect", width="100%", height="100%", class_="page")
    return _element(
        "svg",
        style + page + Markup("").join(parts),
        xmlns="http://www.w3.org/2000/svg",
        class_="sheet",
        width=whole,
        height=top,
        viewBox=f"0 0 {whole:g} {top:g}",
    )


# Colours and lines of all charts, for the pages that they stand in.
STYLE = Markup("""
:root { color-scheme: light dark; --page: #fff; --panel: #f4f5f7; --ink: #1b1f24; --soft: #57606a;
  --line: #d5d9de; --bar: #8b95a1; --blue: #0b5cad; --orange: #b04a00; --green: #00705a; }
@media screen and (prefers-color-scheme: dark) {
  :root { --page: #14171b; --panel: #1e2329; --ink: #e8eaed; --soft: #a3abb5; --line: #39414a;
    --bar: #7b8591; --blue: #6cb4ff; --orange: #ff9a4d; --green: #4fd0b0; } }
svg { overflow: visible; } .page { fill: var(--page); }
.chart text, .sheet text { fill: var(--ink); font-size: 12px; paint-order: stroke;
  stroke: var(--page); stroke-width: 3px; }
.chart .tick { fill: var(--soft); font-size: 11px; }
.chart .tick.chosen { fill: var(--ink); font-weight: 700; }
.chart .name, .sheet .caption { font-weight: 600; }
.chart text.target, .chart text.found, .chart text.suspected { fill: var(--orange); }
.bar { fill: var(--bar); } .marked .bar { fill: var(--orange); }
.bar.target, .bar.found, .bar.suspected { fill: var(--orange); }
.bar.suspected { fill-opacity: .65; }
.stroke { stroke: var(--soft); stroke-opacity: .6; }
.chart text.inside { fill: var(--page); stroke: none; }
.cell { fill: var(--orange); } .cell.own { fill: var(--bar); }
.chart text.cell { fill: var(--ink); }
.frame { fill: none; stroke: var(--line); }
.grid { stroke: var(--line); }
.bound { stroke: var(--ink); stroke-dasharray: 5 4; }
line.chosen { stroke: var(--bar); stroke-width: 12px; opacity: .3; }
line.span { stroke: var(--bar); stroke-width: 9px; }
line.accuracy, line.agreement, line.asr { stroke-width: 2px; }
.accuracy, circle.mad-small { stroke: var(--blue); fill: var(--blue); }
.agreement, rect.mad { stroke: var(--green); fill: var(--green); }
.asr, path.target, path.both { stroke: var(--orange); fill: var(--orange); }
line.agreement { stroke-dasharray: 7 3; } line.asr { stroke-dasharray: 2 3; }
""")


def meter(share: float) -> Markup:
    """A bar that fills a share of its width."""
    fill = _element("rect", width=f"{100 * share:.2f}%", height="100%", class_="bar")
    return _element("svg", fill, class_="meter", aria_hidden="true")


_CIRCLE = ("circle", {"r": "4"})
_SQUARE = ("rect", {"x": "-3.5", "y": "-3.5", "width": "7", "height": "7"})
_TRIANGLE = ("path", {"d": "M0-5.5 5 4-5 4z"})
_STAR = ("path", {"d": "M0-7 1.7-2.3 6.7-2.2 2.7.9 4.1 5.7 0 2.8-4.1 5.7-2.7.9-6.7-2.2-1.7-2.3z"})
_SHAPES = {
    **{"accuracy": _CIRCLE, "agreement": _SQUARE, "asr": _TRIANGLE},
    **{"mad-small": _CIRCLE, "mad": _SQUARE, "both": _TRIANGLE, "target": _STAR},
}


def _marker(name: str, x: str, y: str, title: str = "") -> Markup:
    tag, shape = _SHAPES[name]
    inside = _element("title", title) if title else ""
    return _element("svg", _element(tag, inside, class_=name, **shape), x=x, y=y)


def _chart(parts: Sequence[Markup], height: float, title: str) -> Chart:
    inside = Markup("").join(parts)
    chart = Chart(
        _element("svg", inside, class_="chart", role="img", aria_label=title, height=height)
    )
    chart.height = height
    return chart


def _gridline(y: float, words: str) -> Markup:
    line = _element("line", x1="0", x2="100%", y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid")
    return line + _text(words, x="-6", y=y + 4, class_="tick", text_anchor="end")


def _text(words: str, *, x: str, y: float, class_: str, text_anchor: str = "start") -> Markup:
    return _element("text", words, x=x, y=f"{y:.1f}", class_=class_, text_anchor=text_anchor)


def _element(tag: str, content: str = "", **attributes: str | float) -> Markup:
    """An element; what is not markup already is escaped."""
    written = Markup("").join(
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), value)
        for name, value in attributes.items()
    )
    return Markup("<{}{}>{}</{}>").format(Markup(tag), written, escape(content), Markup(tag))


def _minus(value: float) -> str:
    """A number with two digits behind the point, and a true minus."""
    if abs(value) == inf:
        return "∞" if value > 0 else "−∞"
    return f"{value:.2f}".replace("-", "−")


def _even_ticks(low: float, high: float) -> list[float]:
    """Round numbers between two, at most seven."""
    step = 10.0 ** floor(log10(high - low))
    step = next(s for s in (step / 5, step / 2, step, 2 * step, 5 * step) if high - low <= 6 * s)
    return [step * i for i in range(ceil(low / step), floor(high / step) + 1)]


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between two positive ones, at most seven."""
    decades = range(floor(log10(low)), floor(log10(high)) + 1)
    found: list[float] = []
    for digits in ((1, 2, 3, 4, 5, 6, 7, 8), (1, 2, 5), (1, 3), (1,)):
        found = [d * 10.0**k for k in decades for d in digits if low <= d * 10.0**k <= high]
        if len(found) <= 7:
            break
    return found[:: -(-len(found) // 7)] if found else []
