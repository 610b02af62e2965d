"""The list of experiments: which cells each table and figure is made of."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from shapprune.bench.cells import Cell
from shapprune.bench.defences import DEFENCES
from shapprune.bench.recipes import RECIPES, Recipe

Profile: TypeAlias = Literal["smoke", "cpu"]

WITH_TRIGGER = "ours-o"  # given the attacker's trigger, for comparison only
METHODS = (*DEFENCES, WITH_TRIGGER)
_OURS = ("ours-plain", "ours", WITH_TRIGGER)
_DRAWS = 3  # of the few images, for ours; one for the baselines

ROWS: Mapping[Profile, Sequence[Recipe]] = {
    profile: [recipe for recipe in RECIPES if recipe.profile == profile]
    for profile in get_args(Profile)
}


@dataclass(frozen=True)
class Experiment:
    """A table or figure of the paper.

    Attributes:
        title: what it shows.
        cells: those of a profile, the models themselves left out.
    """

    title: str
    cells: Callable[[Profile], Iterator[Cell]]


def _table1(profile: Profile) -> Iterator[Cell]:
    for recipe in ROWS[profile]:
        for method in METHODS:
            draws = _DRAWS if method in _OURS and profile != "smoke" else 1
            for seed in range(draws):
                yield Cell("defend", recipe, method, seed=seed)


def _detection(profile: Profile) -> Iterator[Cell]:
    for recipe in ROWS[profile]:
        for model in (recipe, recipe.clean_twin()):
            yield Cell("scan", model)


def _time(profile: Profile) -> Iterator[Cell]:
    for method in METHODS:
        yield Cell("time", ROWS[profile][0], method)


EXPERIMENTS: Mapping[str, Experiment] = {
    "table1": Experiment("ACC and ASR after each defence, one image a class", _table1),
    "fig10": Experiment(
        "The norms of the inverted triggers, the target's beside others'", _detection
    ),
    "fig11": Experiment("Detection of poisoned and clean models by MAD and MAD-small", _detection),
    "time": Experiment("Seconds and image passes of each defence on one model", _time),
}


def models_of(cells: Sequence[Cell]) -> list[Cell]:
    """The cells of the models that other cells need, and of their clean twins."""
    recipes = [r for cell in cells for r in (cell.recipe, cell.recipe.clean_twin())]
    found = [Cell("model", recipe) for recipe in recipes]
    return list({cell.name: cell for cell in found}.values())
