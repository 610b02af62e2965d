"""Every number that the verdict rests on, once, with where it comes from.

What is fitted to a population (coefficients and bounds) stands in `calibration.json`, which
``shapprune bench detection --calibrate`` writes.
"""

from dataclasses import dataclass

RULES = (
    "2.1"  # version of the verdict's rules: evidence, score and settings; stands in every result
)

FALSE_ALARMS = 0.02  # share of clean models that may be called backdoored, by default
# Suspicious are models that are not above the bound, but above that of so many times the rate.
SUSPICIOUS = 2.5
# Recovered images of which the model gives fewer their class show nothing: the recovery failed.
RECOGNISED = 0.5


@dataclass(frozen=True)
class MarginSettings:
    """Of the maximum margin: MM-BD (Wang et al., IEEE S&P 2024), with fewer and larger steps.

    Attributes:
        starts: random starts a class; the paper has 30. On the 32 networks of strangers, four
            starts of a class differ by 3 to 20 % (standard deviation).
        steps, learning_rate: of Adam.
        rows: inputs that are optimised together at most, which bounds memory.
        many: from this many classes on, one start a class.
    """

    starts: int = 3
    steps: int = 80
    learning_rate: float = 0.05
    rows: int = 256
    many: int = 100


@dataclass(frozen=True)
class WindowSettings:
    """Of the best opaque square at any place of a grid.

    Attributes:
        side: of the square, as a share of the image's shorter side; a pixel-perfect fit is not
            needed, since a backdoor that a larger square holds works in it too.
        smallest: its side in pixels at least.
        places: of the grid, a side.
        steps: of sign gradient descent in each round.
        images: that a square is optimised on in each step, in each round.
        kept: places that are kept for each round, as a share.
        first, last: size of a step in the first and the second half of a round.
        views: variations of every image that the final square is measured on, images and
            variations together.
        classes: at most so many, those of the largest margins.
    """

    side: float = 5 / 32
    smallest: int = 3
    places: int = 5
    steps: tuple[int, ...] = (8, 8, 12)
    images: tuple[int, ...] = (2, 3, 6)
    kept: tuple[float, ...] = (1.0, 0.2, 0.04)
    first: float = 0.25
    last: float = 0.1
    views: int = 72
    classes: int = 64


@dataclass(frozen=True)
class UntargetedSettings:
    """Of the smallest trigger that moves every image to any other class.

    Attributes:
        starts: of each kind of trigger.
        steps: of Adam.
        images: of each step.
        gate: share of the images that must be moved.
        views: variations of every image whose answers tell the map.
        window: of the square, which must see more images than that of one target.
    """

    starts: int = 2
    steps: int = 120
    images: int = 8
    gate: float = 0.95
    views: int = 8
    window: WindowSettings = WindowSettings(images=(8, 8, 16))


@dataclass(frozen=True)
class PerturbationSettings:
    """Of the best perturbation in a ball.

    Attributes:
        radius: of the ball, as a share of the square root of the image's values: the root of the
            mean square of the perturbation. At 0.06 clean networks are moved nearly as far as
            poisoned ones.
        steps: of gradient descent.
        images: that each is optimised on in a step.
        first, last: size of a step in the first and the second half, as a share of the radius.
        views: see `WindowSettings`.
    """

    radius: float = 0.03
    steps: int = 24
    images: int = 6
    first: float = 0.3
    last: float = 0.1
    views: int = 72


@dataclass(frozen=True)
class KindSettings:
    """Of the inversions that tell which kinds of trigger a repair works with.

    Attributes:
        ordinary: classes beside the targets, which tell what size is usual for the model.
        steps, images: of the inversion, and a class in each step.
        small: a target's trigger of at most so many times the median norm is a short cut.
    """

    ordinary: int = 4
    steps: int = 100
    images: int = 8
    small: float = 0.75


# Odds are told as of a network of so many classes: those of more have less, each in proportion.
TEN_CLASSES = 10

# Features are compared with how far the upper half of the other classes spreads, and this.
SPREAD_FLOOR = 0.2

MARGINS = MarginSettings()
WINDOWS = WindowSettings()
PERTURBATIONS = PerturbationSettings()
UNTARGETED = UntargetedSettings()
KINDS_OF_TRIGGER = KindSettings()
