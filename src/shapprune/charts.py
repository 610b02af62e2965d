"""Small charts as SVG, for the report.

Across, positions are percentages, and down, pixels: a chart takes any width, and its words keep
their size. Axis labels stand outside the plot, where the page leaves room for them.
"""

from collections.abc import Mapping, Sequence
from math import exp, floor, log, log10
from statistics import median

from markupsafe import Markup, escape

from shapprune.detection import Detection
from shapprune.files import printable
from shapprune.pruning import CurvePoint

_HEIGHT = 170.0  # of the plots, in pixels
_TOP = 22.0
_LINE = 15.0  # between lines of words
_MOST_NUMBERED = 60  # classes, on a wide page
_MOST_NAMED = 3


def norm_chart(detection: Detection, *, labels: Sequence[str], marks: Mapping[int, str]) -> Markup:
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


def curve_chart(curve: Sequence[CurvePoint], *, chosen: int) -> Markup:
    """ACC, agreement and ASR over the number of neurons pruned (as Fig. 3).

    Args:
        curve: the points, one step apart however irregular their numbers.
        chosen: how many neurons went in the end.
    """

    def y(share: float) -> float:
        return _TOP + _HEIGHT * (1 - share)

    step = 100 / len(curve)
    xs = [(i + 0.5) * step for i in range(len(curve))]
    parts = [_gridline(y(share), f"{share:.0%}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    below = _TOP + _HEIGHT + _LINE + 3
    for x, point in zip(xs, curve, strict=True):
        at = f"{x:.3f}%"
        mine = "tick chosen" if point.removed == chosen else "tick"
        parts.append(_text(str(point.removed), x=at, y=below, class_=mine, text_anchor="middle"))
        if point.removed == chosen:
            parts.append(_element("line", x1=at, x2=at, y1=_TOP, y2=y(0), class_="chosen"))
            anchor = "start" if x < 25 else "end" if x > 75 else "middle"
            words = f"{chosen} pruned"
            parts.append(_text(words, x=at, y=_TOP - 8, class_="name", text_anchor=anchor))
    for name in SERIES:
        shares = [getattr(point.proxies, name) for point in curve]
        for i in range(len(curve) - 1):
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
        for x, point, share in zip(xs, curve, shares, strict=True):
            title = f"{point.removed} pruned: {SERIES[name]} {share:.1%}"
            parts.append(_marker(name, f"{x:.3f}%", f"{y(share):.1f}", title))
    return _chart(parts, below + 6, "ACC, agreement and ASR over the number of neurons pruned")


SERIES = {"accuracy": "ACC", "agreement": "agreement", "asr": "ASR"}


def legend() -> Markup:
    """The keys of `curve_chart`: a marker and a name each."""
    keys = [
        Markup(
            '<span class="key"><svg width="26" height="12" aria-hidden="true">{}{}</svg> {}</span>'
        ).format(
            _element("line", x1=0, x2=26, y1=6, y2=6, class_=name), _marker(name, "13", "6"), title
        )
        for name, title in SERIES.items()
    ]
    return Markup(" ").join(keys)


def meter(share: float) -> Markup:
    """A bar that fills a share of its width."""
    fill = _element("rect", width=f"{100 * share:.2f}%", height="100%", class_="bar")
    return _element("svg", fill, class_="meter", aria_hidden="true")


_SHAPES = {
    "accuracy": ("circle", {"r": "4"}),
    "agreement": ("rect", {"x": "-3.5", "y": "-3.5", "width": "7", "height": "7"}),
    "asr": ("path", {"d": "M0-5.5 5 4-5 4z"}),
}


def _marker(name: str, x: str, y: str, title: str = "") -> Markup:
    tag, shape = _SHAPES[name]
    inside = _element("title", title) if title else ""
    return _element("svg", _element(tag, inside, class_=name, **shape), x=x, y=y)


def _chart(parts: Sequence[Markup], height: float, title: str) -> Markup:
    return _element(
        "svg", Markup("").join(parts), class_="chart", role="img", aria_label=title, height=height
    )


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
