"""What charts are drawn with: SVG elements, markers and their legend, colours, sheets of charts."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

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


class Chart(Markup):
    """An svg element that takes any width.

    Attributes:
        height: in pixels.
    """

    height: float


def element(tag: str, content: str = "", **attributes: str | float) -> Markup:
    """An element; what is not markup already is escaped."""
    written = Markup("").join(
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), value)
        for name, value in attributes.items()
    )
    return Markup("<{}{}>{}</{}>").format(Markup(tag), written, escape(content), Markup(tag))


def text(words: str, *, x: str, y: float, class_: str, text_anchor: str = "start") -> Markup:
    """Words at a place: across in per cent or pixels, down in pixels."""
    return element("text", words, x=x, y=f"{y:.1f}", class_=class_, text_anchor=text_anchor)


def chart(parts: Sequence[Markup], height: float, title: str) -> Chart:
    """A chart of these parts.

    Args:
        height: in pixels.
        title: what those hear who do not see it.
    """
    inside = Markup("").join(parts)
    chart = Chart(
        element("svg", inside, class_="chart", role="img", aria_label=title, height=height)
    )
    chart.height = height
    return chart


_CIRCLE = ("circle", {"r": "4"})
_SQUARE = ("rect", {"x": "-3.5", "y": "-3.5", "width": "7", "height": "7"})
_TRIANGLE = ("path", {"d": "M0-5.5 5 4-5 4z"})
_STAR = ("path", {"d": "M0-7 1.7-2.3 6.7-2.2 2.7.9 4.1 5.7 0 2.8-4.1 5.7-2.7.9-6.7-2.2-1.7-2.3z"})
_SHAPES = {
    **{"accuracy": _CIRCLE, "agreement": _SQUARE, "asr": _TRIANGLE},
    **{"mad-small": _CIRCLE, "mad": _SQUARE, "both": _TRIANGLE, "target": _STAR},
}


def marker(name: str, x: str, y: str, title: str = "") -> Markup:
    """The marker of a series or of a kind of value, with its middle at a place."""
    tag, shape = _SHAPES[name]
    inside = element("title", title) if title else ""
    return element("svg", element(tag, inside, class_=name, **shape), x=x, y=y)


def meter(share: float) -> Markup:
    """A bar that fills a share of its width."""
    fill = element("rect", width=f"{100 * share:.2f}%", height="100%", class_="bar")
    return element("svg", fill, class_="meter", aria_hidden="true")


def legend(keys: Mapping[str, str]) -> Markup:
    """A marker and a name each.

    Args:
        keys: what each of these markers stands for.
    """
    found = [
        Markup(
            '<span class="key"><svg width="26" height="12" aria-hidden="true">{}{}</svg> {}</span>'
        ).format(
            element("line", x1=0, x2=26, y1=6, y2=6, class_=name), marker(name, "13", "6"), title
        )
        for name, title in keys.items()
    ]
    return Markup(" ").join(found)


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
        parts.append(marker(name, str(at), "14"))
        parts.append(text(words, x=str(at + 12), y=18, class_="name"))
    top = 34.0
    for row in range(0, len(panels), across):
        some = panels[row : row + across]
        for i, (caption, chart) in enumerate(some):
            at = left + i * whole / across
            parts.append(text(caption, x=str(at), y=top + 12, class_="caption"))
            parts.append(
                element("svg", chart, x=at, y=top + 22, width=whole / across - left - right)
            )
        top += max(chart.height for _, chart in some) + 40
    style = Markup("<style>text {{ font-family: system-ui, sans-serif; }} {}</style>").format(STYLE)
    page = element("rect", width="100%", height="100%", class_="page")
    return element(
        "svg",
        style + page + Markup("").join(parts),
        xmlns="http://www.w3.org/2000/svg",
        class_="sheet",
        width=whole,
        height=top,
        viewBox=f"0 0 {whole:g} {top:g}",
    )
