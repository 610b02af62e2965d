"""Compares estimators of Shapley values on real backdoored networks.

`python benchmarks/shapley.py [--games NAME ...] [--jobs 2]` plays the ASR game of the networks of
../shared/zoo, the demo model and the paper's VGG, one image a class, stamped with a trigger that
our own inversion found. It writes one JSON file a result into benchmarks/results/shapley, skips
those that are there, and makes the table and the plots beside them. Games run side by side in
processes of one torch thread.

The truth that estimators are compared with comes from `boards.py`. Image passes are those asked
for; that coalitions share layers shows in the seconds alone.
"""

import argparse
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import pairwise
from math import log1p
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from boards import GAMES, OUT, UNIFORM, Board, board, truth, write
from clean_models import ROOT
from repair import machine, score, spread
from shapprune.data import LabeledImages
from shapprune.estimation import estimate_shapley
from shapprune.game import NeuronGame
from shapprune.neurons import remove_neurons
from shapprune.shapley import ShapleyValues, algorithm1, multilinear, permutation, tmab

ITERATIONS = 50  # average iterations of Algorithm 1, the paper's
SCORED = 600  # images of the test part that pruning curves are measured on

# Every estimator: (game, evaluations that Algorithm 1 spends, generator, seed) -> values.
Estimate = Callable[[NeuronGame, int, torch.Generator, int], ShapleyValues]


def _algorithm1(**options: object) -> Estimate:
    return lambda game, budget, generator, seed: algorithm1(
        game,
        **{
            "average_iterations": ITERATIONS,
            "top": sizes(game.n)[0],
            "generator": generator,
            **options,
        },  # type: ignore[arg-type]
    )


def _multilinear(share: float, **options: object) -> Estimate:
    """With a share of the image passes that Algorithm 1 spends, of which a gradient takes three."""
    return lambda game, budget, generator, seed: multilinear(
        game,
        budget=max(16, int(share * budget * game.m / 3)),
        **{"generator": generator, **options},  # type: ignore[arg-type]
    )


def _shapiq(game: NeuronGame, budget: int, generator: torch.Generator, seed: int) -> ShapleyValues:
    from shapiq import PermutationSamplingSV

    found = PermutationSamplingSV(n=game.n, random_state=seed).approximate(budget, game)
    values = torch.tensor([float(found[(player,)]) for player in range(game.n)])
    return _only_values(values, budget)


def _captum(game: NeuronGame, budget: int, generator: torch.Generator, seed: int) -> ShapleyValues:
    from captum.attr import ShapleyValueSampling

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        np.random.seed(seed)
        walks = max(1, budget // (game.n + 1))
        values = ShapleyValueSampling(game).attribute(torch.ones(1, game.n), n_samples=walks)
    return _only_values(values[0].float(), walks * (game.n + 1))


def _only_values(values: Tensor, evaluations: int) -> ShapleyValues:
    nothing = torch.full_like(values, torch.nan)
    return ShapleyValues(values, nothing, torch.zeros(len(values), dtype=torch.int64), evaluations)


ESTIMATORS: dict[str, Estimate] = {
    "algorithm1": _algorithm1(),
    "algorithm1 bisected": _algorithm1(bisect=True),
    "multilinear 1/50": _multilinear(1 / 50),
    "multilinear 1/500": _multilinear(1 / 500),
    "multilinear antithetic 1/50": _multilinear(1 / 50, antithetic=True),
    "multilinear fractional 1/50": _multilinear(1 / 50, fractional=True),
    "permutation": lambda game, budget, generator, seed: permutation(
        game, budget=budget, generator=generator
    ),
    "tmab": lambda game, budget, generator, seed: tmab(
        game, budget=budget, top=sizes(game.n)[0], generator=generator
    ),
    "shapiq permutation": _shapiq,
    "captum sampling": _captum,
}
# What costs as much as Algorithm 1 runs once, and on networks where that takes minutes.
ONCE = {"algorithm1 bisected", "permutation", "tmab", "shapiq permutation", "captum sampling"}


def sizes(n: int) -> tuple[int, int]:
    """The paper's 50 and 70, on networks of the zoo's size; the same share of smaller ones."""
    share = min(1.0, n / 448)
    return round(50 * share), round(70 * share)


def found(values: Tensor, true: Tensor) -> int:
    """How many of the best are among the true best."""
    top, among = sizes(len(true))
    best = set(values.topk(top).indices.tolist())
    return len(best & set(true.topk(among).indices.tolist()))


def run(played: Board, name: str, seed: int, budget: int) -> dict[str, object]:
    game, true = played.game(), truth(played.name).values
    start = perf_counter()
    result = ESTIMATORS[name](game, budget, torch.Generator().manual_seed(seed), seed)
    seconds = perf_counter() - start
    return {
        "game": played.name,
        "estimator": name,
        "seed": seed,
        "players": game.n,
        "images": game.m,
        "top": sizes(game.n)[0],
        "found": found(result.values, true),
        "correlation": float(torch.corrcoef(torch.stack([result.values.double(), true]))[0, 1]),
        "evaluations": result.evaluations,
        "passes": game.passes,
        "seconds": seconds,
        **machine(),
        "curve": curve(played, result.values),
    }


def curve(played: Board, values: Tensor) -> list[list[float]]:
    """[neurons removed, ACC, ASR] with the true trigger while the best neurons go."""
    order, points = values.argsort(descending=True).tolist(), []
    for removed in (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64):
        pruned = remove_neurons(played.model, played.neurons, order[:removed])
        scores = score(pruned, played.subject, _test_part(played.name, played.subject.split))
        points.append([removed, round(scores["accuracy"], 2), round(scores["asr"], 2)])
    return points


@cache
def _test_part(name: str, split: Callable[[str], LabeledImages]) -> LabeledImages:
    test = split("test")
    rows = torch.randperm(len(test.images), generator=torch.Generator().manual_seed(0))[:SCORED]
    return LabeledImages(test.images[rows], test.labels[rows])


def area(points: list[list[float]]) -> float:
    """Mean ASR under the curve, over the logarithm of 1 + the number of neurons removed."""
    steps = pairwise((log1p(removed), asr) for removed, _, asr in points)
    return sum((b + d) / 2 * (c - a) for (a, b), (c, d) in steps) / log1p(points[-1][0])


def accuracy_at(points: list[list[float]], asr: float) -> float:
    """The best ACC among the points whose ASR is low enough; 0 where there is none."""
    return max((accuracy for _, accuracy, left in points if left <= asr), default=0.0)


def compare(name: str, seeds: list[int]) -> None:
    """Every estimator on one game, Algorithm 1 first, which sets the others' budget."""
    torch.set_num_threads(1)
    played = board(name)
    large = len(played.neurons) > 448  # Algorithm 1 as it is takes an hour there
    for seed in seeds:
        budget = 0
        for estimator in ESTIMATORS:
            file = OUT / f"{name}_{estimator.replace(' ', '-').replace('/', '_')}_{seed}.json"
            expensive = estimator in ONCE or estimator == "algorithm1"
            if (seed > seeds[0] and estimator in ONCE) or (large and expensive):
                continue
            if not file.exists():
                write(file, run(played, estimator, seed, budget))
            one = json.loads(file.read_text())
            if estimator == "algorithm1":
                budget = one["evaluations"]
            print(name, estimator, seed, one["found"], f"{one['seconds']:.1f}s", flush=True)
