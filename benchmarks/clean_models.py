"""Trains the clean models of the benchmark: `python benchmarks/clean_models.py [NAME ...]`.

They are kept in benchmarks/cache/, which git ignores.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from networks import PlainNet, SmallResNet
from shapprune.attacks.training import train
from shapprune.checkpoints.state_dict import read_weights, save_weights
from shapprune.data.dataset import LabeledImages
from shapprune.data.loading import load_images
from shapprune.demo import DigitCNN
from shapprune.model.metrics import accuracy

ROOT = Path(__file__).parents[1]
CACHE = ROOT / "benchmarks" / "cache"
DATA = ROOT.parent / "shared" / "data"


@dataclass(frozen=True)
class CleanModel:
    """How one clean model is made."""

    data: str
    classes: int
    make: Callable[[], nn.Module]
    epochs: int
    seed: int
    flip: bool = False
    per_class: int | None = None


CLEAN = {
    "mnist_digitcnn": CleanModel("mnist", 10, DigitCNN, 6, 11, per_class=1200),
    "mnist_resnet": CleanModel("mnist", 10, lambda: SmallResNet(1, 10), 3, 12, per_class=1200),
    "cifar10_plain": CleanModel("cifar10_13k", 10, lambda: PlainNet(3, 10), 24, 13, flip=True),
    "cifar10_resnet": CleanModel("cifar10_13k", 10, lambda: SmallResNet(3, 10), 24, 14, flip=True),
    "gtsrb_plain": CleanModel("gtsrb_14k", 43, lambda: PlainNet(3, 43), 10, 15),
}


def load_split(data: str, classes: int, split: str, per_class: int | None = None) -> LabeledImages:
    return load_images(
        DATA / f"{data}.npz",
        num_classes=classes,
        split=split,
        per_class=per_class,
        generator=torch.Generator().manual_seed(0),
    )


def clean_model(name: str) -> nn.Module:
    """The model from the cache, trained first where it is not there."""
    recipe = CLEAN[name]
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        network = recipe.make()
    path = CACHE / f"{name}.safetensors"
    if path.exists():
        network.load_state_dict(read_weights(path))
        return network.eval().requires_grad_(False)
    given = load_split(recipe.data, recipe.classes, "train", recipe.per_class)
    model = train(
        network,
        given.images,
        given.labels,
        epochs=recipe.epochs,
        seed=recipe.seed,
        flip=recipe.flip,
    )
    CACHE.mkdir(exist_ok=True)
    save_weights(model, path)
    return model


if __name__ == "__main__":
    for name in sys.argv[1:] or CLEAN:
        model = clean_model(name)
        test = load_split(CLEAN[name].data, CLEAN[name].classes, "test")
        print(f"{name}: ACC {accuracy(model, test.images, test.labels):.3f}", flush=True)
