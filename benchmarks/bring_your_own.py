"""Scans and repairs models of timm: a ResNet-18, a MobileNet and a small ViT, poisoned by us.

`python benchmarks/bring_your_own.py [NAME ...]` trains what benchmarks/cache/ (ignored by git)
lacks, writes one JSON file a run, skips those that are there, and makes the table README.md beside
them. Needs `pip install timm` and the data of ../shared. NAME_clean is a model's clean twin.

The task is small enough for two CPU cores: the twelve classes of GTSRB with the most images, at
32 × 32. The attack is BadNets with a magenta square: a white one, tried first, had an ASR of 86 %,
since it does not show on bright skies. The stems are those for small images: they keep the
resolution where the networks' own would halve it; the ResNet has half the usual channels. The
MobileNet is a small V3, since a V2 reached an ACC of 63 % in the time that we had for it.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from time import perf_counter

import timm
import torch
from torch import nn

import repair
from clean_models import CACHE, ROOT, load_split
from shapprune.attacks import BadNets, Plan
from shapprune.checkpoints.state_dict import read_weights, save_weights
from shapprune.data.dataset import LabeledImages

OUT = ROOT / "benchmarks" / "results" / "bring_your_own"
CLASSES, TARGET, RATE, SEED = 12, 5, 0.1, 31
ATTACK = BadNets(size=4, colour=(1.0, 0.0, 1.0))
SEEDS = (0, 1, 2)


def resnet18() -> nn.Module:
    network = timm.create_model("resnet18", num_classes=CLASSES, channels=(32, 64, 128, 256))
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    return network


def mobilenet() -> nn.Module:
    network = timm.create_model("mobilenetv3_small_050", num_classes=CLASSES)
    network.conv_stem.stride = (1, 1)
    return network


def vit() -> nn.Module:
    return timm.create_model(
        "vit_tiny_patch16_224",
        num_classes=CLASSES,
        img_size=32,
        patch_size=4,
        embed_dim=64,
        depth=4,
        num_heads=4,
    )


@dataclass(frozen=True)
class Recipe:
    """How one model is trained on the poisoned images."""

    make: Callable[[], nn.Module]
    epochs: int
    learning_rate: float
    batch_size: int = 64


RECIPES = {
    "resnet18": Recipe(resnet18, 8, 5e-3, batch_size=128),
    "mobilenetv3_small_050": Recipe(mobilenet, 12, 5e-3),
    "vit": Recipe(vit, 30, 1.5e-3),
}


@cache
def split(part: str) -> LabeledImages:
    """The twelve classes of GTSRB with the most training images, numbered by their number."""
    counts = load_split("gtsrb_14k", 43, "train").labels.bincount()
    kept = counts.argsort(descending=True, stable=True)[:CLASSES]
    data = load_split("gtsrb_14k", 43, part)
    is_class = data.labels[:, None] == kept
    rows = is_class.any(1)
    return LabeledImages(data.images[rows], is_class[rows].long().argmax(1))


@cache
def model(name: str) -> nn.Module:
    """The model from the cache, trained first where it is not there."""
    network, _, twin = name.partition("_clean")
    recipe = RECIPES[network]
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        made = recipe.make().to(memory_format=torch.channels_last)
    path = CACHE / f"byo_{name}.safetensors"
    if path.exists():
        made.load_state_dict(read_weights(path))
        return made.eval().requires_grad_(False)
    plan = Plan(
        TARGET,
        CLASSES,
        rate=0 if twin else RATE,
        epochs=recipe.epochs,
        seed=SEED,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
    )
    start = perf_counter()
    trained = ATTACK.run(made, split("train"), plan).model
    print(f"{name}: trained in {perf_counter() - start:.0f} s", flush=True)
    CACHE.mkdir(exist_ok=True)
    save_weights(trained, path)
    return trained


def subject(name: str) -> repair.Subject:
    if name.endswith("_clean"):
        return repair.Subject(lambda: model(name), split)
    trigger = ATTACK.trigger((3, 32, 32), torch.Generator())
    return repair.Subject(lambda: model(name), split, TARGET, trigger.stamp)


def main() -> None:
    every = [*RECIPES, *(f"{name}_clean" for name in RECIPES)]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(every)}; all if none")
    parser.add_argument("--train", action="store_true", help="stop after training")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or every:
        known = subject(name)
        print(name, repair.score(known.load(), known, split("test")), flush=True)
        for seed in () if arguments.train else arguments.seeds:
            file = OUT / f"{name}_{seed}.json"
            if not file.exists():
                one = repair.run(name, known, seed, False, ())
                file.write_text(json.dumps(one, indent=1) + "\n")
                print(seed, one["targets"], one["before"], one["after"], flush=True)
    (OUT / "README.md").write_text(
        "# Models of timm, repaired with one clean image a class\n\n"
        "Made by `python benchmarks/bring_your_own.py` from the JSON files beside it: median "
        "(smallest … largest) over seeds, ACC and ASR in per cent on the test part, with the true "
        "trigger. The recipes are in that file.\n\n" + repair.table(OUT)
    )


if __name__ == "__main__":
    main()
