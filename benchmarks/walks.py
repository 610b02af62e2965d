"""What the details of Algorithm 1 are worth: three plots of the top found against its cost.

Discarded against zeroed marginals, ε-greedy against uniform permutations, bisected against plain
walks, on the demo model, where the truth is known best.
"""

import json
from statistics import median
from time import perf_counter

import torch

from boards import OUT, UNIFORM, board, truth, write
from repair import machine
from shapprune.bench.rankings import found, sizes
from shapprune.shapley import algorithm1

GAME = "demo"
ITERATIONS = (10, 25, 50, 100)
SEEDS = (0, 1, 2, 3, 4)
# ε-greedy sets in after 30 average iterations, and changes nothing before.
VARIANTS: dict[str, dict[str, object]] = {
    "plain": {"explore": UNIFORM},
    "zeroed": {"explore": UNIFORM, "zeroed": True},
    "ε-greedy": {},
    "bisected": {"explore": UNIFORM, "bisect": True},
}
PLOTS = {
    "discarded": ("plain", "zeroed"),
    "greedy": ("plain", "ε-greedy"),
    "bisected": ("plain", "bisected"),
}


def walks() -> None:
    torch.set_num_threads(1)
    played, true = board(GAME), truth(GAME).values
    for variant, options in VARIANTS.items():
        for iterations in ITERATIONS:
            for seed in SEEDS:
                file = OUT / f"walks_{variant}_{iterations}_{seed}.json"
                if file.exists():
                    continue
                game, start = played.game(), perf_counter()
                result = algorithm1(
                    game,
                    average_iterations=iterations,
                    top=sizes(game.n)[0],
                    generator=torch.Generator().manual_seed(seed),
                    **options,  # type: ignore[arg-type]
                )
                write(
                    file,
                    {
                        "game": GAME,
                        "variant": variant,
                        "average_iterations": iterations,
                        "seed": seed,
                        "top": sizes(game.n)[0],
                        "found": found(result.values, true),
                        "best": float(result.values.max()),
                        "sum": float(result.values.sum()),
                        "passes": game.passes,
                        "seconds": perf_counter() - start,
                        **machine(),
                    },
                )
        print("walks", variant, flush=True)


def plot(name: str) -> None:
    """Median and range of the top found, over image passes, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": name, "font.size": 9})
    from matplotlib import pyplot

    runs = [json.loads(file.read_text()) for file in OUT.glob("walks_*.json")]
    figure, axes = pyplot.subplots(figsize=(4.4, 2.8))
    for variant, marker in zip(PLOTS[name], "os", strict=True):
        points = []
        for iterations in ITERATIONS:
            some = [
                run
                for run in runs
                if run["variant"] == variant and run["average_iterations"] == iterations
            ]
            shares = [run["found"] / run["top"] for run in some]
            points.append(
                (median(r["passes"] for r in some), min(shares), median(shares), max(shares))
            )
        passes, low, middle, high = zip(*points, strict=True)
        label = "discarded" if name == "discarded" and variant == "plain" else variant
        label = "uniform" if name == "greedy" and variant == "plain" else label
        axes.plot(passes, middle, marker=marker, label=label)
        axes.fill_between(passes, low, high, alpha=0.2)
    axes.set(xscale="log", xlabel="image passes", ylabel="share of the top found")
    axes.set(xlim=(4e3, 4e5), ylim=(0.5, 1.02))  # the same for all
    axes.legend(frameon=False, loc="lower right")
    figure.tight_layout()
    figure.savefig(OUT / f"{name}.svg", metadata={"Date": None})
    pyplot.close(figure)
