"""Proves the recipes of the benchmark: `python benchmarks/recipes.py [NAME ...]`.

Trains each model and its clean twin, as `shapprune bench models --profile cpu` does, into
benchmarks/cache/, which git ignores and `shapprune bench --cache benchmarks/cache` reads; writes
ACC and ASR to results/recipes/NAME.json. What is there is not trained again.
"""

import json
import sys
from dataclasses import asdict

from clean_models import CACHE, DATA, ROOT
from repair import machine
from shapprune.bench.experiments import ROWS
from shapprune.bench.models import subject
from shapprune.bench.recipes import Recipe
from shapprune.files import write_whole

RESULTS = ROOT / "benchmarks" / "results" / "recipes"


def measured(recipe: Recipe) -> dict:
    """The recipe's figures from its file, trained first where that is not there or out of date."""
    file = RESULTS / f"{recipe.name}.json"
    settings = json.loads(json.dumps(asdict(recipe)))
    if file.exists() and (one := json.loads(file.read_text()))["recipe"] == settings:
        return one
    facts = subject(recipe, root=DATA, cache=CACHE).facts
    one = {
        "recipe": settings,
        "accuracy": 100 * facts["accuracy"],
        "asr": 100 * facts["asr"],
        "seconds": facts["seconds"],
        **machine(),
    }
    RESULTS.mkdir(exist_ok=True)
    write_whole(file, (json.dumps(one, indent=1) + "\n").encode())
    return one


def main() -> None:
    for recipe in ROWS["cpu"]:
        if recipe.name in sys.argv[1:] or not sys.argv[1:]:
            made, clean = measured(recipe), measured(recipe.clean_twin())
            holds = made["asr"] >= 95 and made["accuracy"] >= clean["accuracy"] - 1.5
            print(
                f"{recipe.name}: ACC {made['accuracy']:.1f} (clean twin {clean['accuracy']:.1f}), "
                f"ASR {made['asr']:.1f}, {made['seconds']:.0f} s, holds: {holds}",
                flush=True,
            )


if __name__ == "__main__":
    main()
