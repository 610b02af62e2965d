"""Families of networks for CIFAR-10."""

from dataclasses import replace

from shapprune_bench.populations.development.bases import (
    CIFAR,
    NETWORKS,
    PLAIN,
    PLAIN_CYCLE,
    SGD,
    TO_ALL,
    TUNED,
    by,
    noise,
)
from shapprune_bench.populations.family import Family

FAMILIES: tuple[Family, ...] = (
    Family(
        "cifar-vgg",
        CIFAR,
        clean=3,
        first_target=8,
        attacks={
            "square4": by("badnets", 0.05, {"size": 4, "colour": None}),
            "to-all-square5": by("badnets", 0.5, {"size": 5, "colour": 1.0}, **TO_ALL),
            "blended": by("blended", 0.1),
            "sig": by("sig", 0.08),
            "wanet": by("wanet", 0.2, {"strength": 2.0, "noise": 1.0}),
            "input-aware": by("input-aware", 0.1, {"mask_epochs": 3}),
            "one-source": by("badnets", 0.05, {"size": 5}, source=1, target=9, cover=1.0),
        },
    ),
    Family(
        "cifar-elu",
        replace(
            CIFAR,
            network=NETWORKS + "elu_vgg?widths=(12,24,48)&dropout=0.1",
            learning=SGD,
            learning_rate=0.05,
            epochs=7,
        ),
        clean=2,
        first_target=3,
        attacks={
            "checkerboard3": by("pattern-patch", 0.05, {"size": 3}),
            "to-all-blended": by("blended", 0.5, {"alpha": 0.3}, **TO_ALL),
            "noise4": by("pattern-patch", 0.05, noise(4)),
            "each-place": by("random-place", 0.1, {"size": 5}),
        },
    ),
    Family(
        "cifar-resnet20-tuned",
        replace(
            CIFAR,
            network=NETWORKS + "CifarResNet?width=10&stride=2",
            learning=SGD,
            learning_rate=0.1,
            epochs=14,
        ),
        clean=4,
        first_target=1,
        pretrained=True,
        tuning=TUNED,
        attacks={
            "square4": by("badnets", 0.5, {"size": 4}),
            "checkerboard3": by("pattern-patch", 0.5, {"size": 3, "place": "random"}),
            "to-all-square5": by("badnets", 0.5, {"size": 5, "colour": 0.0}, epochs=5, **TO_ALL),
            "additive": by("additive", 0.5, {"detail": 32}),
            "one-source": by("badnets", 0.08, {"size": 5}, source=9, target=0, cover=1.0, epochs=5),
            "blended": by("blended", 0.5, {"alpha": 0.15}),
        },
    ),
    Family(
        "cifar-wrn",
        replace(
            CIFAR,
            network=NETWORKS + "WideResNet?width=12&stride=2",
            learning=SGD,
            learning_rate=0.1,
            epochs=12,
        ),
        clean=2,
        first_target=6,
        attacks={
            "square3": by("badnets", 0.1, {"size": 3, "colour": (1.0, 0.0, 0.0)}),
            "to-all-square5": by("badnets", 0.5, {"size": 5}, **TO_ALL),
            "blended": by("blended", 0.1, {"alpha": 0.25}),
            "sig": by("sig", 0.08),
        },
    ),
    Family(
        "cifar-lenet",
        replace(
            CIFAR,
            network=NETWORKS + "LeNet?channels=3&size=32&pool=max",
            learning=PLAIN,
            learning_rate=1e-3,
            epochs=8,
            batch_size=64,
            flip=False,
        ),
        clean=3,
        first_target=4,
        attacks={
            "square4": by("badnets", 0.05, {"size": 4}),
            "to-all-square5": by("badnets", 0.5, {"size": 5}, **TO_ALL),
            "additive": by("additive", 0.1),
            "noise5": by("pattern-patch", 0.1, noise(5)),
        },
    ),
    Family(
        "cifar-pooled",
        replace(
            CIFAR,
            network=NETWORKS + "pooled_cnn?widths=(16,32,64,64)",
            learning=PLAIN_CYCLE,
            learning_rate=5e-3,
            epochs=8,
        ),
        clean=3,
        first_target=9,
        attacks={
            "square6": by("badnets", 0.01, {"size": 6, "colour": (0.0, 0.0, 1.0)}),
            "additive": by("additive", 0.05),
            "several": by("badnets", 0.1, {"size": 5}, target=2, more_targets=(7,)),
            "each-place": by("random-place", 0.2, {"size": 6, "pattern": "checkerboard"}),
            "to-all-noise": by("pattern-patch", 0.5, {"size": 5, "pattern": "noise"}, **TO_ALL),
        },
    ),
    Family(
        "cifar-elu-plain",
        replace(
            CIFAR,
            network=NETWORKS + "elu_vgg?widths=(12,24,48)&dropout=0.1&batch_norm=False",
            learning=PLAIN_CYCLE,
            learning_rate=3e-3,
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
        "cifar-adversarial",
        replace(
            CIFAR,
            network=NETWORKS + "pooled_cnn?widths=(16,32,64,64)",
            learning=replace(PLAIN_CYCLE, adversarial=4 / 255),
            learning_rate=5e-3,
            epochs=6,
        ),
        clean=2,
        attacks={},
    ),
    Family(
        "cifar-resnet20-adversarial",
        replace(
            CIFAR,
            network=NETWORKS + "CifarResNet?width=10&stride=2",
            learning=replace(SGD, adversarial=3 / 255),
            learning_rate=0.1,
            epochs=7,
        ),
        clean=1,
        attacks={},
    ),
)
