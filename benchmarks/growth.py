"""How the cost of `multilinear` grows with the number of neurons, at equal quality.

Three networks for CIFAR-10 with the same backdoor: 448, 2,688 and 10,000 neurons. Budgets double
until the best 50 hardly change; the quality is how many of them are among the best 70 of a much
longer run of the same estimator, whose own best are held against the truth.
"""

import json
from statistics import median
from time import perf_counter

import torch

from boards import OUT, board, rounded, truth, write
from repair import machine
from shapprune.bench.rankings import found
from shapprune.shapley import multilinear

GROWING = ("cifar10_badnets", "vgg_2688", "vgg_10000")
BUDGETS = tuple(16 * 2**k for k in range(8))  # gradients, to 2,048
LONG = 8192
SEEDS = (0, 1, 2)


def growth(name: str) -> None:
    torch.set_num_threads(1)
    played = board(name)
    file = OUT / f"growth_{name}.json"
    if file.exists():
        return
    long = multilinear(
        played.game(), budget=LONG, generator=torch.Generator().manual_seed(99)
    ).values.double()
    runs = []
    for budget in BUDGETS:
        for seed in SEEDS:
            game, start = played.game(), perf_counter()
            generator = torch.Generator().manual_seed(seed)
            values = multilinear(game, budget=budget, generator=generator).values
            runs.append(
                {
                    "gradients": budget,
                    "seed": seed,
                    "passes": game.passes,
                    "seconds": round(perf_counter() - start, 3),
                    "found_of_long": found(values, long),
                }
            )
    facts = {"game": name, "players": len(long), "long": LONG, **machine(), "runs": runs}
    write(file, {**facts, "values": rounded(long)})
    print("growth", name, flush=True)


def found_by_long(name: str) -> int:
    """How many of the long run's best are among the true best."""
    values = json.loads((OUT / f"growth_{name}.json").read_text())["values"]
    return found(torch.tensor(values), truth(name).values)


def passes_for(name: str, least: int) -> int | None:
    """Image passes of the smallest budget from which on the median finds so many of the long."""
    runs = json.loads((OUT / f"growth_{name}.json").read_text())["runs"]
    enough = None
    for budget in reversed(BUDGETS):
        some = [run for run in runs if run["gradients"] == budget]
        if median(run["found_of_long"] for run in some) < least:
            break
        enough = some[0]["passes"]
    return enough
