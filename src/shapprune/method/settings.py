"""Every number that the verdict and the repair rest on, once, with where it comes from.

What decides whether a model can be examined at all stands in `shapprune.model.settings`.

What is fitted to a population (coefficients and bounds) stands in `calibration.json`, which
``shapprune bench detection --calibrate`` writes.
"""

from dataclasses import dataclass, replace

RULES = (
    "2.1"  # version of the verdict's rules: evidence, score and settings; stands in every result
)

REPAIR_RULES = "2.4"  # the same of the repair's

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
        reached: a class whose largest margin is at most this share of the largest of all was not
            reached: far below what a backdoor's makes of others', whose median is 0.003 of it on
            one of 53 networks (strangers', zoo, demo, test population) and 0.01 or more elsewhere.
    """

    starts: int = 3
    steps: int = 80
    learning_rate: float = 0.05
    rows: int = 256
    many: int = 100
    reached: float = 1e-6


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
class RecoverySettings:
    """Of images recovered from batch norm (Eq. 8 to 10), see docs/notes/without-data-0.1.md.

    Attributes:
        wanted: images of all classes, at least.
        statistics, variation, norm: weights of Eq. 9 and 10; the answers have 1.
        learning_rate: of Adam.
        shift: largest shift each way, as a share of the image's sides.
        floor: of a layer's mean variance: what a dead channel is taken to vary by.
    """

    wanted: int = 50
    statistics: float = 20.0
    variation: float = 0.1
    norm: float = 0.01
    learning_rate: float = 0.05
    shift: float = 1 / 16
    floor: float = 0.01


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


@dataclass(frozen=True)
class RefineSettings:
    """Of the inversions that a repair works with: two starts of each kind and target.

    Attributes:
        starts: triggers a target and kind.
        steps, images: of the inversion, and a target in each step.
        gate: the share of images that must be moved.
    """

    starts: int = 2
    steps: int = 200
    images: int = 16
    gate: float = 0.97


@dataclass(frozen=True)
class EvaluationSettings:
    """Of the proxies.

    Attributes:
        views: variations of the images, at least.
        resamples: of the source images, for intervals.
        forms: pixels that a trigger grows by and times that it is as strong, strongest first.
            Eight times as strong and a pixel wider it follows the true ASR (docs/method.md).
        works: ASR of a form that works on the original.
        least_sources: with fewer source images an interval says nothing, and is all from 0 to 1
            (`mnist-pooled-one-source`, of one: ASR 5 % by the proxy, 99 % by the attacker).
    """

    views: int = 200
    resamples: int = 400
    forms: tuple[tuple[int, float], ...] = ((1, 8), (1, 4), (0, 8), (0, 4), (0, 2), (0, 1))
    works: float = 0.95
    least_sources: int = 3


@dataclass(frozen=True)
class PoolSettings:
    """Of the images that are distilled on.

    Attributes:
        images: how many, if memory allows.
        least: how many at least.
        memory: bytes for what layers read of them.
        warped, bent: shares of them that are turned and zoomed, and that are bent. Without bending
            and with 512 images, ten digits cost `verazuo_mnist` a point more (docs/notes/repair-2).
    """

    images: int = 2048
    least: int = 256
    memory: int = 512 << 20
    warped: float = 0.5
    bent: float = 0.5


@dataclass(frozen=True)
class TuningSettings:
    """Of fine-tuning, the same for all networks (compared in docs/notes/repair-2.md).

    Attributes:
        batch_size, learning_rate: of `LayerwiseAdam`, with a cosine schedule.
        operations: multiply-accumulates that all steps may cost, a way back counted as two ways
            forward: what a small network saves goes into more steps. On LeNets 400 steps cost
            less accuracy than 160, and still take seconds.
        least, most: steps.
        feature_weight: weight of what layers read against the logits, a layer.
        temperature: of the softened answers (Hinton et al. 2015).
        amplification: how much stronger than the smallest trigger that works an attacker's may be
            expected to be.
        growth: pixels that a patch grows by, at most.
        fade: share of the steps over which removed neurons fade out.
    """

    batch_size: int = 64
    learning_rate: float = 1e-3
    operations: float = 2e11
    least: int = 120
    most: int = 400
    feature_weight: float = 0.3
    temperature: float = 2.0
    amplification: float = 4.0
    growth: int = 1
    fade: float = 0.5


@dataclass(frozen=True)
class SelectionSettings:
    """Of the candidates and the rule that takes one.

    Attributes:
        counts: of neurons that are removed.
        most: largest share of the neurons that is.
        least_kept: a network that keeps fewer of the original's right answers is no repair, and no
            more neurons are removed: two take the backdoor out of `abl_wrn_grid` and 13 points of
            accuracy with it.
        start_kept: what a pruned network must keep to be tuned: what pruning broke, ten images do
            not mend (`cifar10_badnets` without 16 neurons: 82.1 / 1.0; as it is: 84.4 / 1.5).
        least_stamped, most_stamped: share of a batch that is stamped where pruning left no ASR,
            and where it left all of it: as much unlearning as there is left to do.
        asr: bound of the upper end of the ASR proxy's interval. Ten images are ten
            observations: one of them may be moved.
    """

    counts: tuple[int, ...] = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
    most: float = 0.15
    least_kept: float = 0.8
    start_kept: float = 0.9
    least_stamped: float = 1 / 8
    most_stamped: float = 1 / 4
    asr: float = 0.1


# Odds are told as of a network of so many classes: those of more have less, each in proportion.
TEN_CLASSES = 10

# Features are compared with how far the upper half of the other classes spreads, and this.
SPREAD_FLOOR = 0.2

# Shares of an inversion's steps after which classes with large triggers stop (Shen et al. 2021).
CUTS = (0.4, 0.7)

# Shapley values are estimated among coalitions of at least this share: few neurons are pruned, and
# what counts is nearer to the whole network than the values of Eq. 3 reach (docs/shapley.md).
LEAST_PRESENT = 0.8

MARGINS = MarginSettings()
RECOVERY = RecoverySettings()
WINDOWS = WindowSettings()
PERTURBATIONS = PerturbationSettings()
UNTARGETED = UntargetedSettings()
KINDS_OF_TRIGGER = KindSettings()
REFINEMENT = RefineSettings()
EVALUATION = EvaluationSettings()
POOL = PoolSettings()
TUNING = TuningSettings()
SELECTION = SelectionSettings()


@dataclass(frozen=True)
class PaperSettings:
    """Of the paper itself (`method.paper`); what it leaves open is told there.

    Attributes:
        confidence: p of Eq. 7, which gives the bound 2 (Sec. 6.4).
        inversion_steps: of Eq. 5; open in the paper.
        average_iterations: I of Algorithm 1 (Sec. 4.4).
        uniform: l, average iterations with uniform permutations (Sec. 4.4).
        epsilons: (average iteration, ε from there on) (Sec. 4.4).
        discard_below: the discarding threshold (Sec. 3.2).
        preferred: m of the ε-greedy permutations, at least k; the paper looks at its best 50.
        innocent: share of the neurons that the mixture mode takes for the bottom l (Sec. 3.4); open
            in the paper.
        asr_below: ASR on the given images at which pruning stops; the paper reports below 1 %.
        most: share of the neurons that are pruned at most (Fig. 3).
        epochs, batch_size, learning_rate, momentum, weight_decay: of the fine-tuning; open in the
            paper. Rate and epochs are the best for ACC of six that were tried on the zoo's two
            CIFAR-10 models and the demo's: chosen on models that the results show.
    """

    confidence: float = 0.9545
    inversion_steps: int = 200
    average_iterations: float = 50
    uniform: float = 30
    epsilons: tuple[tuple[float, float], ...] = ((30, 0.5), (40, 0.3))
    discard_below: float = 0.2
    preferred: int = 50
    innocent: float = 0.5
    asr_below: float = 0.01
    most: float = 0.03
    epochs: int = 10
    batch_size: int = 256
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def lasting(self, average_iterations: float) -> "PaperSettings":
        """The same with fewer or more iterations, the schedule of ε stretched along.

        >>> PaperSettings().lasting(10).epsilons
        ((6.0, 0.5), (8.0, 0.3))
        """
        scale = average_iterations / self.average_iterations
        epsilons = tuple((start * scale, epsilon) for start, epsilon in self.epsilons)
        return replace(
            self,
            average_iterations=average_iterations,
            uniform=self.uniform * scale,
            epsilons=epsilons,
        )


PAPER = PaperSettings()
