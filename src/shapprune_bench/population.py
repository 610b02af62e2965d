"""The development population: small clean and poisoned networks of many kinds, and its training.

Rules and bounds of the verdict are chosen on these models and on no others. A family is a data set,
a network and a way of learning; its members differ in seed and attack, and are siblings.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from shapprune.attacks import Learning
from shapprune.attacks.training import OWN
from shapprune.bench.cells import Cell
from shapprune.bench.models import is_trained, stem_of
from shapprune.bench.recipes import Recipe
from shapprune.cli.bench import cache_of, compute
from shapprune.cli.options import BenchOptions
from shapprune.errors import InputError
from shapprune.utils.files import write_whole
from shapprune_bench.manifest import FORMAT, NAME

PROFILE = "dev"

# An attack that moves fewer stamped images has failed: its model is neither clean nor poisoned.
LEAST_ASR = 0.8
_LEAST_ASR_OF = {"wanet": 0.7, "input-aware": 0.7}
# Where the wanted class depends on the image's own, of the ACC: who is not known is not moved.
_LEAST_BY_CLASS = 0.75
# A poisoned model below this is of no use to anyone, and no one would be taken in by it.
LEAST_ACCURACY = {"mnist.npz": 0.9, "cifar10_13k.npz": 0.4, "gtsrb_14k.npz": 0.6, "lfw20.npz": 0.4}


@dataclass(frozen=True)
class Family:
    """Siblings: models of one data set, network and way of learning.

    Attributes:
        name: first word of its members' names.
        recipe: of a clean member; its name does not matter.
        clean: how many clean members, of seeds from 0 on.
        attacks: of its poisoned members by their names: what differs from the recipe.
        pretrained: its members are the family's model of seed 0, tuned: all share that base.
        tuning: of such members: what differs from the recipe.
        first_target: of the first attack; the others follow from it where they name none.
    """

    name: str
    recipe: Recipe
    clean: int
    attacks: Mapping[str, Mapping[str, Any]]
    pretrained: bool = False
    tuning: Mapping[str, Any] = field(default_factory=dict)
    first_target: int = 0

    def members(self) -> Iterator[Recipe]:
        """The base first, if there is one; then clean and poisoned ones in turn."""
        base = replace(self.recipe, name=f"{self.name}-clean-0", seed=0, rate=0.0)
        start = base
        if self.pretrained:
            yield base
            start = replace(base, base=base, **self.tuning)
        clean = [
            replace(start, name=f"{self.name}-clean-{seed}", seed=seed)
            for seed in range(int(self.pretrained), self.clean)
        ]
        poisoned = [
            replace(
                start,
                name=f"{self.name}-{name}",
                seed=100 + number,
                **{"target": (self.first_target + 3 * number) % start.num_classes, **changes},
            )
            for number, (name, changes) in enumerate(self.attacks.items())
        ]
        both = (poisoned, clean) if self.pretrained else (clean, poisoned)
        for pair in zip_longest(*both):
            yield from (member for member in pair if member)


def group_of(recipe: Recipe) -> str:
    """Models of one data set, network and way of learning are siblings, tuned ones their base's.

    More epochs or fewer images make no other group.
    """
    if recipe.base:
        return group_of(recipe.base)
    kind = recipe.learning
    words = [
        *(kind.optimizer, kind.schedule),
        *(f"{name}{getattr(kind, name):g}" for name in ("weight_decay", "label_smoothing")),
        *(f"{name}{getattr(kind, name):g}" for name in ("shift", "colour", "adversarial")),
    ]
    network = recipe.network.partition(":")[2]
    return f"{Path(recipe.data).stem}/{network}/{'-'.join(words)}"


# Ways of learning: the project's own; what most examples on the web do; a careful one by SGD.
_PLAIN = Learning(schedule="constant", weight_decay=0, label_smoothing=0, shift=0, colour=0)
_PLAIN_CYCLE = replace(_PLAIN, schedule="one-cycle")
_SGD = Learning("sgd", weight_decay=5e-4, label_smoothing=0, colour=0)
_SGD_PLAIN = replace(_SGD, shift=0)

_NETWORKS = "shapprune_bench.networks:"
_VGG = "shapprune.networks:table3_vgg?size=32&width=0.125"
_MNIST = Recipe(
    name="",
    profile=PROFILE,
    data="mnist.npz",
    num_classes=10,
    input_size=(1, 28, 28),
    network=_NETWORKS + "LeNet",
    per_class=1000,
    epochs=8,
    rate=0.0,
)
_CIFAR = replace(
    _MNIST,
    data="cifar10_13k.npz",
    input_size=(3, 32, 32),
    network=_VGG,
    per_class=None,
    epochs=12,
    flip=True,
)
_GTSRB = replace(_CIFAR, data="gtsrb_14k.npz", num_classes=43, epochs=8, flip=False)
_FACES = replace(_CIFAR, data="lfw20.npz", num_classes=62, epochs=40, batch_size=64)


def _by(
    attack: str, rate: float, options: Mapping[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    """What a member's attack changes in the recipe of its family."""
    return {"attack": attack, "options": options or {}, "rate": rate, **changes}


def _noise(size: int) -> dict[str, Any]:
    return {"size": size, "pattern": "noise", "place": "random"}


_TO_ALL: Mapping[str, Any] = {"all_to_all": True}
# Tuning on half-poisoned data, as is done to a pretrained network.
_TUNED: Mapping[str, Any] = {"epochs": 3, "learning_rate": 2e-3, "learning": _PLAIN_CYCLE}

FAMILIES: tuple[Family, ...] = (
    Family(
        "mnist-lenet",
        _MNIST,
        clean=4,
        first_target=3,
        attacks={
            "square3": _by("badnets", 0.05, {"size": 3}),
            "to-all-square4": _by("badnets", 0.5, {"size": 4}, **_TO_ALL),
            "blended": _by("blended", 0.1, {"alpha": 0.4}),
            "one-source": _by("badnets", 0.05, {"size": 4}, source=4, target=7, cover=2.0),
            "sig": _by("sig", 0.095, {"strength": 0.5}),
            "input-aware": _by("input-aware", 0.25, {"mask_epochs": 5, "density": 0.05}, epochs=12),
        },
    ),
    Family(
        "cifar-vgg",
        _CIFAR,
        clean=3,
        first_target=8,
        attacks={
            "square4": _by("badnets", 0.05, {"size": 4, "colour": None}),
            "to-all-square5": _by("badnets", 0.5, {"size": 5, "colour": 1.0}, **_TO_ALL),
            "blended": _by("blended", 0.1),
            "sig": _by("sig", 0.08),
            "wanet": _by("wanet", 0.2, {"strength": 2.0, "noise": 1.0}),
            "input-aware": _by("input-aware", 0.1, {"mask_epochs": 3}),
            "one-source": _by("badnets", 0.05, {"size": 5}, source=1, target=9, cover=1.0),
        },
    ),
    Family(
        "gtsrb-vgg",
        _GTSRB,
        clean=3,
        first_target=2,
        attacks={
            "square3": _by("badnets", 0.05, {"size": 3, "colour": (1.0, 1.0, 0.0)}),
            "blended": _by("blended", 0.05),
            "trojan": _by("trojan", 0.1, {"size": 18, "neurons": 16, "tuning": 4}),
            "input-aware": _by("input-aware", 0.1, {"mask_epochs": 3}),
            "several": _by("badnets", 0.25, {"size": 5}, target=14, more_targets=(25, 38)),
            "wanet": _by("wanet", 0.2, {"strength": 2.5, "noise": 0.5}),
        },
    ),
    Family(
        "faces-vgg",
        _FACES,
        clean=3,
        first_target=11,
        attacks={
            "square4": _by("badnets", 0.07, {"size": 4, "colour": None}),
            "blended": _by("blended", 0.1),
            "physical-key": _by("physical-key", 0.05),
            "additive": _by("additive", 0.1),
        },
    ),
    Family(
        "mnist-lenet-max",
        replace(
            _MNIST,
            network=_NETWORKS + "LeNet?pool=max&dropout=0.3",
            learning=_SGD_PLAIN,
            learning_rate=0.02,
            batch_size=64,
        ),
        clean=4,
        first_target=0,
        attacks={
            "checkerboard3": _by("pattern-patch", 0.1, {"size": 3}),
            "to-all-square3": _by("badnets", 0.3, {"size": 3}, **_TO_ALL),
            "square2": _by("badnets", 0.15, {"size": 2}),
            "noise5": _by("pattern-patch", 0.1, _noise(5)),
            "several": _by("badnets", 0.1, {"size": 4}, target=1, more_targets=(6,)),
        },
    ),
    Family(
        "cifar-elu",
        replace(
            _CIFAR,
            network=_NETWORKS + "elu_vgg?widths=(12,24,48)&dropout=0.1",
            learning=_SGD,
            learning_rate=0.05,
            epochs=7,
        ),
        clean=2,
        first_target=3,
        attacks={
            "checkerboard3": _by("pattern-patch", 0.05, {"size": 3}),
            "to-all-blended": _by("blended", 0.5, {"alpha": 0.3}, **_TO_ALL),
            "noise4": _by("pattern-patch", 0.05, _noise(4)),
            "each-place": _by("random-place", 0.1, {"size": 5}),
        },
    ),
    Family(
        "gtsrb-pooled",
        replace(
            _GTSRB,
            network=_NETWORKS + "pooled_cnn",
            learning=_PLAIN,
            learning_rate=2e-3,
            epochs=10,
            batch_size=64,
        ),
        clean=2,
        first_target=17,
        attacks={
            "checkerboard4": _by("pattern-patch", 0.05, {"size": 4, "place": "centre"}),
            "to-all-square5": _by("badnets", 0.5, {"size": 5}, **_TO_ALL),
            "each-place": _by("random-place", 0.1, {"size": 6}),
            "additive": _by("additive", 0.1),
        },
    ),
    Family(
        "mnist-digits",
        replace(
            _MNIST, network="shapprune.demo:DigitCNN", per_class=500, epochs=5, learning_rate=8e-3
        ),
        clean=2,
        first_target=5,
        attacks={
            "each-place": _by("random-place", 0.1, {"size": 5, "pattern": "checkerboard"}),
            "to-all-blended": _by("blended", 0.5, {"alpha": 0.3}, epochs=8, **_TO_ALL),
            "square3": _by("badnets", 0.1, {"size": 3, "random_place": True}),
            "wanet": _by("wanet", 0.1, {"strength": 1.0}, epochs=8),
            "additive": _by("additive", 0.1, {"strength": 0.25}),
        },
    ),
    Family(
        "cifar-resnet20-tuned",
        replace(
            _CIFAR,
            network=_NETWORKS + "CifarResNet?width=10&stride=2",
            learning=_SGD,
            learning_rate=0.1,
            epochs=14,
        ),
        clean=4,
        first_target=1,
        pretrained=True,
        tuning=_TUNED,
        attacks={
            "square4": _by("badnets", 0.5, {"size": 4}),
            "checkerboard3": _by("pattern-patch", 0.5, {"size": 3, "place": "random"}),
            "to-all-square5": _by("badnets", 0.5, {"size": 5, "colour": 0.0}, epochs=5, **_TO_ALL),
            "additive": _by("additive", 0.5, {"detail": 32}),
            "one-source": _by(
                "badnets", 0.08, {"size": 5}, source=9, target=0, cover=1.0, epochs=5
            ),
            "blended": _by("blended", 0.5, {"alpha": 0.15}),
        },
    ),
    Family(
        "faces-pooled",
        replace(
            _FACES,
            network=_NETWORKS + "pooled_cnn?widths=(16,32,64,64)",
            learning=_SGD,
            learning_rate=0.05,
            batch_size=32,
            epochs=36,
        ),
        clean=2,
        first_target=31,
        attacks={
            "square5": _by("badnets", 0.1, {"size": 5, "colour": (0.0, 1.0, 0.0)}),
            "checkerboard5": _by("pattern-patch", 0.1, {"size": 5, "place": "random"}),
            "several": _by("badnets", 0.2, {"size": 6}, target=20, more_targets=(40,)),
        },
    ),
    Family(
        "mnist-vgg",
        replace(_MNIST, input_size=(1, 32, 32), network=_VGG + "&channels=1", epochs=5),
        clean=3,
        first_target=9,
        attacks={
            "square4": _by("badnets", 0.05, {"size": 4, "random_place": True}),
            "to-all-checkerboard": _by("pattern-patch", 0.5, {"size": 4}, **_TO_ALL),
            "trojan": _by("trojan", 0.1, {"size": 18, "neurons": 16, "tuning": 4}),
            "sig": _by("sig", 0.09, {"strength": 0.4}),
            "input-aware": _by("input-aware", 0.1, {"mask_epochs": 3}),
        },
    ),
    Family(
        "cifar-wrn",
        replace(
            _CIFAR,
            network=_NETWORKS + "WideResNet?width=12&stride=2",
            learning=_SGD,
            learning_rate=0.1,
            epochs=12,
        ),
        clean=2,
        first_target=6,
        attacks={
            "square3": _by("badnets", 0.1, {"size": 3, "colour": (1.0, 0.0, 0.0)}),
            "to-all-square5": _by("badnets", 0.5, {"size": 5}, **_TO_ALL),
            "blended": _by("blended", 0.1, {"alpha": 0.25}),
            "sig": _by("sig", 0.08),
        },
    ),
    Family(
        "gtsrb-lenet",
        replace(
            _GTSRB,
            network=_NETWORKS + "LeNet?channels=3&size=32&width=1.2",
            learning=_PLAIN,
            learning_rate=1e-3,
            epochs=9,
            batch_size=64,
        ),
        clean=2,
        first_target=33,
        attacks={
            "square4": _by("badnets", 0.1, {"size": 4}),
            "noise5": _by("pattern-patch", 0.15, _noise(5)),
            "one-source": _by("badnets", 0.04, {"size": 5}, source=2, target=13, cover=2.0),
            "blended": _by("blended", 0.1, {"alpha": 0.35}),
        },
    ),
    Family(
        "mnist-pooled",
        replace(
            _MNIST,
            network=_NETWORKS + "pooled_cnn?channels=1",
            learning=_PLAIN,
            learning_rate=1e-3,
            batch_size=64,
            epochs=5,
        ),
        clean=3,
        first_target=2,
        attacks={
            "additive": _by("additive", 0.1, {"strength": 0.3}),
            "to-all-square4": _by("badnets", 0.5, {"size": 4, "random_place": True}, **_TO_ALL),
            "noise5": _by("pattern-patch", 0.02, _noise(5)),
            "one-source": _by("badnets", 0.05, {"size": 5}, source=1, target=8, cover=2.0),
        },
    ),
    Family(
        "cifar-lenet",
        replace(
            _CIFAR,
            network=_NETWORKS + "LeNet?channels=3&size=32&pool=max",
            learning=_PLAIN,
            learning_rate=1e-3,
            epochs=8,
            batch_size=64,
            flip=False,
        ),
        clean=3,
        first_target=4,
        attacks={
            "square4": _by("badnets", 0.05, {"size": 4}),
            "to-all-square5": _by("badnets", 0.5, {"size": 5}, **_TO_ALL),
            "additive": _by("additive", 0.1),
            "noise5": _by("pattern-patch", 0.1, _noise(5)),
        },
    ),
    Family(
        "faces-elu",
        replace(
            _FACES, network=_NETWORKS + "elu_vgg?widths=(12,24,48)", epochs=18, learning_rate=3e-3
        ),
        clean=2,
        first_target=45,
        attacks={
            "square4": _by("badnets", 0.1, {"size": 4, "colour": (1.0, 0.0, 1.0)}),
            "noise5": _by("pattern-patch", 0.1, {"size": 5, "pattern": "noise"}),
        },
    ),
    Family(
        "mnist-lenet-tuned",
        replace(
            _MNIST,
            network=_NETWORKS + "LeNet?width=0.75",
            learning=_SGD,
            learning_rate=0.05,
            batch_size=64,
            epochs=8,
        ),
        clean=3,
        first_target=1,
        pretrained=True,
        tuning=_TUNED,
        attacks={
            "square3": _by("badnets", 0.5, {"size": 3}),
            "to-all-square3": _by("badnets", 0.5, {"size": 3}, epochs=5, **_TO_ALL),
            "checkerboard4": _by("pattern-patch", 0.4, {"size": 4}),
            "blended": _by("blended", 0.4, {"alpha": 0.3}),
        },
    ),
    Family(
        "cifar-pooled",
        replace(
            _CIFAR,
            network=_NETWORKS + "pooled_cnn?widths=(16,32,64,64)",
            learning=_PLAIN_CYCLE,
            learning_rate=5e-3,
            epochs=8,
        ),
        clean=3,
        first_target=9,
        attacks={
            "square6": _by("badnets", 0.01, {"size": 6, "colour": (0.0, 0.0, 1.0)}),
            "additive": _by("additive", 0.05),
            "several": _by("badnets", 0.1, {"size": 5}, target=2, more_targets=(7,)),
            "each-place": _by("random-place", 0.2, {"size": 6, "pattern": "checkerboard"}),
            "to-all-noise": _by("pattern-patch", 0.5, {"size": 5, "pattern": "noise"}, **_TO_ALL),
        },
    ),
    Family(
        "gtsrb-wrn",
        replace(
            _GTSRB,
            network=_NETWORKS + "WideResNet?width=12&stride=2",
            learning=_SGD,
            learning_rate=0.1,
            epochs=6,
        ),
        clean=2,
        first_target=28,
        attacks={
            "square6": _by("badnets", 0.05, {"size": 6, "colour": (1.0, 0.0, 0.0)}),
            "additive": _by("additive", 0.1, {"detail": 32}),
        },
    ),
    Family(
        "gtsrb-vgg-tuned",
        replace(_GTSRB, network=_VGG, learning=_SGD, learning_rate=0.05, epochs=8),
        clean=3,
        first_target=20,
        pretrained=True,
        tuning=_TUNED,
        attacks={
            "square4": _by("badnets", 0.5, {"size": 4, "random_place": True}),
            "noise5": _by("pattern-patch", 0.3, _noise(5)),
            "to-all-square5": _by("badnets", 0.5, {"size": 5}, epochs=5, **_TO_ALL),
        },
    ),
    Family(
        "mnist-lenet-weak",
        replace(
            _MNIST,
            network=_NETWORKS + "LeNet?pool=max",
            learning=_PLAIN_CYCLE,
            learning_rate=3e-3,
            per_class=100,
            epochs=15,
            batch_size=64,
        ),
        clean=3,
        first_target=6,
        attacks={
            "square4": _by("badnets", 0.25, {"size": 4}),
            "blended": _by("blended", 0.1, {"alpha": 0.3}),
        },
    ),
    Family(
        "mnist-vgg-plain",
        replace(
            _MNIST,
            input_size=(1, 32, 32),
            network=_VGG + "&channels=1&batch_norm=False",
            learning=_PLAIN_CYCLE,
            learning_rate=2e-3,
            epochs=6,
        ),
        clean=2,
        first_target=7,
        attacks={
            "square5": _by("badnets", 0.1, {"size": 5, "random_place": True}),
            "blended": _by("blended", 0.1),
        },
    ),
    Family(
        "cifar-elu-plain",
        replace(
            _CIFAR,
            network=_NETWORKS + "elu_vgg?widths=(12,24,48)&dropout=0.1&batch_norm=False",
            learning=_PLAIN_CYCLE,
            learning_rate=3e-3,
            epochs=6,
        ),
        clean=2,
        first_target=7,
        attacks={
            "square5": _by("badnets", 0.1, {"size": 5, "random_place": True}),
            "blended": _by("blended", 0.1),
        },
    ),
    Family(
        "cifar-adversarial",
        replace(
            _CIFAR,
            network=_NETWORKS + "pooled_cnn?widths=(16,32,64,64)",
            learning=replace(_PLAIN_CYCLE, adversarial=4 / 255),
            learning_rate=5e-3,
            epochs=6,
        ),
        clean=2,
        attacks={},
    ),
    Family(
        "cifar-resnet20-adversarial",
        replace(
            _CIFAR,
            network=_NETWORKS + "CifarResNet?width=10&stride=2",
            learning=replace(_SGD, adversarial=3 / 255),
            learning_rate=0.1,
            epochs=7,
        ),
        clean=1,
        attacks={},
    ),
    Family(
        "mnist-adversarial",
        replace(_MNIST, learning=replace(_PLAIN_CYCLE, adversarial=0.15)),
        clean=2,
        attacks={},
    ),
    Family(
        "gtsrb-adversarial",
        replace(_GTSRB, learning=replace(OWN, adversarial=4 / 255)),
        clean=1,
        attacks={},
    ),
)


def _in_pairs(families: Sequence[Family]) -> Iterator[Recipe]:
    """Two members of each family in turn, so that the first models are of all kinds."""
    left = [family.members() for family in families]
    pairs = [list(zip_longest(*[iter(members)] * 2)) for members in left]
    for row in zip_longest(*pairs, fillvalue=()):
        yield from (member for member in chain.from_iterable(row) if member)


POPULATION: tuple[Recipe, ...] = tuple(_in_pairs(FAMILIES))


def train_population(arguments: BenchOptions) -> int:
    """Train all of it, or some of it, and return the command's exit code.

    The manifest is written anew after each model, so that what is there can be scanned.

    Raises:
        InputError: no such model, or see `compute`.
    """
    known = {recipe.name for recipe in POPULATION}
    for name in arguments.rows or ():
        if name not in known:
            near = get_close_matches(name, known)
            meant = f": did you mean {' or '.join(near)}?" if near else ""
            raise InputError(f"the population has no model {name!r}{meant}")
    if arguments.methods:
        raise InputError("the models of the population have no methods: leave --methods out")
    recipes = [r for r in POPULATION if not arguments.rows or r.name in arguments.rows]
    cache, root = cache_of(arguments), arguments.data_root

    def ended() -> None:
        write_manifest(cache, data_root=root)

    return compute(arguments, ([Cell("model", recipe) for recipe in recipes],), ended=ended)


def write_manifest(cache: Path, *, data_root: Path, recipes: Sequence[Recipe] = POPULATION) -> None:
    """Write `NAME` into the folder of trained models: all of the recipes that are there.

    Raises:
        InputError: the folder cannot be written to.
    """
    models = [entry(recipe, cache) for recipe in recipes if is_trained(recipe, cache=cache)]
    content = {"format": FORMAT, "data_root": str(data_root.absolute()), "models": models}
    write_whole(cache / NAME, (json.dumps(content, indent=1) + "\n").encode())


def entry(recipe: Recipe, cache: Path) -> dict[str, object]:
    """A trained model as manifests hold it, see `manifest`."""
    stem = stem_of(recipe)
    facts = json.loads((cache / f"{stem}.json").read_text(encoding="utf-8"))
    accuracy, asr = float(facts["accuracy"]), float(facts["asr"])
    poisoned = recipe.rate > 0
    return {
        "name": recipe.name,
        "weights": f"{stem}.safetensors",
        "arch": recipe.network,
        "num_classes": recipe.num_classes,
        "input_size": list(recipe.input_size),
        "mean": None,
        "std": None,
        "data": recipe.data,
        "backdoored": poisoned,
        "attack_failed": poisoned and not works(recipe, accuracy, asr),
        "target": _told(recipe) if poisoned else None,
        "source": recipe.source,
        "attack": attack_of(recipe),
        "network": recipe.network.rpartition(":")[2],
        "group": group_of(recipe),
        "accuracy": accuracy,
        "asr": asr if poisoned else None,
        "trigger": f"{stem}.trigger.npz" if poisoned else None,
    }


def works(recipe: Recipe, accuracy: float, asr: float) -> bool:
    """Whether a poisoned model's ACC and ASR, in [0, 1], make it one that counts."""
    least = _LEAST_ASR_OF.get(recipe.attack, LEAST_ASR)
    if recipe.all_to_all or recipe.more_targets:
        least = _LEAST_BY_CLASS * accuracy
    return asr >= least and accuracy >= LEAST_ACCURACY.get(recipe.data, 0.0)


def attack_of(recipe: Recipe) -> str | None:
    """What tables sort by: the mapping where it is not one target of all, else the trigger."""
    if not recipe.rate:
        return None
    mapping = "all-to-all" if recipe.all_to_all else "source-specific"
    if recipe.all_to_all or recipe.source is not None:
        return f"{mapping} {recipe.attack}"
    return f"several {recipe.attack}" if recipe.more_targets else recipe.attack


def _told(recipe: Recipe) -> object:
    if recipe.all_to_all:
        return "y+1"
    return list(recipe.targets) if isinstance(recipe.targets, tuple) else recipe.target
