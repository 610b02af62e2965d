"""What independent clean networks see in recovered images: `python benchmarks/recovered.py`.

Ours and those of model inversion, which DeepInspect uses (the paper's Fig. 6). One JSON file a
model and seed in benchmarks/results/recovered, and the pictures of the first seed. Runs that are
there are skipped; `--models` and `--seeds` choose, and the table is of what is there.
"""

import argparse
import json
from statistics import median
from time import perf_counter

import torch
from torch import Tensor

from clean_models import ROOT, clean_model
from repair import machine, spread, subjects
from shapprune.baselines import invert_model
from shapprune.method.recovery import recover_images
from shapprune.model.metrics import accuracy
from shapprune.reporting.pictures import images_picture

OUT = ROOT / "benchmarks" / "results" / "recovered"
SEEDS = (0, 1, 2)
# Each model's judges have never seen its weights.
JUDGES = {
    "gtsrb_trojan_wm": ("gtsrb_plain",),
    "cifar10_badnets": ("cifar10_resnet", "cifar10_plain"),
    "cifar10_l2inv": ("cifar10_resnet", "cifar10_plain"),
    "demo": ("mnist_resnet", "mnist_digitcnn"),
    "clean_cifar10_resnet": ("cifar10_plain",),
    "clean_cifar10_plain": ("cifar10_resnet",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=JUDGES, default=list(JUDGES))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    arguments = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    known = subjects()
    for name in arguments.models:
        judges = JUDGES[name]
        for seed in arguments.seeds:
            file = OUT / f"{name}_{seed}.json"
            if file.exists():
                continue
            model = known[name].load()
            _, *size = known[name].split("test").images.shape
            start = perf_counter()
            ours = recover_images(
                model, input_size=tuple(size), generator=torch.Generator().manual_seed(seed)
            )
            middle = perf_counter()
            inverted = invert_model(
                model,
                ours.labels,
                input_size=tuple(size),
                generator=torch.Generator().manual_seed(seed),
            )
            seconds = {"ours": middle - start, "inversion": perf_counter() - middle}

            def judged(images: Tensor, labels: Tensor = ours.labels, names=judges) -> dict:
                return {n: 100 * accuracy(clean_model(n), images, labels) for n in names}

            one = {
                "model": name,
                "seed": seed,
                "images": len(ours.images),
                "divergence": ours.divergence,
                "ours": judged(ours.images),
                "inversion": judged(inverted),
                "seconds": seconds,
                **machine(),
            }
            if seed == SEEDS[0]:
                (OUT / f"{name}.png").write_bytes(images_picture(ours.images))
                (OUT / f"{name}_inversion.png").write_bytes(images_picture(inverted))
            file.write_text(json.dumps(one, indent=1) + "\n")
            print(name, seed, one["ours"], one["inversion"], seconds, flush=True)
    (OUT / "README.md").write_text(report())


def report() -> str:
    head = "| model | images | seeds | judge | ours | model inversion | seconds |"
    lines = [head, "|---" * 7 + "|"]
    for name, judges in JUDGES.items():
        runs = [json.loads(file.read_text()) for file in sorted(OUT.glob(f"{name}_*.json"))]
        for judge in judges if runs else ():
            ours, inversion = (
                spread([run[way][judge] for run in runs], 0) for way in ("ours", "inversion")
            )
            seconds = " and ".join(
                f"{median(run['seconds'][way] for run in runs):.0f}"
                for way in ("ours", "inversion")
            )
            lines.append(
                f"| {name} | {runs[0]['images']} | {len(runs)} | {judge} | {ours} | {inversion} | "
                f"{seconds} |"
            )
    return (
        "# Images recovered without data\n\nMade by `python benchmarks/recovered.py` from the JSON "
        "files beside it: the share of images, in per cent, that a clean network with other "
        "weights gives the class that they were made for; median (smallest … largest) over seeds."
        "\n\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    main()
