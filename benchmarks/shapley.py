"""Everything about estimators of Shapley values: `python benchmarks/shapley.py [--jobs 2]`.

The ASR game of the networks of ../shared/zoo, the demo model and the paper's VGG is played on one
image a class, stamped with a trigger that our own inversion found. Every result is a JSON file in
benchmarks/results/shapley; those that are there are not made again. The table README.md and the
plots beside them are made from the files. Experiments run side by side in processes of one torch
thread each; the truth that estimators are compared with comes from `boards.py`.

Image passes are those asked for; that coalitions share layers shows in the seconds alone.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from statistics import median

import torch

from batching import KINDS, batching
from boards import GAMES, OUT, has_truth, truth
from estimators import ESTIMATORS, accuracy_at, agreement, area, compare
from growth import GROWING, found_by_long, growth, passes_for
from repair import spread
from shapprune.bench.rankings import found, sizes
from walks import PLOTS, plot, walks

# Those that take longest come first, and get one seed.
SEEDS = {
    "gtsrb_trojan_wm": (0,),
    "vgg_2688": (0,),
    "cifar10_badnets": (0, 1, 2),
    "cifar10_l2inv": (0, 1, 2),
    "demo": (0, 1, 2),
}


def report() -> str:
    """All results as Markdown."""
    return f"""# Estimators of Shapley values

Made by `make bench-shapley` from the JSON files beside it: median (smallest … largest) over seeds.
"Found" is how many of an estimator's best are among the true best, 50 of 70 or the same share of a
smaller network. The curves are ACC and ASR with the attacker's trigger while the best neurons go,
on 400 test images: the area under ASR is over the logarithm of the neurons removed, and ACC at
ASR ≤ 1 % is 0 where no pruning brings the ASR there. Image passes are those asked for, a backward
pass being two.

{truths()}
{comparison()}
## One batched evaluation against a loop

Seconds of 64 coalitions, and how many times longer a loop over coalitions takes, and a loop over
coalitions and images. A walk's coalitions share layers, random ones do not.

{batches()}
## Growth of the cost with the number of neurons

Image passes of `multilinear` until the best 50 are found among the best 70 of a run of 8,192
gradients, for three networks with the same data and backdoor.

{growths()}
## The details of Algorithm 1

![discarded](discarded.svg) ![greedy](greedy.svg) ![bisected](bisected.svg)
"""


def truths() -> str:
    lines = [
        "| game | players | average iterations of the truth | its halves agree on |",
        "|---" * 4 + "|",
    ]
    for name in GAMES:
        if not has_truth(name):
            continue
        true = truth(name)
        n = len(true.values)
        generator = torch.Generator().manual_seed(0)
        noise = 2**0.5 * true.errors * torch.randn(200, n, generator=generator)
        halves = (true.values + noise).view(2, 100, n)
        agreed = median(found(a, b) for a, b in zip(*halves, strict=True))
        lines.append(
            f"| {name} | {n:,} | {true.average_iterations:,.0f} | {agreed:.0f} of {sizes(n)[0]} |"
        )
    return "\n".join(lines) + "\n"


def comparison() -> str:
    runs: dict[tuple[str, str], list[dict]] = {}
    for file in sorted(OUT.glob("*.json")):
        one = json.loads(file.read_text())
        if "estimator" in one:
            runs.setdefault((one["game"], one["estimator"]), []).append(one)
    lines = [
        "| game | estimator | runs | found | of | correlation | area under ASR | ACC at ASR ≤ 1 % "
        "| image passes | seconds |",
        "|---" * 10 + "|",
    ]
    for game in SEEDS:
        true = truth(game).values
        for name in ESTIMATORS:
            some = runs.get((game, name))
            if not some:
                continue
            hits, correlations = zip(*(agreement(run, true) for run in some), strict=True)
            cells = [
                game,
                name,
                str(len(some)),
                spread(hits, 0),
                str(sizes(len(true))[0]),
                spread(correlations, 2),
                spread([area(r["curve"]) for r in some]),
                spread([accuracy_at(r["curve"], 1) for r in some]),
                f"{median(r['passes'] for r in some):,.0f}",
                spread([r["seconds"] for r in some]),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def batches() -> str:
    lines = [
        "| game | coalitions of | batched | loop | loop over images too |",
        "|---" * 5 + "|",
    ]
    for name in GAMES:
        for kind in KINDS:
            file = OUT / f"batching_{name}_{kind}.json"
            if file.exists():
                one = json.loads(file.read_text())
                times = " | ".join(
                    f"× {one[way] / one['batched']:.1f}" for way in ("loop", "images")
                )
                lines.append(f"| {name} | a {kind} | {one['batched']:.3f} s | {times} |")
    return "\n".join(lines) + "\n"


def growths() -> str:
    wanted = (40, 45, 48)
    heads = " | ".join(f"{least} of 50" for least in wanted)
    lines = [f"| game | players | {heads} | long run's best in the truth |", "|---" * 6 + "|"]
    for name in GROWING:
        one = json.loads((OUT / f"growth_{name}.json").read_text())
        passes = (passes_for(name, least) for least in wanted)
        cells = " | ".join(f"{p:,}" if p else "–" for p in passes)
        lines.append(f"| {name} | {one['players']:,} | {cells} | {found_by_long(name)} of 50 |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2)
    tasks = [
        *(partial(compare, name, seeds) for name, seeds in SEEDS.items()),
        walks,
        *(partial(growth, name) for name in GROWING),
    ]
    with ProcessPoolExecutor(parser.parse_args().jobs, get_context("spawn")) as pool:
        for done in [pool.submit(task) for task in tasks]:
            done.result()
    for name in SEEDS:  # one after another, since seconds are what it is about
        batching(name)
    for name in PLOTS:
        plot(name)
    (OUT / "README.md").write_text(report())


if __name__ == "__main__":
    main()
