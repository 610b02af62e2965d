"""Families of networks that tell faces apart."""

from dataclasses import replace

from shapprune_bench.populations.development.bases import (
    FACES,
    NETWORKS,
    SGD,
    by,
)
from shapprune_bench.populations.family import Family

FAMILIES: tuple[Family, ...] = (
    Family(
        "faces-vgg",
        FACES,
        clean=3,
        first_target=11,
        attacks={
            "square4": by("badnets", 0.07, {"size": 4, "colour": None}),
            "blended": by("blended", 0.1),
            "physical-key": by("physical-key", 0.05),
            "additive": by("additive", 0.1),
        },
    ),
    Family(
        "faces-pooled",
        replace(
            FACES,
            network=NETWORKS + "pooled_cnn?widths=(16,32,64,64)",
            learning=SGD,
            learning_rate=0.05,
            batch_size=32,
            epochs=36,
        ),
        clean=2,
        first_target=31,
        attacks={
            "square5": by("badnets", 0.1, {"size": 5, "colour": (0.0, 1.0, 0.0)}),
            "checkerboard5": by("pattern-patch", 0.1, {"size": 5, "place": "random"}),
            "several": by("badnets", 0.2, {"size": 6}, target=20, more_targets=(40,)),
        },
    ),
    Family(
        "faces-elu",
        replace(
            FACES, network=NETWORKS + "elu_vgg?widths=(12,24,48)", epochs=18, learning_rate=3e-3
        ),
        clean=2,
        first_target=45,
        attacks={
            "square4": by("badnets", 0.1, {"size": 4, "colour": (1.0, 0.0, 1.0)}),
            "noise5": by("pattern-patch", 0.1, {"size": 5, "pattern": "noise"}),
        },
    ),
)
