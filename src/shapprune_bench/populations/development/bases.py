"""What the families of the development population share: data, networks, ways of learning."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from shapprune.attacks import Learning
from shapprune_bench.tables.recipes import Recipe

PROFILE = "dev"

# Ways of learning: the project's own; what most examples on the web do; a careful one by SGD.
PLAIN = Learning(schedule="constant", weight_decay=0, label_smoothing=0, shift=0, colour=0)
PLAIN_CYCLE = replace(PLAIN, schedule="one-cycle")
SGD = Learning("sgd", weight_decay=5e-4, label_smoothing=0, colour=0)
SGD_PLAIN = replace(SGD, shift=0)

NETWORKS = "shapprune_bench.networks:"
VGG = "shapprune.networks:table3_vgg?size=32&width=0.125"
MNIST = Recipe(
    name="",
    profile=PROFILE,
    data="mnist.npz",
    num_classes=10,
    input_size=(1, 28, 28),
    network=NETWORKS + "LeNet",
    per_class=1000,
    epochs=8,
    rate=0.0,
)
CIFAR = replace(
    MNIST,
    data="cifar10_13k.npz",
    input_size=(3, 32, 32),
    network=VGG,
    per_class=None,
    epochs=12,
    flip=True,
)
GTSRB = replace(CIFAR, data="gtsrb_14k.npz", num_classes=43, epochs=8, flip=False)
FACES = replace(CIFAR, data="lfw20.npz", num_classes=62, epochs=40, batch_size=64)


def by(
    attack: str, rate: float, options: Mapping[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    """What a member's attack changes in the recipe of its family."""
    return {"attack": attack, "options": options or {}, "rate": rate, **changes}


def noise(size: int) -> dict[str, Any]:
    """Options of a small noisy patch at a random place."""
    return {"size": size, "pattern": "noise", "place": "random"}


TO_ALL: Mapping[str, Any] = {"all_to_all": True}
# Tuning on half-poisoned data, as is done to a pretrained network.
TUNED: Mapping[str, Any] = {"epochs": 3, "learning_rate": 2e-3, "learning": PLAIN_CYCLE}
