"""Whether images and labels fit a model, and what would."""

from collections.abc import Callable

import pytest
import torch
from scipy.stats import binom
from torch import Tensor, nn

from shapprune.model.classifier import Classifier
from shapprune.model.recognition import _at_least, better_way, recognise
from toys import seeded

CLASSES = 12
LABELS = torch.arange(CLASSES).repeat(2)


def images() -> Tensor:
    """The first channel's upper left corner tells the class, as a share of all; the rest is
    noise."""
    found = 0.1 * torch.rand(len(LABELS), 3, 4, 4, generator=seeded())
    found[:, 0, :2, 2:] = ((LABELS + 0.5) / CLASSES)[:, None, None]
    return found


class Reads(nn.Module):
    """Says which class is told, where the image is first passed through a function."""

    def __init__(self, before: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.before, self.seen = before, 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        told = self.before(x)[:, 0, :2, 2:].mean((1, 2)) * CLASSES - 0.5
        return -(told[:, None] - torch.arange(CLASSES)).abs()


def test_a_model_that_knows_its_images_is_asked_once_for_each():
    model = Reads()
    found = recognise(model, images(), LABELS, classes=CLASSES)
    assert (found.accuracy, found.guessed, found.warning) == (1.0, False, None)
    assert model.seen == len(LABELS)


@pytest.mark.parametrize(
    ("right", "guessed", "warns"), [(0, True, True), (4, True, True), (5, False, True)]
)
def test_few_right_answers(right, guessed, warns):
    """Of 24 guesses among 12 classes, five are right in 4.6 % of cases, four in 13 %."""
    labels = LABELS.clone()
    labels[right:] = (labels[right:] * 5 + 3) % CLASSES
    labels[(labels == LABELS) & (torch.arange(len(LABELS)) >= right)] += 1
    labels %= CLASSES
    assert int((labels == LABELS).sum()) == right
    found = recognise(Reads(), images(), labels, classes=CLASSES)
    assert found.accuracy == right / len(LABELS)
    assert (found.guessed, found.warning is not None) == (guessed, warns)
    assert f"only {right} of 24 images their label: do the labels" in found.warning


def test_images_too_few_to_tell_are_not_blamed_for_their_labels():
    few = LABELS[:1]
    found = recognise(Reads(), images()[:1], few, classes=2)
    assert (found.accuracy, found.guessed) == (1.0, True)
    assert found.warning == (
        "the model gives 1 of 1 images their label, as guesses might of so few: give one a class"
    )


def test_most_answers_right_are_no_reason_to_warn():
    labels = LABELS.clone()
    labels[:8] = (labels[:8] + 6) % CLASSES
    found = recognise(Reads(), images(), labels, classes=CLASSES)
    assert (found.guessed, found.warning) == (False, None)


MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))

WAYS = {
    "in reverse order (BGR": lambda x: x.flip(1),
    "with values from 0 to 255": lambda x: (x / 255).clamp(min=0),
    "divided by 255 once more": lambda x: x * 255,
    "of ImageNet's mean and std": lambda x: x * STD + MEAN,
    "of mean 0.5 and std 0.5": lambda x: x * 0.5 + 0.5,
    "of inverted brightness": lambda x: 1 - x,
    "height and width swapped": lambda x: x.mT,
}


@pytest.mark.parametrize("way", WAYS)
def test_the_way_that_images_should_be_given_is_found(way):
    told = better_way(Reads(WAYS[way]), images(), LABELS, classes=CLASSES)
    assert told is not None
    assert way in told
    assert "it would be right on 24 of 24" in told


def test_a_mean_that_a_network_has_in_it_already():
    model = Classifier(Reads(), mean=0.5, std=0.25)
    told = better_way(model, images(), LABELS, classes=CLASSES)
    assert told is not None
    assert "on images without this mean and std it would be right on 24 of 24" in told


def test_another_mean_and_std_than_the_networks():
    model = Classifier(Reads(WAYS["of ImageNet's mean and std"]), mean=0.1, std=0.1)
    told = better_way(model, images(), LABELS, classes=CLASSES)
    assert told is not None
    assert "of ImageNet's mean and std it would be right on 24 of 24" in told


AS_WORDS = torch.tensor(sorted(range(CLASSES), key=str))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ((LABELS + 1) % CLASSES, "with labels one lower"),
        ((LABELS - 1) % CLASSES, "with labels one higher"),
        (AS_WORDS[LABELS], "with labels renumbered between the orders"),
        (AS_WORDS.argsort()[LABELS], "with labels renumbered between the orders"),
    ],
    ids=["from 1", "one lower", "numbers read as words", "words read as numbers"],
)
def test_labels_in_another_order(labels, words):
    told = better_way(Reads(), images(), labels, classes=CLASSES)
    assert told is not None
    assert told.startswith(words)
    assert "right on 24 of 24" in told


def test_nothing_is_named_that_does_not_help():
    assert better_way(Reads(), images(), (LABELS * 5 + 3) % CLASSES, classes=CLASSES) is None
    assert better_way(Reads(), images(), LABELS, classes=CLASSES) is None  # all is well


def test_what_a_model_does_not_take_is_no_way():
    class Strict(Reads):
        def forward(self, x: Tensor) -> Tensor:
            if not 0 <= float(x.min()) <= float(x.max()) <= 1:
                raise ValueError("not in [0, 1]")
            return super().forward(x)

    told = better_way(Strict(lambda x: x.flip(1)), images(), LABELS, classes=CLASSES)
    assert told is not None
    assert "BGR" in told


def test_few_images_are_tried():
    model = Reads()
    many = torch.cat([images()] * 20)
    better_way(model, many, (LABELS.repeat(20) * 5 + 3) % CLASSES, classes=CLASSES)
    assert model.seen <= 32 * 13


@pytest.mark.parametrize("count", [10, 3_000, 50_000])
def test_chance_of_any_number_of_images(count):
    """Whose binomial coefficients are far above the largest float."""
    for share in (0.0, 0.1, 1.0):
        for hits in (0, 1, count // 10, count // 9, count):
            expected = binom.sf(hits - 1, count, share)
            assert _at_least(hits, count, share) == pytest.approx(expected, abs=1e-8)
