"""The page of many models: one line each, worst first."""

from collections.abc import Sequence
from dataclasses import dataclass

from shapprune.reporting import svg
from shapprune.reporting.exits import exit_code_of_all
from shapprune.reporting.page import template
from shapprune.utils.text import printable

# Worst first; who could not be scanned may be anything, and a malicious file is worse than most.
STATES = ("backdoored", "failed", "suspicious", "clean", None)


@dataclass(frozen=True)
class Line:
    """A model and what became of it.

    Attributes:
        name: tells it from the others.
        state: a verdict, "failed", or None where it is not scanned yet.
        said: the verdict's target and score, or the error, in a line.
        excess: by how much the score is above the bound of "suspicious".
        malicious: a file that was refused for more than being unknown.
        accuracy: on the given images, in [0, 1].
        images: how many were given; of recovered ones, None.
        seconds: that it took.
        notes: of the scan.
        report: the page of the model, relative to this one.
    """

    name: str
    state: str | None = None
    said: str = ""
    excess: float = 0.0
    malicious: bool = False
    accuracy: float | None = None
    images: int | None = None
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    report: str | None = None


def worst_first(lines: Sequence[Line]) -> list[Line]:
    """By state; of one state malicious files first, then by the score's distance to the bound."""
    return sorted(
        lines,
        key=lambda line: (STATES.index(line.state), not line.malicious, -line.excess, line.name),
    )


def tally(lines: Sequence[Line]) -> str:
    """How many of each kind, in words.

    >>> tally([Line("a", "clean"), Line("b", "failed"), Line("c"), Line("d", "clean")])
    '4 models: 1 failed, 2 clean, 1 not scanned yet'
    """
    counts = {state: sum(line.state == state for line in lines) for state in STATES}
    found = [f"{n} {state or 'not scanned yet'}" for state, n in counts.items() if n]
    return f"{len(lines)} model{'s' if len(lines) != 1 else ''}: {', '.join(found)}"


def render_overview(lines: Sequence[Line], *, about: Sequence[tuple[str, str]]) -> str:
    """The page, which needs nothing but the reports that it links to.

    Args:
        lines: in the order that they are shown in.
        about: what the run was told, by its name.
    """
    page = template(
        "overview.html.j2",
        line=lambda text: printable(text, 400),
        short=lambda text: printable(str(text), 200),
    )
    return page.render(
        lines=lines,
        tally=tally(lines),
        code=exit_code_of_all(line.state for line in lines),
        about=about,
        style=svg.STYLE,
    )
