"""Proves the recipes of the benchmark: `python benchmarks/recipes.py [NAME ...]`.

Trains each model and its clean twin, writes ACC and ASR to results/recipes/NAME.json, and keeps the
weights and the trigger in benchmarks/cache/, which git ignores. What is there is not trained again.
"""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter

from clean_models import CACHE, DATA, ROOT
from repair import machine
from shapprune.attacks import trigger_bytes
from shapprune.bench.experiments import ROWS
from shapprune.bench.recipes import Recipe, make
from shapprune.files import write_whole
from shapprune.weights import save_weights

RESULTS = ROOT / "benchmarks" / "results" / "recipes"


def measured(recipe: Recipe) -> dict:
    """The recipe's figures from its file, trained first where that is not there or out of date."""
    file = RESULTS / f"{recipe.name}.json"
    settings = json.loads(json.dumps(asdict(recipe)))
    if file.exists() and (one := json.loads(file.read_text()))["recipe"] == settings:
        return one
    start = perf_counter()
    made = make(recipe, root=DATA)
    one = {
        "recipe": settings,
        "accuracy": 100 * made.accuracy,
        "asr": 100 * made.asr,
        "seconds": perf_counter() - start,
        **machine(),
    }
    CACHE.mkdir(exist_ok=True)
    save_weights(made.model, CACHE / f"{recipe.name}.safetensors")
    write_whole(CACHE / f"{recipe.name}_trigger.npz", trigger_bytes(made.trigger))
    RESULTS.mkdir(exist_ok=True)
    write_whole(file, (json.dumps(one, indent=1) + "\n").encode())
    return one


def shared_twin(recipe: Recipe) -> Recipe:
    """The clean twin, named by what decides on it: attacks on one network and set share it."""
    network = recipe.network.partition(":")[2].partition("?")[0]
    return replace(recipe.clean_twin(), name=f"{Path(recipe.data).stem}-{network}-clean")


def main() -> None:
    for recipe in ROWS["cpu"]:
        if recipe.name in sys.argv[1:] or not sys.argv[1:]:
            made, clean = measured(recipe), measured(shared_twin(recipe))
            holds = made["asr"] >= 95 and made["accuracy"] >= clean["accuracy"] - 1.5
            print(
                f"{recipe.name}: ACC {made['accuracy']:.1f} (clean twin {clean['accuracy']:.1f}), "
                f"ASR {made['asr']:.1f}, {made['seconds']:.0f} s, holds: {holds}",
                flush=True,
            )


if __name__ == "__main__":
    main()
