"""Families of readers of digits."""

from dataclasses import replace

from shapprune_bench.populations.development.bases import (
    MNIST,
    NETWORKS,
    PLAIN,
    PLAIN_CYCLE,
    SGD,
    SGD_PLAIN,
    TO_ALL,
    TUNED,
    VGG,
    by,
    noise,
)
from shapprune_bench.populations.family import Family

FAMILIES: tuple[Family, ...] = (
    Family(
        "mnist-lenet",
        MNIST,
        clean=4,
        first_target=3,
        attacks={
            "square3": by("badnets", 0.05, {"size": 3}),
            "to-all-square4": by("badnets", 0.5, {"size": 4}, **TO_ALL),
            "blended": by("blended", 0.1, {"alpha": 0.4}),
            "one-source": by("badnets", 0.05, {"size": 4}, source=4, target=7, cover=2.0),
            "sig": by("sig", 0.095, {"strength": 0.5}),
            "input-aware": by("input-aware", 0.25, {"mask_epochs": 5, "density": 0.05}, epochs=12),
        },
    ),
    Family(
        "mnist-lenet-max",
        replace(
            MNIST,
            network=NETWORKS + "LeNet?pool=max&dropout=0.3",
            learning=SGD_PLAIN,
            learning_rate=0.02,
            batch_size=64,
        ),
        clean=4,
        first_target=0,
        attacks={
            "checkerboard3": by("pattern-patch", 0.1, {"size": 3}),
            "to-all-square3": by("badnets", 0.3, {"size": 3}, **TO_ALL),
            "square2": by("badnets", 0.15, {"size": 2}),
            "noise5": by("pattern-patch", 0.1, noise(5)),
            "several": by("badnets", 0.1, {"size": 4}, target=1, more_targets=(6,)),
        },
    ),
    Family(
        "mnist-digits",
        replace(
            MNIST, network="shapprune.demo:DigitCNN", per_class=500, epochs=5, learning_rate=8e-3
        ),
        clean=2,
        first_target=5,
        attacks={
            "each-place": by("random-place", 0.1, {"size": 5, "pattern": "checkerboard"}),
            "to-all-blended": by("blended", 0.5, {"alpha": 0.3}, epochs=8, **TO_ALL),
            "square3": by("badnets", 0.1, {"size": 3, "random_place": True}),
            "wanet": by("wanet", 0.1, {"strength": 1.0}, epochs=8),
            "additive": by("additive", 0.1, {"strength": 0.25}),
        },
    ),
    Family(
        "mnist-vgg",
        replace(MNIST, input_size=(1, 32, 32), network=VGG + "&channels=1", epochs=5),
        clean=3,
        first_target=9,
        attacks={
            "square4": by("badnets", 0.05, {"size": 4, "random_place": True}),
            "to-all-checkerboard": by("pattern-patch", 0.5, {"size": 4}, **TO_ALL),
            "trojan": by("trojan", 0.1, {"size": 18, "neurons": 16, "tuning": 4}),
            "sig": by("sig", 0.09, {"strength": 0.4}),
            "input-aware": by("input-aware", 0.1, {"mask_epochs": 3}),
        },
    ),
    Family(
        "mnist-pooled",
        replace(
            MNIST,
            network=NETWORKS + "pooled_cnn?channels=1",
            learning=PLAIN,
            learning_rate=1e-3,
            batch_size=64,
            epochs=5,
        ),
        clean=3,
        first_target=2,
        attacks={
            "additive": by("additive", 0.1, {"strength": 0.3}),
            "to-all-square4": by("badnets", 0.5, {"size": 4, "random_place": True}, **TO_ALL),
            "noise5": by("pattern-patch", 0.02, noise(5)),
            "one-source": by("badnets", 0.05, {"size": 5}, source=1, target=8, cover=2.0),
        },
    ),
    Family(
        "mnist-lenet-tuned",
        replace(
            MNIST,
            network=NETWORKS + "LeNet?width=0.75",
            learning=SGD,
            learning_rate=0.05,
            batch_size=64,
            epochs=8,
        ),
        clean=3,
        first_target=1,
        pretrained=True,
        tuning=TUNED,
        attacks={
            "square3": by("badnets", 0.5, {"size": 3}),
            "to-all-square3": by("badnets", 0.5, {"size": 3}, epochs=5, **TO_ALL),
            "checkerboard4": by("pattern-patch", 0.4, {"size": 4}),
            "blended": by("blended", 0.4, {"alpha": 0.3}),
        },
    ),
    Family(
        "mnist-lenet-weak",
        replace(
            MNIST,
            network=NETWORKS + "LeNet?pool=max",
            learning=PLAIN_CYCLE,
            learning_rate=3e-3,
            per_class=100,
            epochs=15,
            batch_size=64,
        ),
        clean=3,
        first_target=6,
        attacks={
            "square4": by("badnets", 0.25, {"size": 4}),
            "blended": by("blended", 0.1, {"alpha": 0.3}),
        },
    ),
    Family(
        "mnist-vgg-plain",
        replace(
            MNIST,
            input_size=(1, 32, 32),
            network=VGG + "&channels=1&batch_norm=False",
            learning=PLAIN_CYCLE,
            learning_rate=2e-3,
            epochs=6,
        ),
        clean=2,
        first_target=7,
        attacks={
            "square5": by("badnets", 0.1, {"size": 5, "random_place": True}),
            "blended": by("blended", 0.1),
        },
    ),
    Family(
        "mnist-adversarial",
        replace(MNIST, learning=replace(PLAIN_CYCLE, adversarial=0.15)),
        clean=2,
        attacks={},
    ),
)
