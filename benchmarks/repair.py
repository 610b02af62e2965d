"""Scans and repairs models with known backdoors, and clean ones, and scores the results.

`python benchmarks/repair.py [--seeds 0 1 2 3 4] [--models NAME ...] [--out DIR]` writes one JSON
file a run, skips those that are there, and makes the table README.md beside them. The zoo and the
data are those of ../shared. The pipeline gets the weights and one image a class of the training
part, drawn with the seed, or with `--data-free` the weights alone; the true trigger and the test
part come in afterwards, here.
"""

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from clean_models import CLEAN, ROOT, clean_model, load_split
from shapprune import demo
from shapprune.checkpoints.loading import load_classifier
from shapprune.data.dataset import LabeledImages, draw_per_class
from shapprune.data.loading import load_images
from shapprune.method.recovery import recover_images
from shapprune.method.triggers import Perturbation
from shapprune.model.metrics import accuracy, attack_success_rate
from shapprune.pipeline import RepairResult, repair

ZOO = ROOT.parent / "shared" / "zoo"


@dataclass(frozen=True)
class Subject:
    """A model, its data, and what only the scorer knows."""

    load: Callable[[], nn.Module]
    split: Callable[[str], LabeledImages]
    target: int | None = None
    stamp: Callable[[Tensor], Tensor] | None = None


def white_square(images: Tensor) -> Tensor:
    stamped = images.clone()
    stamped[:, :, 27:31, 27:31] = 1
    return stamped


def added(picture: str) -> Callable[[Tensor], Tensor]:
    pixels = np.array(Image.open(ZOO / picture).convert("RGB"))
    return Perturbation(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255).stamp


def zoo(
    name: str, data: str, classes: int, target: int, stamp: Callable[[Tensor], Tensor]
) -> Subject:
    return Subject(
        lambda: load_classifier(
            ZOO / f"{name}_target{target}.pth", arch=f"{ZOO}/arch.py:SmallVGG", num_classes=classes
        ),
        lambda split: load_split(data, classes, split),
        target,
        stamp,
    )


def clean(name: str) -> Subject:
    recipe = CLEAN[name]
    return Subject(
        lambda: clean_model(name), lambda split: load_split(recipe.data, recipe.classes, split)
    )


def subjects() -> dict[str, Subject]:
    return {
        "gtsrb_trojan_wm": zoo("gtsrb_trojan_wm", "gtsrb_14k", 43, 2, added("trojan_wm.png")),
        "cifar10_badnets": zoo("cifar10_badnets", "cifar10_13k", 10, 8, white_square),
        "cifar10_l2inv": zoo("cifar10_l2inv", "cifar10_13k", 10, 0, added("l2_inv.png")),
        "demo": Subject(
            lambda: load_classifier(demo.WEIGHTS, arch=demo.ARCH, num_classes=demo.NUM_CLASSES),
            lambda split: load_images(demo.DATA, num_classes=demo.NUM_CLASSES, split=split),
            demo.true_target(),
            demo.true_trigger().stamp,
        ),
        **{f"clean_{name}": clean(name) for name in CLEAN},
    }


def score(model: nn.Module, subject: Subject, test: LabeledImages) -> dict[str, float]:
    """ACC and ASR on the test part, in per cent."""
    scores = {"accuracy": 100 * accuracy(model, test.images, test.labels)}
    if subject.stamp is not None and subject.target is not None:
        scores["asr"] = 100 * attack_success_rate(
            model, test.images, test.labels, stamp=subject.stamp, target=subject.target
        )
    return scores


def run(name: str, subject: Subject, seed: int, data_free: bool) -> dict[str, object]:
    model, given = subject.load(), subject.split("train")
    few = draw_per_class(given, per_class=1, generator=torch.Generator().manual_seed(seed))
    start = perf_counter()
    if data_free:
        _, *size = few.images.shape
        generator = torch.Generator().manual_seed(seed)
        recovered = recover_images(model, input_size=tuple(size), generator=generator)
        result = repair(model, recovered=recovered, seed=seed)
        few = LabeledImages(recovered.images, recovered.labels)
    else:
        result = repair(model, few.images, few.labels, seed=seed)
    seconds = perf_counter() - start
    test = subject.split("test")
    triggers = result.repair.triggers if result.repair else ()
    return {
        "model": name,
        "seed": seed,
        "data_free": data_free,
        "target": subject.target,
        "verdict": result.scan.verdict,
        "targets": result.scan.targets,
        "score": score_of(result),
        "pruned_neurons": len(result.repair.pruned) if result.repair else 0,
        "sufficient": result.repair.sufficient if result.repair else None,
        "inverted_asr": [
            100
            * attack_success_rate(
                model, test.images, test.labels, stamp=t.stamp.stamp, target=t.target
            )
            for t in triggers
        ],
        "before": score(model, subject, test),
        "after": score(result.model, subject, test),
        "seconds": seconds,
        "stages": [vars(stage) for stage in result.stages],
        **machine(),
    }


def score_of(result: RepairResult) -> dict[str, object]:
    """What the verdict rests on."""
    judgement = result.scan.judgement
    return {
        "highest": judgement.score,
        "classes": judgement.scores,
        "untargeted": judgement.untargeted,
        "suspicious": judgement.suspicious,
        "backdoored": judgement.backdoored,
    }


def machine() -> dict[str, object]:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return {
        "commit": commit,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores",
        "torch_threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def table(folder: Path) -> str:
    """The results as Markdown, a line a model: median and range over the seeds."""
    runs: dict[str, list[dict]] = {}
    for file in sorted(folder.glob("*.json")):
        one = json.loads(file.read_text())
        runs.setdefault(one["model"], []).append(one)
    head = (
        "| model | seeds | verdict and target right | ACC before | drop | ASR before | "
        "ASR after | ASR pruned only | neurons | seconds |"
    )
    lines = [head, "|---" * 10 + "|"]
    for name, some in runs.items():
        right = sum(r["targets"] == ([] if r["target"] is None else [r["target"]]) for r in some)
        poisoned = some[0]["target"] is not None
        cells = [
            name,
            str(len(some)),
            f"{right} of {len(some)}",
            f"{some[0]['before']['accuracy']:.1f}",
            spread([r["before"]["accuracy"] - r["after"]["accuracy"] for r in some]),
            f"{some[0]['before']['asr']:.1f}" if poisoned else "–",
            spread([r["after"]["asr"] for r in some]) if poisoned else "–",
            spread([r["pruned"]["asr"] for r in some if r.get("pruned")]) if poisoned else "–",
            spread([r["pruned_neurons"] for r in some], 0),
            spread([r["seconds"] for r in some], 0),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def table_of_modes(folder: Path) -> str:
    """Where the runs have other modes beside the default, "difference": ACC and ASR by mode."""
    columns = ("ACC pruned only", "ASR pruned only", "ACC after", "ASR after", "neurons")
    lines = [f"| model | mode | seeds | {' | '.join(columns)} |", "|---" * 8 + "|"]
    runs: dict[str, dict[str, list[dict]]] = {}
    for file in sorted(folder.glob("*.json")):
        one = json.loads(file.read_text())
        if one.get("modes"):
            modes = runs.setdefault(one["model"], {})
            for mode, cell in {"difference": one, **one["modes"]}.items():
                modes.setdefault(mode, []).append(cell)
    for name, modes in runs.items():
        for mode, some in modes.items():
            cells = [name, mode, str(len(some))]
            cells += [
                spread([cell[when][what] for cell in some])
                for when in ("pruned", "after")
                for what in ("accuracy", "asr")
            ]
            cells.append(spread([cell["pruned_neurons"] for cell in some], 0))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n" if runs else ""


def spread(values: Sequence[float], digits: int = 1) -> str:
    if not values:
        return "–"
    low, mid, high = (f"{v:.{digits}f}" for v in (min(values), median(values), max(values)))
    return f"{mid} ({low} … {high})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--data-free", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results = ROOT / "benchmarks" / "results"
    arguments.out = arguments.out or (results / "data_free" if arguments.data_free else results)
    arguments.out.mkdir(exist_ok=True)
    known = subjects()
    for name in arguments.models or known:
        for seed in arguments.seeds:
            file = arguments.out / f"{name}_{seed}.json"
            if file.exists():
                continue
            one = run(name, known[name], seed, arguments.data_free)
            file.write_text(json.dumps(one, indent=1) + "\n")
            print(
                name,
                seed,
                one["targets"],
                one["score"]["highest"],
                one["before"],
                one["after"],
                f"{one['seconds']:.0f}s",
                flush=True,
            )
    if modes := table_of_modes(arguments.out):
        modes = f"\n## By mode\n\nFrom the same inverted triggers, run with `--modes`.\n\n{modes}"
    (arguments.out / "README.md").write_text(
        f"# Repair with {'no image' if arguments.data_free else 'one clean image a class'}\n\n"
        f"Made by `python benchmarks/repair.py{' --data-free' * arguments.data_free}` from the "
        "JSON files beside it: median (smallest … largest) over seeds, ACC and ASR in per cent on "
        "the test part, with the true trigger.\n\n" + table(arguments.out) + modes
    )


if __name__ == "__main__":
    main()
