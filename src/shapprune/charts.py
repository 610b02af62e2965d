"""Small charts as SVG, for the report.

Across, positions are percentages, and down, pixels: a chart takes any width, and its words keep
their size. Axis labels stand outside the plot, where the page leaves room for them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, floor, inf, log, log10
from statistics import median

from markupsafe import Markup, escape

from shapprune.detection import Detection
from shapprune.files import printable

_HEIGHT = 170.0  # of the plots, in pixels
_TOP = 22.0
_LINE = 15.0  # between lines of words
_SPAN = 34.0  # between the lines of `span_chart`
_MOST_NUMBERED = 60  # classes, on a wide page
_MOST_NAMED = 3
_MOST_TICKS = 16  # below a curve, on half a page


def norm_chart(detection: Detection, *, labels: Sequence[str], marks: Mapping[int, str]) -> "Chart":
    """The norm of every class from small to large, as bars from the median (as Fig. 10).

    The axis is logarithmic, as the detection is: a bar's length is what the anomaly index counts.

    Args:
        labels: one a class.
        marks: what became of the suspected classes: "target", "cleared" or "suspected".
    """
    norms = detection.norms
    order = sorted(range(len(norms)), key=lambda c: norms[c])
    middle, bound = exp(median(map(log, norms))), bound_norm(detection)
    ends = [norms[order[0]], norms[order[-1]], middle]
    if bound and bound > ends[0] / 30:
        ends.append(bound)
    low, high = log(min(ends)) - 0.05, log(max(ends)) + 0.05

    def y(norm: float) -> float:
        return _TOP + _HEIGHT * (high - log(norm)) / (high - low)

    parts = [_gridline(y(tick), f"{tick:g}") for tick in _ticks(exp(low), exp(high))]
    step = 100 / len(order)
    for i, c in enumerate(order):
        top, bottom = sorted((y(norms[c]), y(middle)))
        hint = f"{labels[c]}: norm {norms[c]:.3g}, anomaly index {detection.indices[c]:.2f}"
        parts.append(
            _element(
                "rect",
                _element("title", hint),
                x=f"{(i + 0.12) * step:.3f}%",
                width=f"{0.76 * step:.3f}%",
                y=f"{top - 0.75:.1f}",
                height=f"{bottom - top + 1.5:.1f}",
                class_=f"bar {marks.get(c, '')}",
            )
        )
    parts.append(_rule(y(middle), "median"))
    if bound in ends and bound:
        parts.append(_rule(y(bound), "bound", at=max(y(bound), y(middle) + _LINE)))
    marked = [c for c in order if c in marks]
    below = _TOP + _HEIGHT
    for c in marked[:_MOST_NAMED]:
        below += _LINE
        words = f"{printable(labels[c], 18)}: {norms[c]:.3g}, {marks[c]}"
        parts.append(_text(words, x="0", y=below, class_=f"name {marks[c]}"))
    below += _LINE
    if len(order) <= _MOST_NUMBERED:
        kind = "tick" if len(order) <= 15 else "tick wide"
        for i, c in enumerate(order):
            at = f"{(i + 0.5) * step:.3f}%"
            parts.append(_text(str(c), x=at, y=below, class_=kind, text_anchor="middle"))
    return _chart(parts, below + 6, f"Norm of each class; the median is {middle:.3g}")


def bound_norm(detection: Detection) -> float | None:
    """The norm below which classes are outliers; None where all indices are 0 or ∞."""
    middle = median(map(log, detection.norms))
    finite = [
        (i, n) for i, n in zip(detection.indices, detection.norms, strict=True) if 0 < i < 1e9
    ]
    if not finite:
        return None
    index, norm = max(finite)
    at_bound = exp(middle - detection.bound * (middle - log(norm)) / index)
    middle = median(detection.norms)
    return max(min(at_bound, middle / detection.factor), middle / detection.alone)


def curve_chart(
    removed: Sequence[int], series: Mapping[str, Sequence[float]], *, chosen: int | None = None
) -> "Chart":
    """ACC, agreement and ASR over the number of neurons pruned (as Fig. 3).

    Args:
        removed: the numbers, one step apart however irregular they are.
        series: shares in [0, 1] under some of the names in `SERIES`.
        chosen: how many neurons went in the end.
    """

    def y(share: float) -> float:
        return _TOP + _HEIGHT * (1 - share)

    step = 100 / len(removed)
    xs = [(i + 0.5) * step for i in range(len(removed))]
    parts = [_gridline(y(share), f"{share:.0%}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    below = _TOP + _HEIGHT + _LINE + 3
    for i, (x, count) in enumerate(zip(xs, removed, strict=True)):
        at = f"{x:.3f}%"
        if len(removed) <= _MOST_TICKS or i % 2 == 0 or count == chosen:
            mine = "tick chosen" if count == chosen else "tick"
            parts.append(_text(str(count), x=at, y=below, class_=mine, text_anchor="middle"))
        if count == chosen:
            parts.append(_element("line", x1=at, x2=at, y1=_TOP, y2=y(0), class_="chosen"))
            anchor = "start" if x < 25 else "end" if x > 75 else "middle"
            words = f"{chosen} pruned"
            parts.append(_text(words, x=at, y=_TOP - 8, class_="name", text_anchor=anchor))
    for name, shares in series.items():
        for i in range(len(removed) - 1):
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
        for x, count, share in zip(xs, removed, shares, strict=True):
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
.chart text.target, .chart text.suspected { fill: var(--orange); }
.chart text.cleared { fill: var(--blue); }
.bar { fill: var(--bar); } .bar.target, .bar.suspected, .marked .bar { fill: var(--orange); }
.bar.cleared { fill: var(--blue); }
.grid { stroke: var(--line); } .median { stroke: var(--ink); }
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


def _rule(y: float, name: str, at: float | None = None) -> Markup:
    line = _element("line", x1="0", x2="100%", y1=f"{y:.1f}", y2=f"{y:.1f}", class_=name)
    place = _element("svg", _text(name, x="4", y=4, class_="tick"), x="100%", y=f"{at or y:.1f}")
    return line + place


def _text(words: str, *, x: str, y: float, class_: str, text_anchor: str = "start") -> Markup:
    return _element("text", words, x=x, y=f"{y:.1f}", class_=class_, text_anchor=text_anchor)


def _element(tag: str, content: str = "", **attributes: str | float) -> Markup:
    """An element; what is not markup already is escaped."""
    written = Markup("").join(
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), value)
        for name, value in attributes.items()
    )
    return Markup("<{}{}>{}</{}>").format(Markup(tag), written, escape(content), Markup(tag))


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between two positive ones, at most seven."""
    decades = range(floor(log10(low)), floor(log10(high)) + 1)
    found: list[float] = []
    for digits in ((1, 2, 3, 4, 5, 6, 7, 8), (1, 2, 5), (1, 3), (1,)):
        found = [d * 10.0**k for k in decades for d in digits if low <= d * 10.0**k <= high]
        if len(found) <= 7:
            break
    return found[:: -(-len(found) // 7)] if found else []
