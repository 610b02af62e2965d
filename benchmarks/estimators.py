"""Estimators of Shapley values, compared on the games of `boards.py`."""

import json
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from math import log1p
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from boards import OUT, Board, board, rounded, subject_of, write
from repair import machine, score
from shapprune.bench.rankings import found, sizes
from shapprune.data.dataset import LabeledImages
from shapprune.method.attribution import estimate_shapley
from shapprune.model.game import NeuronGame
from shapprune.model.masking import remove_neurons
from shapprune.shapley import ShapleyValues, algorithm1, multilinear, permutation, tmab

ITERATIONS = 50  # average iterations of Algorithm 1, the paper's
SCORED = 400  # images of the test part that pruning curves are measured on

# Every estimator: (board, evaluations that Algorithm 1 spends, seed) -> values, image passes.
Estimate = Callable[[Board, int, int], tuple[Tensor, int]]


def _own(estimator: Callable[..., ShapleyValues], **options: object) -> Estimate:
    """An estimator of ours with options, or with what options as functions make of the rest."""

    def estimate(played: Board, budget: int, seed: int) -> tuple[Tensor, int]:
        game = played.game()
        given = {k: v(game, budget) if callable(v) else v for k, v in options.items()}
        generator = torch.Generator().manual_seed(seed)
        return estimator(game, **given, generator=generator).values, game.passes

    return estimate


def _top(game: NeuronGame, _budget: int) -> int:
    return sizes(game.n)[0]


def _share(denominator: int) -> Callable[[NeuronGame, int], int]:
    """Gradients for a share of the passes of Algorithm 1; each is three passes, of one image."""
    return lambda game, budget: max(16, budget * game.m // denominator // 3)


def _pipeline(played: Board, _budget: int, seed: int) -> tuple[Tensor, int]:
    """What `shapprune repair` prunes by: multilinear values near the whole, for ASR less ACC."""
    values = estimate_shapley(
        played.model,
        *played.clean,
        neurons=played.neurons,
        triggers=[(played.target, played.trigger)],
        generator=torch.Generator().manual_seed(seed),
    )
    return values.scores[0], values.passes


def _shapiq(played: Board, budget: int, seed: int) -> tuple[Tensor, int]:
    from shapiq import PermutationSamplingSV

    game = played.game()
    values = PermutationSamplingSV(n=game.n, random_state=seed).approximate(budget, game)
    return torch.tensor([float(values[(player,)]) for player in range(game.n)]), game.passes


def _captum(played: Board, budget: int, seed: int) -> tuple[Tensor, int]:
    from captum.attr import ShapleyValueSampling

    game = played.game()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        np.random.seed(seed)
        walks = max(1, budget // (game.n + 1))
        values = ShapleyValueSampling(game).attribute(torch.ones(1, game.n), n_samples=walks)
    return values[0].float(), game.passes


CONTEXTS = 4  # for each refined neuron


def _refined(game: NeuronGame) -> int:
    return sizes(game.n)[1]


def _share_refined(game: NeuronGame, budget: int) -> int:
    """The same share of 1/50 in passes, of which the marginals take theirs from the gradients."""
    marginals = CONTEXTS * (1 + _refined(game))
    return marginals + max(16, (budget * game.m // 50 - marginals * game.m) // 3)


_PAPER = {"average_iterations": ITERATIONS, "top": _top}
ESTIMATORS: dict[str, Estimate] = {
    "algorithm1": _own(algorithm1, **_PAPER),
    "algorithm1 bisected": _own(algorithm1, **_PAPER, bisect=True),
    "multilinear 1/50": _own(multilinear, budget=_share(50)),
    "multilinear 1/500": _own(multilinear, budget=_share(500)),
    "multilinear antithetic 1/50": _own(multilinear, budget=_share(50), antithetic=True),
    "multilinear fractional 1/50": _own(multilinear, budget=_share(50), fractional=True),
    "multilinear refined 1/50": _own(
        multilinear,
        budget=_share_refined,
        refine=lambda game, _: _refined(game),
        contexts=CONTEXTS,
    ),
    "repair's": _pipeline,
    "permutation": _own(permutation, budget=lambda game, budget: budget),
    "tmab": _own(tmab, budget=lambda game, budget: budget, top=_top),
    "shapiq permutation": _shapiq,
    "captum sampling": _captum,
}
# What costs as much as Algorithm 1 runs once, and not on large networks.
ONCE = {"algorithm1 bisected", "permutation", "tmab", "shapiq permutation", "captum sampling"}
# On games of many images these took four minutes and more each, and showed nothing new.
FEW_IMAGES = {"algorithm1 bisected", "captum sampling", "shapiq permutation"}


def run(played: Board, name: str, seed: int, budget: int) -> dict[str, object]:
    start = perf_counter()
    values, passes = ESTIMATORS[name](played, budget, seed)
    return {
        "game": played.name,
        "estimator": name,
        "seed": seed,
        "players": len(played.neurons),
        "images": len(played.images),
        "passes": passes,
        "seconds": perf_counter() - start,
        **machine(),
        "values": rounded(values),
        "curve": curve(played, values),
    }


def agreement(run: dict, true: Tensor) -> tuple[int, float]:
    """How many of a run's best are among the true best, and the correlation with the truth."""
    values = torch.tensor(run["values"], dtype=torch.float64)
    return found(values, true), float(torch.corrcoef(torch.stack([values, true]))[0, 1])


def curve(played: Board, values: Tensor) -> list[list[float]]:
    """[neurons removed, ACC, ASR] with the true trigger while the best neurons go."""
    order, points = values.argsort(descending=True).tolist(), []
    for removed in (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64):
        pruned = remove_neurons(played.model, played.neurons, order[:removed])
        scores = score(pruned, played.subject, _test_part(played.name))
        points.append([removed, round(scores["accuracy"], 2), round(scores["asr"], 2)])
    return points


@cache
def _test_part(name: str) -> LabeledImages:
    test = subject_of(name).split("test")
    rows = torch.randperm(len(test.images), generator=torch.Generator().manual_seed(0))[:SCORED]
    return LabeledImages(test.images[rows], test.labels[rows])


def area(points: list[list[float]]) -> float:
    """Mean ASR under the curve, over the logarithm of 1 + the number of neurons removed."""
    steps = pairwise((log1p(removed), asr) for removed, _, asr in points)
    return sum((b + d) / 2 * (c - a) for (a, b), (c, d) in steps) / log1p(points[-1][0])


def accuracy_at(points: list[list[float]], asr: float) -> float:
    """The best ACC among the points whose ASR is low enough; 0 where there is none."""
    return max((accuracy for _, accuracy, left in points if left <= asr), default=0.0)


def compare(name: str, seeds: Sequence[int] = (0, 1, 2)) -> None:
    """Every estimator on one game, Algorithm 1 first, which sets the others' budget."""
    torch.set_num_threads(1)
    played = board(name)
    for seed in seeds:
        for estimator in ESTIMATORS:
            if estimator in ONCE and (seed > seeds[0] or len(played.neurons) > 448):
                continue
            if estimator in FEW_IMAGES and len(played.images) > 20:
                continue
            file = OUT / f"{name}_{estimator.replace(' ', '-').replace('/', '_')}_{seed}.json"
            if not file.exists():
                budget = 0
                if estimator != "algorithm1":
                    paper = json.loads((OUT / f"{name}_algorithm1_{seed}.json").read_text())
                    budget = paper["passes"] // paper["images"]
                write(file, run(played, estimator, seed, budget))
            print(name, estimator, seed, flush=True)
