"""Tables and figures as Markdown with SVG files, and as one HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TypeAlias

import jinja2

from shapprune.reporting import charts, svg

_NOTHING = "Nothing measured yet."


@dataclass(frozen=True)
class Table:
    """A heading, a sentence and the cells; folded tables are opened by a click."""

    title: str
    note: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False


@dataclass(frozen=True)
class Figure:
    """A heading, a sentence and charts under captions.

    Attributes:
        name: of the SVG file, without its ending.
        keys: see `svg.legend`.
    """

    name: str
    title: str
    note: str
    panels: Sequence[tuple[str, svg.Chart]]
    keys: Mapping[str, str] = field(default_factory=lambda: charts.SERIES)


Part: TypeAlias = Table | Figure


def pages(parts: Sequence[Part], title: str) -> dict[str, bytes]:
    """The files of a report: report.md, what it shows, and report.html, which needs nothing."""
    figures = [part for part in parts if isinstance(part, Figure) and part.panels]
    return {
        **{f"{f.name}.svg": (svg.sheet(f.panels, f.keys) + "\n").encode() for f in figures},
        "report.md": _markdown(parts, title).encode(),
        "report.html": _html(parts, title).encode(),
    }


def _markdown(parts: Sequence[Part], title: str) -> str:
    found = [f"# {title}"]
    for part in parts:
        if isinstance(part, Figure):
            body = f"![{part.title}]({part.name}.svg)" if part.panels else _NOTHING
        else:
            lines = [part.head, ["---"] * len(part.head), *part.rows] if part.rows else []
            safe = [[cell.replace("|", "/") for cell in line] for line in lines]
            body = "\n".join(f"| {' | '.join(line)} |" for line in safe) or _NOTHING
        found.append("\n\n".join(words for words in (f"## {part.title}", part.note, body) if words))
    return "\n\n".join(found) + "\n"


def _html(parts: Sequence[Part], title: str) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = (files("shapprune_bench") / "page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        parts=parts, title=title, nothing=_NOTHING, style=svg.STYLE, legend=svg.legend
    )
