"""What a run will do: cells, models to train, and minutes by what was measured before."""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from shapprune.running.runner import is_left, read
from shapprune_bench.session import has_failed, plan_words
from shapprune_bench.tables.cells import Cell
from shapprune_bench.tables.models import is_trained


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        cells: how many there are, models included.
        left: those that have no result yet.
        train: names of the models that these need and that are not in the cache.
        seconds: of the cells left whose like was measured, one after another.
        unknown: what the others do.
        failed: cells that have failed, and are not tried again.
    """

    cells: int
    left: int
    train: tuple[str, ...]
    seconds: float
    unknown: tuple[str, ...]
    failed: int = 0

    def lines(self, jobs: int = 1) -> list[str]:
        """In words.

        >>> Plan(9, 4, ("a", "b"), 600.0, ("model",)).lines(jobs=2)[1:]
        ['to train: a, b', 'about 5 minutes by what was measured, and not known: model']
        """
        words = plan_words("cells", self.cells, left=self.left, failed=self.failed)
        found = [words, f"to train: {', '.join(self.train) or 'no model'}"]
        minutes = -(-self.seconds // (60 * jobs))
        known = f"about {minutes:.0f} minutes by what was measured" if self.seconds else ""
        unknown = f"not known: {', '.join(self.unknown)}" if self.unknown else ""
        cost = ", and ".join(part for part in (known, unknown) if part)
        return [*found, *([cost] if cost else [])]


def plan(
    cells: Sequence[Cell], *, folder: Path | None, cache: Path, retry_failed: bool = False
) -> Plan:
    """The plan of a run.

    A cell takes what its like took: the same of another seed, else the same on another row with as
    many images; a model takes what one on the same data took, else one of the same profile.

    Args:
        cells: models included.
        folder: of the results, whose seconds are taken for those of cells like them.
        cache: of trained models.
        retry_failed: count what has failed as left.
    """
    there = [(cell, read(folder, cell) if folder else None) for cell in cells]
    left = [cell for cell, result in there if is_left(result, retry_failed=retry_failed)]
    needed = {model.name: model for model in (Cell("model", cell.recipe) for cell in left)}
    train = [cell for cell in needed.values() if not is_trained(cell.recipe, cache=cache)]
    past = list(_measured(folder))
    seconds, unknown = 0.0, []
    for cell in [*train, *(cell for cell in left if cell.kind != "model")]:
        likely = _likely(cell, past)
        seconds += likely or 0.0
        if likely is None:
            unknown.append(" ".join(word for word in (cell.kind, cell.method) if word))
    return Plan(
        len(cells),
        len(left),
        tuple(cell.recipe.name for cell in train),
        seconds,
        tuple(dict.fromkeys(unknown)),
        0 if retry_failed else sum(has_failed(result) for _, result in there),
    )


def _measured(folder: Path | None) -> Iterable[tuple[dict[str, Any], float]]:
    """Cells of all results of a folder, as JSON has them, and their seconds."""
    for file in folder.glob("*_*.json") if folder else ():
        with suppress(OSError, ValueError, KeyError, TypeError):  # failed, or none of ours
            result = json.loads(file.read_text(encoding="utf-8"))
            cell, kind = result["cell"], result["cell"]["kind"]
            yield cell, float(result["seconds" if kind == "model" else "wall_seconds"])


def _likely(cell: Cell, past: Sequence[tuple[dict[str, Any], float]]) -> float | None:
    recipe = cell.recipe
    same = [
        (known, seconds)
        for known, seconds in past
        if (known["kind"], known["method"]) == (cell.kind, cell.method)
        and known["per_class"] == cell.per_class
        and known["recipe"]["profile"] == recipe.profile
    ]
    own = "data" if cell.kind == "model" else "name"
    near = [seconds for known, seconds in same if known["recipe"][own] == getattr(recipe, own)]
    found = near or [seconds for _, seconds in same]
    return median(found) if found else None
