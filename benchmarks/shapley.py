"""Compares estimators of Shapley values on real backdoored networks.

`python benchmarks/shapley.py [--games NAME ...] [--seeds 0 1 2] [--truth-only]` plays the ASR game
of the three networks of ../shared/zoo and of the demo model: one image a class, stamped with a
trigger that our own inversion found. It writes one JSON file a result into
benchmarks/results/shapley, skips those that are there, and makes the table README.md beside them.

The truth that estimators are compared with is a long run of Algorithm 1 with uniform permutations
and bisected walks: the mean marginal contribution while the ASR is above the discarding threshold.
Image passes are those asked for; that coalitions share layers shows in the seconds alone.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn

from clean_models import ROOT
from repair import Subject, machine, score, spread, subjects
from shapprune.data import draw_per_class
from shapprune.estimation import stamped_images
from shapprune.game import NeuronGame
from shapprune.neurons import Neurons, find_neurons, remove_neurons
from shapprune.shapley import ShapleyValues, algorithm1, multilinear, permutation, tmab
from shapprune.triggers import Kind, invert_triggers

OUT = ROOT / "benchmarks" / "results" / "shapley"
UNIFORM = 1e9  # average iterations before ε-greedy sets in
ITERATIONS = 50  # average iterations of Algorithm 1, the paper's

# The kind of trigger, and the average iterations that were affordable for the truth.
GAMES: dict[str, tuple[Kind, float]] = {
    "demo": ("patch", 5000),
    "cifar10_badnets": ("patch", 1000),
    "cifar10_l2inv": ("perturbation", 1000),
    "gtsrb_trojan_wm": ("perturbation", 400),
}


@dataclass(frozen=True, eq=False)
class Board:
    """A network, its neurons, and the images that the game is played on."""

    name: str
    subject: Subject
    model: nn.Module
    neurons: Neurons
    images: Tensor
    labels: Tensor

    def game(self) -> NeuronGame:
        return NeuronGame(self.model, self.neurons, self.images, self.labels)


def board(name: str) -> Board:
    subject, kind = subjects()[name], GAMES[name][0]
    assert subject.target is not None
    model = subject.load()
    generator = torch.Generator().manual_seed(0)
    few = draw_per_class(subject.split("train"), per_class=1, generator=generator)
    (trigger,) = invert_triggers(
        model,
        few.images,
        few.labels,
        targets=[subject.target],
        kind=kind,
        per_step=32,
        gate=0.97,
        give_up=False,
        generator=generator,
    ).triggers
    stamped = stamped_images(few.images, few.labels, [(subject.target, trigger.stamp)])
    return Board(name, subject, model, find_neurons(model, few.images), *stamped)


def shapiq_permutation(game: NeuronGame, budget: int, seed: int) -> ShapleyValues:
    from shapiq import PermutationSamplingSV

    found = PermutationSamplingSV(n=game.n, random_state=seed).approximate(budget, game)
    values = torch.tensor([float(found[(player,)]) for player in range(game.n)])
    return _only_values(values, budget)


def captum_sampling(game: NeuronGame, budget: int, seed: int) -> ShapleyValues:
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


# Every estimator: (game, top, evaluations of algorithm1, generator, seed) -> values.
Estimate = Callable[[NeuronGame, int, int, torch.Generator, int], ShapleyValues]


def _algorithm1(**options: object) -> Estimate:
    return lambda game, top, budget, generator, seed: algorithm1(
        game,
        **{"average_iterations": ITERATIONS, "top": top, "generator": generator, **options},  # type: ignore[arg-type]
    )


def _multilinear(share: float, **options: object) -> Estimate:
    """With a share of the image passes that Algorithm 1 spends.

    A gradient is played on one image, a coalition on all: hence the factor of the images.
    """

    def estimate(
        game: NeuronGame, top: int, budget: int, generator: torch.Generator, seed: int
    ) -> ShapleyValues:
        gradients = int(share * budget * game.m / 3)
        return multilinear(
            game,
            budget=gradients,
            **{"generator": generator, **options},  # type: ignore[arg-type]
        )

    return estimate


ESTIMATORS: dict[str, Estimate] = {
    "algorithm1": _algorithm1(),
    "algorithm1 bisected": _algorithm1(bisect=True),
    "algorithm1 uniform": _algorithm1(explore=UNIFORM),
    "algorithm1 zeroed": _algorithm1(zeroed=True, explore=UNIFORM, bisect=True),
    "permutation": lambda game, top, budget, generator, seed: permutation(
        game, budget=budget, generator=generator
    ),
    "tmab": lambda game, top, budget, generator, seed: tmab(
        game, budget=budget, top=top, generator=generator
    ),
    "shapiq permutation": lambda game, top, budget, generator, seed: shapiq_permutation(
        game, budget, seed
    ),
    "captum sampling": lambda game, top, budget, generator, seed: captum_sampling(
        game, budget, seed
    ),
    "multilinear 1/50": _multilinear(1 / 50),
    "multilinear 1/500": _multilinear(1 / 500),
    "multilinear fractional 1/50": _multilinear(1 / 50, fractional=True),
    "multilinear antithetic 1/50": _multilinear(1 / 50, antithetic=True),
}


def run(played: Board, name: str, seed: int, truth: Tensor, budget: int) -> dict[str, object]:
    game = played.game()
    top, among = _sizes(game.n)
    start = perf_counter()
    found = ESTIMATORS[name](game, top, budget, torch.Generator().manual_seed(seed), seed)
    seconds = perf_counter() - start
    best = set(found.values.topk(top).indices.tolist())
    return {
        "game": played.name,
        "estimator": name,
        "seed": seed,
        "players": game.n,
        "top": top,
        "among": among,
        "found": len(best & set(truth.topk(among).indices.tolist())),
        "correlation": float(torch.corrcoef(torch.stack([found.values.double(), truth]))[0, 1]),
        "evaluations": found.evaluations,
        "passes": game.passes,
        "seconds": seconds,
        "curve": curve(played, found.values),
        **machine(),
    }


def curve(played: Board, values: Tensor) -> list[dict[str, float]]:
    """ACC and ASR with the true trigger while the best neurons go."""
    order = values.argsort(descending=True).tolist()
    test = played.subject.split("test")
    return [
        {
            "removed": removed,
            **score(
                remove_neurons(played.model, played.neurons, order[:removed]), played.subject, test
            ),
        }
        for removed in _removals(len(order))
    ]


def _removals(n: int) -> list[int]:
    return [k for k in (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64) if k < n // 2]


def _sizes(n: int) -> tuple[int, int]:
    """The paper's 50 and 70, on networks of the zoo's size; the same share of smaller ones."""
    share = min(1.0, n / 448)
    return round(50 * share), round(70 * share)


def truth_of(played: Board) -> Tensor:
    """Long-run values, float64 (n,), from a file or computed."""
    file = OUT / f"{played.name}_truth.json"
    if not file.exists():
        game, iterations = played.game(), GAMES[played.name][1]
        start = perf_counter()
        found = algorithm1(
            game,
            average_iterations=iterations,
            explore=UNIFORM,
            bisect=True,
            generator=torch.Generator().manual_seed(12345),
        )
        write(
            file,
            {
                "game": played.name,
                "average_iterations": iterations,
                "values": found.values.tolist(),
                "standard_errors": found.standard_errors.tolist(),
                "evaluations": found.evaluations,
                "passes": game.passes,
                "seconds": perf_counter() - start,
                **machine(),
            },
        )
    return torch.tensor(json.loads(file.read_text())["values"], dtype=torch.float64)


def write(file: Path, facts: dict[str, object]) -> None:
    file.write_text(json.dumps(facts, indent=1) + "\n")


def area(points: Sequence[dict[str, float]]) -> float:
    """Mean ASR under the curve, over the logarithm of 1 + the number of neurons removed."""
    x = np.log1p([point["removed"] for point in points])
    y = np.array([point["asr"] for point in points])
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / x[-1])


def accuracy_at(points: Sequence[dict[str, float]], asr: float) -> float:
    """The best ACC among the points whose ASR is low enough; 0 where there is none."""
    return max((point["accuracy"] for point in points if point["asr"] <= asr), default=0.0)


def table(folder: Path) -> str:
    runs: dict[tuple[str, str], list[dict]] = {}
    for file in sorted(folder.glob("*.json")):
        one = json.loads(file.read_text())
        if "estimator" in one:
            runs.setdefault((one["game"], one["estimator"]), []).append(one)
    lines = [
        "| game | estimator | runs | best found | of | correlation | area under ASR | ACC at ASR "
        "≤ 1 % | image passes | seconds |",
        "|---" * 10 + "|",
    ]
    for game in GAMES:
        for name in ESTIMATORS:
            some = runs.get((game, name))
            if not some:
                continue
            cells = [
                game,
                name,
                str(len(some)),
                spread([r["found"] for r in some], 0),
                str(some[0]["top"]),
                spread([r["correlation"] for r in some], 2),
                spread([area(r["curve"]) for r in some]),
                spread([accuracy_at(r["curve"], 1) for r in some]),
                f"{median([r['passes'] for r in some]):,.0f}",
                spread([r["seconds"] for r in some]),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--games", nargs="+", default=list(GAMES))
    parser.add_argument("--estimators", nargs="+", default=list(ESTIMATORS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    for name in arguments.games:
        played = board(name)
        truth = truth_of(played)
        for seed in arguments.seeds:
            budget = 0
            for estimator in arguments.estimators:
                file = OUT / f"{name}_{estimator.replace(' ', '-').replace('/', '_')}_{seed}.json"
                if not file.exists():
                    write(file, run(played, estimator, seed, truth, budget))
                one = json.loads(file.read_text())
                if estimator == "algorithm1":
                    budget = one["evaluations"]
                print(name, estimator, seed, one["found"], f"{one['seconds']:.1f}s", flush=True)
    (OUT / "README.md").write_text(
        "# Estimators of Shapley values\n\nMade by `make bench-shapley` from the JSON files beside "
        "it: median (smallest … largest) over seeds.\n\n" + table(OUT)
    )


if __name__ == "__main__":
    main()
