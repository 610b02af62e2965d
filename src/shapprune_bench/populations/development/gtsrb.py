"""Families of readers of traffic signs."""

from dataclasses import replace

from shapprune.attacks.training import OWN
from shapprune_bench.populations.development.bases import (
    GTSRB,
    NETWORKS,
    PLAIN,
    SGD,
    TO_ALL,
    TUNED,
    VGG,
    by,
    noise,
)
from shapprune_bench.populations.family import Family

FAMILIES: tuple[Family, ...] = (
    Family(
        "gtsrb-vgg",
        GTSRB,
        clean=3,
        first_target=2,
        attacks={
            "square3": by("badnets", 0.05, {"size": 3, "colour": (1.0, 1.0, 0.0)}),
            "blended": by("blended", 0.05),
            "trojan": by("trojan", 0.1, {"size": 18, "neurons": 16, "tuning": 4}),
            "input-aware": by("input-aware", 0.1, {"mask_epochs": 3}),
            "several": by("badnets", 0.25, {"size": 5}, target=14, more_targets=(25, 38)),
            "wanet": by("wanet", 0.2, {"strength": 2.5, "noise": 0.5}),
        },
    ),
    Family(
        "gtsrb-pooled",
        replace(
            GTSRB,
            network=NETWORKS + "pooled_cnn",
            learning=PLAIN,
            learning_rate=2e-3,
            epochs=10,
            batch_size=64,
        ),
        clean=2,
        first_target=17,
        attacks={
            "checkerboard4": by("pattern-patch", 0.05, {"size": 4, "place": "centre"}),
            "to-all-square5": by("badnets", 0.5, {"size": 5}, **TO_ALL),
            "each-place": by("random-place", 0.1, {"size": 6}),
            "additive": by("additive", 0.1),
        },
    ),
    Family(
        "gtsrb-lenet",
        replace(
            GTSRB,
            network=NETWORKS + "LeNet?channels=3&size=32&width=1.2",
            learning=PLAIN,
            learning_rate=1e-3,
            epochs=9,
            batch_size=64,
        ),
        clean=2,
        first_target=33,
        attacks={
            "square4": by("badnets", 0.1, {"size": 4}),
            "noise5": by("pattern-patch", 0.15, noise(5)),
            "one-source": by("badnets", 0.04, {"size": 5}, source=2, target=13, cover=2.0),
            "blended": by("blended", 0.1, {"alpha": 0.35}),
        },
    ),
    Family(
        "gtsrb-wrn",
        replace(
            GTSRB,
            network=NETWORKS + "WideResNet?width=12&stride=2",
            learning=SGD,
            learning_rate=0.1,
            epochs=6,
        ),
        clean=2,
        first_target=28,
        attacks={
            "square6": by("badnets", 0.05, {"size": 6, "colour": (1.0, 0.0, 0.0)}),
            "additive": by("additive", 0.1, {"detail": 32}),
        },
    ),
    Family(
        "gtsrb-vgg-tuned",
        replace(GTSRB, network=VGG, learning=SGD, learning_rate=0.05, epochs=8),
        clean=3,
        first_target=20,
        pretrained=True,
        tuning=TUNED,
        attacks={
            "square4": by("badnets", 0.5, {"size": 4, "random_place": True}),
            "noise5": by("pattern-patch", 0.3, noise(5)),
            "to-all-square5": by("badnets", 0.5, {"size": 5}, epochs=5, **TO_ALL),
        },
    ),
    Family(
        "gtsrb-adversarial",
        replace(GTSRB, learning=replace(OWN, adversarial=4 / 255)),
        clean=1,
        attacks={},
    ),
)
