"""The results that there are, and how their figures are written."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from shapprune_bench.tables.cells import Cell
from shapprune_bench.tables.experiments import EXPERIMENTS, FORMER, Profile, former

NONE = "–"
FORMER_NAMES = {old: f"0.1.0 instead of {new}" for new, old in FORMER.items()}


class Done:
    """The results that there are, by their experiments' cells."""

    def __init__(self, results: Mapping[str, Any], profile: Profile) -> None:
        self._results, self._profile = results, profile
        self._weights: dict[str, set[str]] = {}
        for result in results.values():
            if "weights" in result:
                name = result["cell"]["recipe"]["name"]
                self._weights.setdefault(name, set()).add(result["weights"])

    def row(self, cell: Cell) -> str:
        """The name of the cell's model, with its weights where results of several were met."""
        name = cell.recipe.name
        several = len(self._weights.get(name, ())) > 1
        return f"{name} {self[cell].get('weights', NONE)}" if several else name

    def of(self, experiment: str) -> list[tuple[Cell, Any]]:
        """An experiment's cells that are done, in its order, and then what they have replaced."""
        cells = list(EXPERIMENTS[experiment].cells(self._profile))
        return [(cell, self[cell]) for cell in [*cells, *former(cells)] if self[cell]]

    def __getitem__(self, cell: Cell) -> Any:
        """A cell's result, None if there is none."""
        return self._results.get(cell.name)


def median_of(results: Sequence[Any]) -> dict[str, float]:
    """ACC and ASR after the defence, of the median run each."""
    return {key: median(result["after"][key] for result in results) for key in ("accuracy", "asr")}


def best_of(results: Sequence[Any]) -> str:
    """Of the run with the largest ACC less ASR."""
    after = [result["after"] for result in results]
    return pair(max(after, key=lambda score: score["accuracy"] - score["asr"]))


def named(method: str) -> str:
    """What a column is headed: the files of version 0.1.0 call its hybrids by names of ours."""
    return FORMER_NAMES.get(method, method)


def pair(score: Mapping[str, float]) -> str:
    """ACC / ASR in per cent."""
    return f"{100 * score['accuracy']:.2f} / {100 * score['asr']:.2f}"


def spreads(results: Sequence[Any]) -> list[str]:
    """ACC and ASR after the defence, see `spread`."""
    return [
        spread([100 * result["after"][key] for result in results]) for key in ("accuracy", "asr")
    ]


def spread(values: Iterable[float], digits: int = 2) -> str:
    """The median, and the range where there is one."""
    found = sorted(values)
    if found[0] == found[-1]:
        return f"{found[0]:.{digits}f}"
    return f"{median(found):.{digits}f} ({found[0]:.{digits}f} … {found[-1]:.{digits}f})"


def cost_of(results: Sequence[Any]) -> tuple[str, str]:
    """Median seconds and image passes, where they are known."""
    passes = [result["passes"] for result in results if result.get("passes") is not None]
    seconds = f"{median(result['seconds'] for result in results):.1f}"
    return seconds, f"{median(passes):,.0f}" if passes else NONE
