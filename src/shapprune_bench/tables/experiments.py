"""The list of experiments: which cells each table and figure is made of."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from shapprune.baselines import DEFENCES
from shapprune_bench.tables.cells import Cell
from shapprune_bench.tables.defences import (
    FIRST,
    METHODS,
    OF_OURS,
    OURS,
    PAPERS,
    UNREPAIRED,
    WITH_TRIGGER,
)
from shapprune_bench.tables.rankings import FURTHER, RANKINGS
from shapprune_bench.tables.recipes import Recipe
from shapprune_bench.tables.rows import RECIPES

Profile: TypeAlias = Literal["smoke", "cpu", "zoo", "paper"]

# Draws of the few images: the paper tells the best of five; those not named have one.
_DRAWS = {**dict.fromkeys(OF_OURS, 3), **dict.fromkeys(PAPERS, 5)}
_MOST_DRAWS: Mapping[str, int] = {"smoke": 1, "cpu": 3}  # what is affordable there
_SAMPLING = ("algorithm1", "tmab", "permutation", "multilinear 1/50", "ours")

ROWS: Mapping[Profile, Sequence[Recipe]] = {
    profile: [recipe for recipe in RECIPES if recipe.profile == profile]
    for profile in get_args(Profile)
}

# The rows of each table and figure, in the paper's order.
BADNETS = ("mnist-badnets", "cifar10-badnets", "gtsrb-badnets", "faces-badnets")
TABLE1 = (
    *BADNETS,
    *("mnist-input-aware", "gtsrb-trojan", "faces-physical-key", "gtsrb-resnet18"),
    "faces-resnet34",
)
TABLE2 = ("cifar10-vgg16", "cifar100-resnet34", "gtsrb-trojan")
FIG7TO9 = ("faces-physical-key", "gtsrb-vgg11", "faces-vggface")
FEW_SHOT = tuple(m for m in METHODS if m != "paper-mixture")  # which is for recovered images
DATA_FREE = ("fine-pruning", "neural-cleanse", "deepinspect", "paper-mixture", OURS)
MODES = ("paper-mixture", "paper")
CURVES = ("fine-pruning", "paper")
RETUNED = (UNREPAIRED, *DEFENCES, "paper", OURS)
AMOUNTS = {"fine-pruning": (1, 50, 100, 300), OURS: (1, 50, 300)}  # clean images a class

# What version 0.1.0 had in the place of the paper's method: Algorithm 1, but our inversion of two
# kinds of trigger, our verdict, and distillation instead of labels. Nothing computes them any more;
# reports show the results that there are, under these names.
FORMER = {"paper": "ours-plain", "paper-mixture": "ours-mixture", WITH_TRIGGER: "ours-o"}


@dataclass(frozen=True)
class Experiment:
    """A table or figure of the paper.

    Attributes:
        title: what it shows.
        cells: those of a profile, the models themselves left out.
    """

    title: str
    cells: Callable[[Profile], Iterator[Cell]]


def rows(profile: Profile, names: Iterable[str]) -> list[Recipe]:
    """The recipes of these names that a profile has; all of one that is not made for the paper."""
    known = {recipe.name: recipe for recipe in ROWS[profile]}
    whole = profile in ("smoke", "zoo")
    return list(ROWS[profile]) if whole else [known[n] for n in names if n in known]


def _models(profile: Profile) -> Iterator[Cell]:
    for recipe in ROWS[profile]:
        yield Cell("model", recipe)


def _table1(profile: Profile) -> Iterator[Cell]:
    for recipe in rows(profile, TABLE1):
        for method in FEW_SHOT:
            yield from _drawn("defend", recipe, method, _DRAWS.get(method, 1))


def _table2(profile: Profile) -> Iterator[Cell]:
    for recipe in rows(profile, TABLE2):
        for method in DATA_FREE:
            draws = 1 if method == OURS else _DRAWS.get(method, 1)
            yield from _drawn("defend", recipe, method, draws, per_class=0)


def _table5(profile: Profile) -> Iterator[Cell]:
    for recipe in rows(profile, TABLE2):
        for method in MODES:
            yield from _drawn("defend", recipe, method, _DRAWS[method], per_class=0)


def _fig3(profile: Profile) -> Iterator[Cell]:
    for recipe in rows(profile, BADNETS):
        for method in CURVES:
            yield Cell("defend", recipe, method)


def _fig4(profile: Profile) -> Iterator[Cell]:
    for recipe in rows(profile, ["cifar10-badnets"]):
        for method, amounts in AMOUNTS.items():
            for per_class in amounts:
                if per_class <= (recipe.per_class or per_class):  # as many as there are
                    yield Cell("defend", recipe, method, per_class=per_class)


def _fig7to9(profile: Profile) -> Iterator[Cell]:
    for recipe in rows(profile, FIG7TO9):
        for method in CURVES:
            yield Cell("defend", recipe, method)


def _detection(profile: Profile) -> Iterator[Cell]:
    for recipe in rows(profile, BADNETS):
        for model in with_twin(recipe):
            yield Cell("scan", model)


def _time(profile: Profile) -> Iterator[Cell]:
    for recipe in rows(profile, ["gtsrb-badnets"]):
        for method in FEW_SHOT:
            if method != FIRST:  # the same repair as of `TOLD`
                yield Cell("time", recipe, method)


def _ranking(profile: Profile) -> Iterator[Cell]:
    for recipe in rows(profile, ["cifar10-badnets"]):
        for method in RANKINGS:
            if method in FURTHER and profile != "zoo":
                continue
            yield from _drawn("rank", recipe, method, 3 if method in _SAMPLING else 1)


def _retuning(profile: Profile) -> Iterator[Cell]:
    for recipe in rows(profile, TABLE1):
        for method in RETUNED:
            yield Cell("retune", recipe, method)


def _drawn(
    kind: Literal["defend", "rank"], recipe: Recipe, method: str, draws: int, per_class: int = 1
) -> Iterator[Cell]:
    for seed in range(min(draws, _MOST_DRAWS.get(recipe.profile, draws))):
        yield Cell(kind, recipe, method, per_class=per_class, seed=seed)


def with_twin(recipe: Recipe) -> list[Recipe]:
    """The recipe and its clean twin; alone, if it is of a checkpoint."""
    return [recipe] if recipe.checkpoint else [recipe, recipe.clean_twin()]


def former(cells: Iterable[Cell]) -> list[Cell]:
    """The cells that version 0.1.0 had in the place of these."""
    return [replace(c, method=FORMER[c.method]) for c in cells if c.method in FORMER]


EXPERIMENTS: Mapping[str, Experiment] = {
    "models": Experiment("The poisoned models and their clean twins", _models),
    "table1": Experiment("ACC and ASR after each defence, one image a class", _table1),
    "table2": Experiment("The same without any clean image", _table2),
    "table5": Experiment("Without any clean image: by both values, or by that for ASR", _table5),
    "fig3": Experiment("ACC and ASR while neurons are pruned, four data sets", _fig3),
    "fig4": Experiment("The same with more and more clean images", _fig4),
    "fig7to9": Experiment("The same for the physical key, VGG11 and VGG-Face", _fig7to9),
    "fig10": Experiment("The norms of the inverted triggers, target's and others'", _detection),
    "fig11": Experiment("Detection of poisoned and clean models, MAD and MAD-small", _detection),
    "time": Experiment("Seconds and image passes of each defence on one model", _time),
    "ranking": Experiment("How well estimators find the best neurons", _ranking),
    "retuning": Experiment("ACC and ASR after a repair, and after 100 more steps", _retuning),
}


def models_of(cells: Sequence[Cell]) -> list[Cell]:
    """The cells of the models that other cells need, and of their clean twins."""
    recipes = [recipe for cell in cells for recipe in with_twin(cell.recipe)]
    return distinct(Cell("model", recipe) for recipe in recipes)


def distinct(cells: Iterable[Cell]) -> list[Cell]:
    """Each cell once: tables and figures share many."""
    return list({cell.name: cell for cell in cells}.values())
