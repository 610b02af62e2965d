"""Whether a model knows the images by their labels, and what would fit where it does not."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, lgamma, log, log1p

import torch
from torch import Tensor, nn

from shapprune.errors import InputError
from shapprune.model.adapted import unwrap
from shapprune.model.classifier import Classifier
from shapprune.model.metrics import predict
from shapprune.model.settings import RECOGNITION

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Recognition:
    """How a model answers to images of known classes.

    Attributes:
        accuracy: share in [0, 1] that it gives their label.
        guessed: whether guesses would do as well: such images show nothing about the model.
        warning: what does not fit, in one line; None where all seems well.
    """

    accuracy: float
    guessed: bool
    warning: str | None


def recognise(model: nn.Module, images: Tensor, labels: Tensor, *, classes: int) -> Recognition:
    """Compare a model's answers with the labels.

    One pass an image, and where it knows few of them, up to twelve for each of 32 images.

    Args:
        model: maps images in [0, 1] to logits (n, classes); left as it was.
        images, labels: (n, C, H, W) in [0, 1] and int64 (n,), n at least 1.
    """
    right = int((predict(model, images) == labels).sum())
    share = right / len(labels)
    guessed = _at_least(right, len(labels), 1 / classes) > RECOGNITION.chance
    cause = None
    if share < RECOGNITION.doubted:
        cause = better_way(model, images, labels, classes=classes)
    told = f"the model gives only {right} of {len(labels)} images their label"
    if cause:
        return Recognition(share, guessed, f"{told}: {cause}")
    if guessed and share >= RECOGNITION.doubted:
        told = f"the model gives {right} of {len(labels)} images their label"
        return Recognition(share, guessed, f"{told}, as guesses might of so few: give one a class")
    if share < RECOGNITION.few or guessed:
        advice = "do the labels, their order, mean and std and the size of the images fit it?"
        return Recognition(share, guessed, f"{told}: {advice}")
    return Recognition(share, guessed, None)


def better_way(model: nn.Module, images: Tensor, labels: Tensor, *, classes: int) -> str | None:
    """Another way to give images or labels with which the model is right far more often.

    Args:
        model, images, labels, classes: see `recognise`; some of the images are tried.

    Returns:
        What was tried and how often it is right, in words; None where nothing helps.
    """
    some = torch.linspace(0, len(images) - 1, min(RECOGNITION.most, len(images))).round().long()
    images, labels = images[some.to(images.device)], labels[some.to(labels.device)]
    answers = predict(model, images)
    before = int((answers == labels).sum())
    found = [
        (int((answers == given).sum()), f"with labels {words}")
        for words, given in _other_labels(labels, classes)
    ]
    for words, changed in _other_images(unwrap(model), images):
        try:
            hits = int((predict(model, changed) == labels).sum())
        except (InputError, RuntimeError, ValueError):  # it may take no such images
            continue
        found.append((hits, f"on images {words}"))
    hits, words = max(found, key=lambda way: way[0])
    usual = max(before / len(labels), 1 / classes)
    by_chance = _at_least(hits, len(labels), usual)
    if hits < RECOGNITION.few * len(labels) or by_chance > RECOGNITION.fits:
        return None
    return f"{words} it would be right on {hits} of {len(labels)}, and on {before} as they are"


def _other_labels(labels: Tensor, classes: int) -> Iterator[tuple[str, Tensor]]:
    yield "one lower, as where the first class is 1", (labels - 1) % classes
    yield "one higher", (labels + 1) % classes
    as_words = sorted(range(classes), key=str)
    if as_words != list(range(classes)):
        order = torch.tensor(as_words, device=labels.device)
        words = "renumbered between the orders 0, 1, 2, … and 0, 1, 10, … (as words)"
        yield words, order[labels]
        yield words, order.argsort()[labels]


def _other_images(model: nn.Module, images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Images (n, C, H, W) as the network may have been taught to take them."""
    shift, scale = torch.zeros(()).to(images), torch.ones(()).to(images)
    if isinstance(model, Classifier):  # whose normalisation is not the network's
        shift, scale = model.mean.to(images), model.std.to(images)
        yield "without this mean and std", images * scale + shift

    def normalised(mean: Tensor, std: Tensor) -> Tensor:
        return (images - mean) / std * scale + shift

    if images.shape[1] == 3:
        yield "with the channels in reverse order (BGR for RGB)", images.flip(1)
    yield "with values from 0 to 255", images * 255 * scale + shift
    yield "divided by 255 once more", images / 255
    if images.shape[1] == 3:
        mean, std = (torch.tensor(v).view(1, 3, 1, 1).to(images) for v in _IMAGENET)
        yield "of ImageNet's mean and std", normalised(mean, std)
    half = torch.tensor(0.5).to(images)
    yield "of mean 0.5 and std 0.5, that is in [-1, 1]", normalised(half, half)
    yield "of inverted brightness (1 - x)", 1 - images
    if images.shape[2] == images.shape[3]:
        yield "with height and width swapped", images.mT


def _at_least(hits: int, count: int, share: float) -> float:
    """The probability that of so many answers, each right with this share, as many are right.

    >>> round(_at_least(2, 2, 0.5), 12), _at_least(0, 9, 0.1)
    (0.25, 1.0)
    """
    if not 0 < share < 1:  # it has no logarithm
        return float(share >= 1 or hits == 0)

    def exactly(k: int) -> float:  # by logarithms: of a thousand images the factors overflow
        ways = lgamma(count + 1) - lgamma(k + 1) - lgamma(count - k + 1)
        return exp(ways + k * log(share) + (count - k) * log1p(-share))

    return 1.0 - sum(map(exactly, range(hits)))
