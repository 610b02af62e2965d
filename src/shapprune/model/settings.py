"""Every number by which a model is found fit to be examined, once, with where it comes from.

Those of the verdict and the repair stand in `shapprune.method.settings`, which the files here do
not see. Sizes of batches and guards of divisions are no judgements, and stay where they are used.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class RecognitionSettings:
    """Of whether a model knows the images by their labels. Chosen, not fitted.

    Attributes:
        few: share of right answers below which something does not fit, whatever the model.
        doubted: share below which other ways to give the images are tried.
        most: images that they are tried on.
        chance: probability that guesses do as well, above which it may be guesses: the usual 5 %.
        fits: probability that a way does so well by chance, below which it is named; a dozen ways
            are tried.
    """

    few: float = 0.5
    doubted: float = 0.8
    most: int = 32
    chance: float = 0.05
    fits: float = 0.01


@dataclass(frozen=True)
class GradientSettings:
    """Of whether the gradient is that of the answers, found out by a step along it.

    Attributes:
        step: of a pixel's range: four levels of an 8-bit image.
        stepped: share of the pixels that take it, so that the step stays a small one.
        factor: between the change that the gradient predicts and the one that comes. On 36 trained
            networks of thirteen architectures the quotient is 0.87 to 1.05.
        rough: what the square of their difference may be of the prediction's, where rounding was
            let pass: on seven of the networks 0.02 with 64 to 256 levels, 0.006 to 0.4 with 32,
            0.5 to 2.3 with 2.
    """

    step: float = 4 / 255
    stepped: float = 1 / 8
    factor: float = 4.0
    rough: float = 0.1


@dataclass(frozen=True)
class ExaminationSettings:
    """Of whether a model answers as a classifier does. Chosen, not fitted.

    Attributes:
        images, noise: that are looked at more closely than by one pass.
        alone: of them, also passed without the others.
        repeats: what two passes of the same may differ by, as a share of the outputs' range.
        alone_differs: the same of an image alone, as other kernels run on a batch.
        constant: share of the largest logit that is rounding.
        sums: what probabilities may miss 1 by.
        sigmoid_low, sigmoid_high: outputs in [0, 1] below the one and above the other are a
            sigmoid's: logits of a network that has learnt little do not lie so far apart.
    """

    images: int = 8
    noise: int = 4
    alone: int = 3
    repeats: float = 1e-3
    alone_differs: float = 1e-2
    constant: float = 1e-6
    sums: float = 1e-4
    sigmoid_low: float = 0.05
    sigmoid_high: float = 0.5


RECOGNITION = RecognitionSettings()
GRADIENT = GradientSettings()
EXAMINATION = ExaminationSettings()
