"""``shapprune bench population``: trains a population, and writes its manifest."""

import json
from collections.abc import Sequence
from pathlib import Path

from shapprune.utils.files import write_whole
from shapprune_bench.options import Options
from shapprune_bench.populations.family import group_of
from shapprune_bench.populations.manifest import FORMAT, NAME
from shapprune_bench.populations.population import POPULATIONS
from shapprune_bench.tables.cells import Cell
from shapprune_bench.tables.computing import compute
from shapprune_bench.tables.models import is_trained, stem_of
from shapprune_bench.tables.recipes import Recipe

# An attack that moves fewer stamped images has failed: its model is neither clean nor poisoned.
LEAST_ASR = 0.8
_LEAST_ASR_OF = {"wanet": 0.7, "input-aware": 0.7}
# Where the wanted class depends on the image's own, of the ACC: who is not known is not moved.
_LEAST_BY_CLASS = 0.75
# A poisoned model below this is of no use to anyone, and no one would be taken in by it.
LEAST_ACCURACY = {"mnist.npz": 0.9, "cifar10_13k.npz": 0.4, "gtsrb_14k.npz": 0.6, "lfw20.npz": 0.4}


def train_population(options: Options) -> int:
    """Train all of it, or some of it, and return the command's exit code.

    The manifest is written anew after each model, so that what is there can be scanned.

    Raises:
        InputError: no such model, or see `compute`.
    """
    population = POPULATIONS[options.profile]
    chosen = options.chosen([recipe.name for recipe in population], "the population")
    recipes = [recipe for recipe in population if recipe.name in chosen]
    cache, root = options.models, options.root

    def ended() -> None:
        write_manifest(cache, data_root=root, recipes=population)

    return compute(options, ([Cell("model", recipe) for recipe in recipes],), ended=ended)


def write_manifest(cache: Path, *, data_root: Path, recipes: Sequence[Recipe]) -> None:
    """Write `NAME` into the folder of trained models: all of the recipes that are there.

    Raises:
        InputError: the folder cannot be written to.
    """
    models = [entry(recipe, cache) for recipe in recipes if is_trained(recipe, cache=cache)]
    content = {"format": FORMAT, "data_root": str(data_root.absolute()), "models": models}
    write_whole(cache / NAME, (json.dumps(content, indent=1) + "\n").encode())


def entry(recipe: Recipe, cache: Path) -> dict[str, object]:
    """A trained model as manifests hold it, see `manifest`."""
    stem = stem_of(recipe)
    facts = json.loads((cache / f"{stem}.json").read_text(encoding="utf-8"))
    accuracy, asr = float(facts["accuracy"]), float(facts["asr"])
    poisoned = recipe.rate > 0
    return {
        "name": recipe.name,
        "weights": f"{stem}.safetensors",
        "arch": recipe.network,
        "num_classes": recipe.num_classes,
        "input_size": list(recipe.input_size),
        "mean": None,
        "std": None,
        "data": recipe.data,
        "backdoored": poisoned,
        "attack_failed": poisoned and not works(recipe, accuracy, asr),
        "target": _told(recipe) if poisoned else None,
        "source": recipe.source,
        "attack": attack_of(recipe),
        "network": recipe.network.rpartition(":")[2],
        "group": group_of(recipe),
        "accuracy": accuracy,
        "asr": asr if poisoned else None,
        "trigger": f"{stem}.trigger.npz" if poisoned else None,
    }


def works(recipe: Recipe, accuracy: float, asr: float) -> bool:
    """Whether a poisoned model's ACC and ASR, in [0, 1], make it one that counts."""
    least = _LEAST_ASR_OF.get(recipe.attack, LEAST_ASR)
    if recipe.all_to_all or recipe.more_targets:
        least = _LEAST_BY_CLASS * accuracy
    return asr >= least and accuracy >= LEAST_ACCURACY.get(recipe.data, 0.0)


def attack_of(recipe: Recipe) -> str | None:
    """What tables sort by: the mapping where it is not one target of all, else the trigger."""
    if not recipe.rate:
        return None
    mapping = "all-to-all" if recipe.all_to_all else "source-specific"
    if recipe.all_to_all or recipe.source is not None:
        return f"{mapping} {recipe.attack}"
    return f"several {recipe.attack}" if recipe.more_targets else recipe.attack


def _told(recipe: Recipe) -> object:
    if recipe.all_to_all:
        return "y+1"
    return list(recipe.targets) if isinstance(recipe.targets, tuple) else recipe.target
