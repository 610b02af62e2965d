"""Families that no rule was chosen on: other seeds, two more networks, two more attacks.

MobileNet and DenseNet, dithering and reflections are in no family of the development population.
Its own kinds are here too, as models of new seeds under other settings of their attacks.
"""

from dataclasses import replace

from shapprune_bench.populations.development.bases import (
    CIFAR,
    FACES,
    GTSRB,
    MNIST,
    NETWORKS,
    PLAIN,
    PLAIN_CYCLE,
    SGD,
    TO_ALL,
    VGG,
    by,
    noise,
)
from shapprune_bench.populations.family import Family
from shapprune_bench.tables.recipes import Recipe

PROFILE = "test"
SEED = 1000  # the development population's are below 200


def _test(recipe: Recipe, network: str | None = None, **changes: object) -> Recipe:
    spec = {} if network is None else {"network": network}
    return replace(recipe, profile=PROFILE, **spec, **changes)  # type: ignore[arg-type]


_MOBILE, _DENSE = NETWORKS + "mobile_net", NETWORKS + "dense_net"
_GREY_MOBILE, _GREY_DENSE = _MOBILE + "?channels=1", _DENSE + "?channels=1"

FAMILIES: tuple[Family, ...] = (
    Family(
        "mnist-mobile",
        _test(MNIST, _GREY_MOBILE, epochs=4),
        clean=4,
        first_target=8,
        first_seed=SEED,
        attacks={
            "square3": by("badnets", 0.05, {"size": 3, "random_place": True}),
            "reflection": by("reflection", 0.1),
            "to-all-square4": by("badnets", 0.5, {"size": 4}, **TO_ALL),
            "sig": by("sig", 0.09, {"strength": 0.4}),
            "input-aware": by("input-aware", 0.15, {"mask_epochs": 4}, epochs=8),
        },
    ),
    Family(
        "cifar-dense",
        _test(CIFAR, _DENSE, learning=SGD, learning_rate=0.1, epochs=12),
        clean=4,
        first_target=5,
        first_seed=SEED,
        attacks={
            "dithering": by("quantisation", 0.1, {"levels": 5}),
            "square4": by("badnets", 0.05, {"size": 4, "colour": (0.0, 1.0, 1.0)}),
            "blended": by("blended", 0.1, {"alpha": 0.25}),
            "to-all-square5": by("badnets", 0.5, {"size": 5}, **TO_ALL),
            "reflection": by("reflection", 0.1, {"shift": 4}),
            "one-source": by("badnets", 0.05, {"size": 5}, source=3, target=6, cover=1.0),
        },
    ),
    Family(
        "gtsrb-mobile",
        _test(GTSRB, _MOBILE, learning=PLAIN_CYCLE, epochs=8),
        clean=4,
        first_target=12,
        first_seed=SEED,
        attacks={
            "square4": by("badnets", 0.05, {"size": 4, "colour": None}),
            "dithering": by("quantisation", 0.1, {"levels": 5}),
            "reflection": by("reflection", 0.05),
            "several": by("badnets", 0.25, {"size": 5}, target=7, more_targets=(30,)),
            "additive": by("additive", 0.1),
        },
    ),
    Family(
        "faces-dense",
        _test(FACES, _DENSE, epochs=25),
        clean=3,
        first_target=21,
        first_seed=SEED,
        attacks={
            "square5": by("badnets", 0.08, {"size": 5}),
            "reflection": by("reflection", 0.1),
            "physical-key": by("physical-key", 0.08),
        },
    ),
    Family(
        "mnist-dense",
        _test(MNIST, _GREY_DENSE, learning=PLAIN, learning_rate=2e-3, epochs=5, batch_size=64),
        clean=4,
        first_target=4,
        first_seed=SEED,
        attacks={
            "noise4": by("pattern-patch", 0.05, noise(4)),
            "blended": by("blended", 0.1, {"alpha": 0.3}),
            "one-source": by("badnets", 0.05, {"size": 4}, source=6, target=0, cover=2.0),
            "to-all-blended": by("blended", 0.5, {"alpha": 0.3}, epochs=8, **TO_ALL),
        },
    ),
    Family(
        "cifar-mobile",
        _test(CIFAR, _MOBILE, epochs=10),
        clean=4,
        first_target=2,
        first_seed=SEED,
        attacks={
            "checkerboard4": by("pattern-patch", 0.05, {"size": 4}),
            "dithering": by("quantisation", 0.1),
            "reflection": by("reflection", 0.1, {"alpha": 0.4}),
            "sig": by("sig", 0.09),
            "each-place": by("random-place", 0.1, {"size": 5}),
            "several": by("badnets", 0.1, {"size": 5}, target=1, more_targets=(8,)),
        },
    ),
    Family(
        "gtsrb-dense",
        _test(GTSRB, _DENSE, learning=SGD, learning_rate=0.1, epochs=8),
        clean=3,
        first_target=36,
        first_seed=SEED,
        attacks={
            "noise5": by("pattern-patch", 0.1, noise(5)),
            "blended": by("blended", 0.1),
            "dithering": by("quantisation", 0.1),
            "to-all-square5": by("badnets", 0.5, {"size": 5}, **TO_ALL),
            "each-place": by("random-place", 0.1, {"size": 5}),
        },
    ),
    Family(
        "faces-mobile",
        _test(FACES, _MOBILE, learning=PLAIN_CYCLE, epochs=30),
        clean=3,
        first_target=50,
        first_seed=SEED,
        attacks={
            "square4": by("badnets", 0.1, {"size": 4, "colour": None}),
            "dithering": by("quantisation", 0.1, {"levels": 4}),
            "blended": by("blended", 0.1, {"alpha": 0.3}),
        },
    ),
    Family(
        "mnist-lenet-new",
        _test(MNIST, NETWORKS + "LeNet?width=1.5", learning=PLAIN_CYCLE, epochs=4),
        clean=4,
        first_target=0,
        first_seed=SEED,
        attacks={
            "square2": by("badnets", 0.1, {"size": 2}),
            "reflection": by("reflection", 0.1, {"alpha": 0.4}),
            "to-all-square3": by("badnets", 0.5, {"size": 3}, **TO_ALL),
        },
    ),
    Family(
        "cifar-vgg-new",
        _test(CIFAR, VGG.replace("0.125", "0.1875"), learning=PLAIN_CYCLE, epochs=9),
        clean=4,
        first_target=7,
        first_seed=SEED,
        attacks={
            "square3": by("badnets", 0.08, {"size": 3, "random_place": True}),
            "dithering": by("quantisation", 0.15, {"levels": 5}),
            "wanet": by("wanet", 0.2, {"strength": 2.0, "noise": 1.0}),
            "additive": by("additive", 0.1, {"detail": 16}),
            "to-all-blended": by("blended", 0.5, {"alpha": 0.3}, **TO_ALL),
        },
    ),
    Family(
        "gtsrb-pooled-new",
        _test(
            GTSRB,
            NETWORKS + "pooled_cnn?widths=(24,32,48,64)",
            learning=PLAIN_CYCLE,
            learning_rate=5e-3,
            epochs=10,
        ),
        clean=3,
        first_target=25,
        first_seed=SEED,
        attacks={
            "square5": by("badnets", 0.05, {"size": 5, "random_place": True}),
            "reflection": by("reflection", 0.1),
            "one-source": by("badnets", 0.04, {"size": 5}, source=13, target=2, cover=2.0),
            "wanet": by("wanet", 0.2, {"strength": 2.5, "noise": 0.5}),
            "sig": by("sig", 0.04, {"strength": 0.3}, target=2),
        },
    ),
    Family(
        "mnist-vgg-plain-new",
        _test(
            MNIST,
            VGG + "&channels=1&batch_norm=False",
            input_size=(1, 32, 32),
            learning=PLAIN_CYCLE,
            epochs=6,
        ),
        clean=3,
        first_target=6,
        first_seed=SEED,
        attacks={
            "square4": by("badnets", 0.1, {"size": 4}),
            "each-place": by("random-place", 0.1, {"size": 5, "pattern": "noise"}),
        },
    ),
)
