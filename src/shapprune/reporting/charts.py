"""Small charts as SVG, for the report.

Across, positions are percentages, and down, pixels: a chart takes any width, and its words keep
their size. Axis labels stand outside the plot, where the page leaves room for them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, exp, floor, inf, log, log10

from markupsafe import Markup

from shapprune.reporting.svg import Chart, chart, element, marker, text
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
) -> Chart:
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

    y = top = _TOP + _LINE * (len(bounds) - 1)
    bottom = top + _BAR * (len(shown) + bool(rest) + bool(clean))
    parts = _score_axis(_even_ticks(low, high), x, top, bottom)
    names: list[Markup] = []
    for bar in shown:
        parts += _bar(bar, x(bar.value), y)
        names += _bar_name(bar, x(bar.value), y)
        y += _BAR
    if rest:
        parts.append(_rest(rest, x, y))
        told = text(f"{len(rest)} others", x="6", y=y + _BAR / 2 + 4, class_="tick")
        end = x(rest[0].value)
        names.append(element("svg", told, x=f"{end if end < 75 else 0:.3f}%"))
        y += _BAR
    if clean:
        for value in clean:
            at = f"{x(value):.3f}%"
            parts.append(element("line", x1=at, x2=at, y1=y + 3, y2=y + _BAR - 2, class_="stroke"))
        parts.append(text("clean", x="-6", y=y + 12, class_="tick", text_anchor="end"))
    for i, (name, bound) in enumerate(bounds.items()):
        at, above = f"{x(bound):.3f}%", top - 8 - _LINE * (len(bounds) - 1 - i)
        parts.append(element("line", class_="bound", x1=at, x2=at, y1=above + 3, y2=bottom))
        anchor = "end" if x(bound) > (30 if i == 0 else 70) else "start"
        words = f"{name}: above {_minus(bound)}"
        parts.append(text(words, x=at, y=above, class_="tick", text_anchor=anchor))
    words = "The score of each class, and the bounds"
    return chart([*parts, *names], bottom + _LINE + 6, words)


def _score_axis(
    ticks: Sequence[float], x: Callable[[float], float], top: float, bottom: float
) -> list[Markup]:
    parts = []
    for tick in ticks:
        at, words = f"{x(tick):.3f}%", f"{tick:g}".replace("-", "−")
        parts.append(element("line", x1=at, x2=at, y1=top, y2=bottom, class_="grid"))
        parts.append(text(words, x=at, y=bottom + _LINE, class_="tick", text_anchor="middle"))
    return parts


def _bar(bar: Bar, end: float, y: float) -> list[Markup]:
    hint = element("title", f"{bar.name}: score {_minus(bar.value)}")
    parts = [
        element(
            "rect",
            hint,
            x="0",
            width=f"{max(end, 0.3):.3f}%",
            y=f"{y + 2:.1f}",
            height=f"{_BAR - 4:.1f}",
            class_=f"bar {bar.mark}",
        )
    ]
    parts.append(text(bar.tick, x="-6", y=y + 12, class_="tick", text_anchor="end"))
    return parts


def _bar_name(bar: Bar, end: float, y: float) -> list[Markup]:
    """The words on a bar that is marked, or behind it where there is room."""
    if not bar.mark:
        return []
    words = f"{printable(bar.name, 24)}: {_minus(bar.value)}, {bar.mark}"
    outside = end < 45
    kind = bar.mark
    if not outside:
        kind = "" if bar.mark == "suspected" else "inside"  # of a bar that is paler
    told = text(words, x="6", y=y + 12, class_=f"name {kind}")
    return [element("svg", told, x=f"{end if outside else 0:.3f}%")]


def _rest(rest: Sequence[Bar], x: Callable[[float], float], y: float) -> Markup:
    """Many bars as one span."""
    hint = f"{len(rest)} others: {_minus(rest[-1].value)} to {_minus(rest[0].value)}"
    left, right = (f"{x(bar.value):.3f}%" for bar in (rest[-1], rest[0]))
    middle, title = y + _BAR / 2, element("title", hint)
    return element("line", title, class_="span", x1=left, x2=right, y1=middle, y2=middle)


def map_chart(answers: Sequence[Sequence[float]]) -> Chart:
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
        parts.append(text(str(c), x=at, y=_TOP - 8, class_="tick", text_anchor="middle"))
        parts.append(text(str(c), x="-6", y=y, class_="tick", text_anchor="end"))
    for row, counts in enumerate(answers):
        y, whole = _TOP + row * side, sum(counts)
        for column, count in enumerate(counts):
            if not count:
                continue
            share = count / whole
            parts.append(
                element(
                    "rect",
                    element("title", f"{row} → {column}: {share:.0%}"),
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
                parts.append(text(words, x=at, y=middle, class_="cell", text_anchor="middle"))
    parts.append(element("rect", width="100%", y=_TOP, height=n * side, class_="frame"))
    return chart(parts, _TOP + n * side + 6, "Where the images of each class (row) go (column)")


def curve_chart(
    pruned: Sequence[int], series: Mapping[str, Sequence[float]], *, chosen: int | None = None
) -> Chart:
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
            parts.append(text(str(count), x=at, y=below, class_=mine, text_anchor="middle"))
        if count == chosen:
            parts.append(element("line", x1=at, x2=at, y1=_TOP, y2=y(0), class_="chosen"))
            anchor = "start" if x < 25 else "end" if x > 75 else "middle"
            words = f"{chosen} pruned"
            parts.append(text(words, x=at, y=_TOP - 8, class_="name", text_anchor=anchor))
    for name, shares in series.items():
        for i in range(len(pruned) - 1):
            parts.append(
                element(
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
            parts.append(marker(name, f"{x:.3f}%", f"{y(share):.1f}", title))
    names = ", ".join(SERIES[name] for name in series)
    return chart(parts, below + 6, f"{names} over the number of neurons pruned")


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


def span_chart(spans: Sequence[Span], *, title: str, bound: float | None = None) -> Chart:
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
        parts.append(element("line", x1=at, x2=at, y1=_TOP, y2=bottom, class_="grid"))
        parts.append(text(f"{tick:g}", x=at, y=bottom + _LINE, class_="tick", text_anchor="middle"))
    if bound:
        at = x(bound)
        parts.append(element("line", x1=at, x2=at, y1=_TOP, y2=bottom, class_="bound"))
        words = f"bound {bound:g}"
        parts.append(text(words, x=at, y=_TOP - 8, class_="tick", text_anchor="middle"))
    for i, span in enumerate(spans):
        y = _TOP + _SPAN * i + _LINE
        parts.append(text(span.name, x="0", y=y, class_="name"))
        y += 0.6 * _LINE
        if span.bar:
            words = f"{span.name}: {span.bar[0]:.3g} to {span.bar[1]:.3g}"
            hint, (one, other) = element("title", words), map(x, span.bar)
            parts.append(element("line", hint, class_="span", x1=one, x2=other, y1=y, y2=y))
        for name, value in span.marks.items():
            words = f"{span.name}: {name} {value:.3g}"
            parts.append(marker(name, x(value), f"{y:.1f}", words))
    return chart(parts, bottom + _LINE + 6, title)


def _gridline(y: float, words: str) -> Markup:
    line = element("line", x1="0", x2="100%", y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid")
    return line + text(words, x="-6", y=y + 4, class_="tick", text_anchor="end")


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
