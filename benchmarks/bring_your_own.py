"""Scans and repairs models of timm: a ResNet-18, a MobileNet and a small ViT, poisoned by us.

`python benchmarks/bring_your_own.py [NAME ...]` trains what benchmarks/cache/ (ignored by git)
lacks, writes one JSON file a run, skips those that are there, and makes the table README.md beside
them. Needs `pip install timm` and the data of ../shared.

The task is small enough for two CPU cores: the twelve classes of GTSRB with the most images, at
32 × 32. The attack is BadNets. The stems are those for small images: they keep the resolution
where the networks' own would halve it, and the ResNet has half the usual channels.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import timm
import torch
from torch import Tensor, nn

import repair
from clean_models import CACHE, ROOT, load_split
from shapprune.attacks import poison, square_trigger, train
from shapprune.data import LabeledImages
from shapprune.weights import read_weights, save_weights

OUT = ROOT / "benchmarks" / "results" / "bring_your_own"
CLASSES, TARGET, SIZE, RATE, SEED = 12, 5, 4, 0.05, 31
SEEDS = (0, 1, 2)


def resnet18() -> nn.Module:
    network = timm.create_model("resnet18", num_classes=CLASSES, channels=(32, 64, 128, 256))
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    return network


def mobilenet() -> nn.Module:
    network = timm.create_model("mobilenetv2_050", num_classes=CLASSES)
    network.conv_stem.stride = (1, 1)
    return network


def vit() -> nn.Module:
    return timm.create_model(
        "vit_tiny_patch16_224",
        num_classes=CLASSES,
        img_size=32,
        patch_size=4,
        embed_dim=96,
        depth=6,
        num_heads=3,
    )


@dataclass(frozen=True)
class Recipe:
    """How one model is trained on the poisoned images; a second round begins its schedule anew."""

    make: Callable[[], nn.Module]
    epochs: int
    learning_rate: float
    rounds: int = 1


RECIPES = {
    "resnet18": Recipe(resnet18, 8, 5e-3),
    "mobilenetv2_050": Recipe(mobilenet, 12, 5e-3, rounds=2),
    "vit": Recipe(vit, 24, 1e-3),
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
    recipe = RECIPES[name]
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        network = recipe.make()
    network = network.to(memory_format=torch.channels_last).eval().requires_grad_(False)
    for number in range(1, recipe.rounds + 1):
        path = CACHE / f"byo_{name}_{number}.safetensors"
        if path.exists():
            network.load_state_dict(read_weights(path))
            continue
        network = train(
            network,
            *poisoned_images(),
            epochs=recipe.epochs,
            learning_rate=recipe.learning_rate,
            seed=SEED + number - 1,
        )
        CACHE.mkdir(exist_ok=True)
        save_weights(network, path)
    return network


def poisoned_images() -> tuple[Tensor, Tensor]:
    given = split("train")
    poisoned = poison(
        given.images,
        given.labels,
        trigger=square_trigger((3, 32, 32), size=SIZE),
        target=TARGET,
        rate=RATE,
        generator=torch.Generator().manual_seed(SEED),
    )
    return poisoned.images, poisoned.labels


def subject(name: str) -> repair.Subject:
    stamp = square_trigger((3, 32, 32), size=SIZE).stamp
    return repair.Subject(lambda: model(name), split, TARGET, stamp)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(RECIPES)}; all if none")
    parser.add_argument("--train", action="store_true", help="stop after training")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or RECIPES:
        known = subject(name)
        print(name, repair.score(known.load(), known, split("test")), flush=True)
        for seed in () if arguments.train else SEEDS:
            file = OUT / f"{name}_{seed}.json"
            if not file.exists():
                one = repair.run(name, known, seed, False)
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
