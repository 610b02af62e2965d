"""All that tells what was measured: docs/results, marks in README.md and docs, a report's rates."""

from collections.abc import Mapping
from pathlib import Path

from shapprune_bench.documentation.figures import figures
from shapprune_bench.documentation.marks import filled
from shapprune_bench.documentation.results import result_pages
from shapprune_bench.documentation.unseen import FILE, unseen


def pages(root: Path) -> dict[Path, str]:
    """The pages of the repository at ``root``, as they should be.

    Raises:
        ValueError: a mark is wrong (see `marks.filled`). In one line.
    """
    made = result_pages(root / "benchmarks" / "results")
    found = {root / "docs" / "results" / name: text for name, text in made.items()}
    known = figures(root)
    for page in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        found[page] = _filled(page, root, known)
    rates = unseen(root / "benchmarks" / "results")
    return found if rates is None else {**found, root / FILE: rates}


def _filled(page: Path, root: Path, known: Mapping[str, str]) -> str:
    try:
        return filled(page.read_text(encoding="utf-8"), known)
    except ValueError as error:
        raise ValueError(f"{page.relative_to(root)}: {error}") from error


def write(root: Path) -> list[Path]:
    """Write all pages, or none, and return the files.

    Raises:
        ValueError: see `pages`.
    """
    made = pages(root)
    for file, text in made.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return list(made)
