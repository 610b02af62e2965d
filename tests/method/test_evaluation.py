"""The evaluator on networks whose answers are known."""

import pytest
import torch
from torch import Tensor, nn

from shapprune.errors import InputError
from shapprune.method.case import Case
from shapprune.method.evaluation import Evaluator, believed
from shapprune.method.inversion import InvertedTrigger
from shapprune.method.settings import EvaluationSettings
from shapprune.method.triggers import Perturbation, Stamp, Trigger, all_to_one
from shapprune.model.neurons import Layer, Neurons
from toys import seeded

DARK_AND_BRIGHT = torch.tensor([0.1, 0.9]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
NEURONS = Neurons((Layer("unit", 2, 1),))


class Answers(nn.Module):
    """Says one class of dark images, and another of bright ones."""

    def __init__(self, dark: int, bright: int) -> None:
        super().__init__()
        self.answers = nn.Parameter(torch.eye(3)[[dark, bright]], requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.answers[(x.mean((1, 2, 3)) > 0.5).long()]


def evaluator(
    original: nn.Module,
    labels: list[int],
    stamps: list[Stamp] | None = None,
    images: Tensor = DARK_AND_BRIGHT,
    real: bool = True,
    settings: EvaluationSettings | None = None,
) -> Evaluator:
    """Of triggers for class 2; by default one that changes nothing."""
    case = Case(original, images, torch.tensor(labels), 3, real, False)
    if stamps is None:
        stamps = [Perturbation(torch.zeros(images.shape[1:]))]
    triggers = [InvertedTrigger(all_to_one(2, 3), stamp, 1.0, 1.0, 1) for stamp in stamps]
    settings = settings or EvaluationSettings()
    return Evaluator(case, triggers, neurons=NEURONS, settings=settings, generator=seeded())


def test_an_image_that_is_sent_to_the_target_is_not_believed():
    maps = [all_to_one(2, 3), (1, None, None)]
    labels = torch.tensor([0, 0, 1, 1, 2, 0])
    answers = torch.tensor([2, 0, 2, 0, 2, 1])
    assert believed(maps, labels, answers).tolist() == [False, True, False, True, True, False]


@pytest.mark.parametrize("real", [True, False])
def test_agreement_with_a_backdoor_does_not_count(real):
    """The original gives the bright image, of class 1, the target 2: only the dark one counts."""
    measure = evaluator(Answers(0, 2), [0, 1], real=real)
    for bright in (0, 1, 2):
        assert measure(Answers(0, bright)).agreement.value == 1
    assert measure(Answers(1, 2)).agreement.value == 0
    other = evaluator(Answers(0, 1), [0, 1], real=real)  # and here both do
    assert other(Answers(0, 2)).agreement.value == 0.5


def test_the_targets_own_images_are_believed():
    assert evaluator(Answers(0, 2), [0, 2])(Answers(0, 1)).agreement.value == 0.5


def test_right_answers_that_are_kept():
    """The bright image is answered wrongly; what becomes of it does not matter."""
    measure = evaluator(Answers(0, 1), [0, 0])
    assert measure(Answers(0, 2)).kept.value == 1
    assert measure(Answers(0, 2)).agreement.value == 0.5
    assert measure(Answers(1, 1)).kept.value == 0
    none_right = evaluator(Answers(0, 1), [1, 0])
    assert none_right(Answers(0, 2)).kept.value == 0.5  # all count


FOUR = {"labels": [0, 0, 1, 1], "images": DARK_AND_BRIGHT.repeat_interleave(2, 0)}


def test_four_images_in_many_views_are_four_observations():
    """Half of them are right: what the next four would be lies between none and all."""
    half = evaluator(Answers(0, 1), **FOUR)(Answers(0, 0)).accuracy
    assert half.value == 0.5
    assert half.high - half.low >= 0.5
    surely = evaluator(Answers(0, 1), **FOUR)(Answers(0, 1)).accuracy
    assert (surely.low, surely.value, surely.high) == (1, 1, 1)


def test_of_two_images_the_interval_says_nothing():
    surely = evaluator(Answers(0, 1), [0, 1])(Answers(0, 1))
    assert (surely.accuracy.low, surely.accuracy.value, surely.accuracy.high) == (0, 1, 1)
    assert (surely.asr.low, surely.asr.high) == (0, 1)


def test_the_interval_is_that_of_a_bootstrap_over_images():
    """Of 40 images 10 are right: sqrt(0.25 * 0.75 / 40) = 0.068, whatever the number of views."""
    images = torch.tensor([0.1] * 10 + [0.9] * 30).view(40, 1, 1, 1).expand(40, 1, 4, 4)
    for views in (40, 400):
        measure = evaluator(
            Answers(0, 1), [0] * 40, images=images, settings=EvaluationSettings(views, 2000)
        )
        share = measure(Answers(0, 1)).accuracy
        assert share.value == 0.25
        assert share.high - share.low == pytest.approx(2 * 1.645 * 0.068, abs=0.04)


def test_the_asr_of_each_map_where_there_are_several():
    """Of two targets one trigger works: all together it is half."""
    stamps = [Perturbation(torch.full((1, 4, 4), far)) for far in (0.9, 0.0)]
    maps = [all_to_one(2, 3), all_to_one(1, 3)]
    triggers = [
        InvertedTrigger(mapping, stamp, 1.0, 1.0, 1)
        for mapping, stamp in zip(maps, stamps, strict=True)
    ]
    dark = DARK_AND_BRIGHT[:1].repeat(20, 1, 1, 1)
    case = Case(Answers(0, 2), dark, torch.zeros(20, dtype=torch.long), 3, True, False)
    found = Evaluator(case, triggers, neurons=NEURONS, generator=seeded())(case.model)
    assert [share.value for share in found.asr_by_map] == [1, 0]
    assert found.asr.value == pytest.approx(0.5, abs=0.1)
    assert evaluator(Answers(0, 2), [0, 0])(Answers(0, 2)).asr_by_map == ()


def test_the_asr_of_each_trigger():
    """One makes dark images bright and the other nothing; a bright image goes there without."""
    nothing, light = Perturbation(torch.zeros(1, 4, 4)), Perturbation(torch.full((1, 4, 4), 0.9))
    original = Answers(0, 2)
    asr = evaluator(original, [0, 0], [nothing, light])(original)
    assert asr.asr_by_trigger == (0, 1)
    assert 0.2 < asr.asr.value < 0.8
    # A network that says the target of everything was not moved by a trigger.
    assert evaluator(original, [0, 0], [light])(Answers(2, 2)).asr.value == 0
    assert evaluator(original, [0, 0], [light])(Answers(0, 1)).asr.value == 0


class Beside(nn.Module):
    """Says class 2 of images whose pixel beside the trigger's is bright, or only its own is."""

    def __init__(self, wider: bool) -> None:
        super().__init__()
        self.answers = nn.Parameter(torch.eye(3), requires_grad=False)
        self.wider = wider

    def forward(self, x: Tensor) -> Tensor:
        own, beside = x[:, 0, 4, 4] > 0.9, x[:, 0, 4, 5] > 0.9
        return self.answers[2 * (beside if self.wider else own & ~beside).long()]


@pytest.mark.parametrize("wider", [True, False])
def test_a_trigger_is_measured_in_its_strongest_form_that_works(wider):
    """A pixel wider, if that still works."""
    mask = torch.zeros(1, 8, 8)
    mask[0, 4, 4] = 1
    measure = evaluator(
        Beside(wider), [0, 1], [Trigger(mask, mask)], images=torch.zeros(2, 1, 8, 8)
    )
    assert measure(Beside(wider)).asr.value == 1
    assert measure(Beside(not wider)).asr.value == 0


def test_a_network_is_measured_once():
    class Counted(Answers):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Counted.calls += 1
            return super().forward(x)

    measure, model = evaluator(Answers(0, 1), [0, 1]), Counted(0, 1)
    first, calls = measure(model), Counted.calls
    assert calls > 0
    assert measure(model) is first
    assert Counted.calls == calls
    assert measure(Counted(0, 2)) is not first


class Units(nn.Module):
    """Class 0 and class 1 by a unit each; 2 where there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = nn.Linear(1, 2)
        self.unit.weight.data = torch.tensor([[-1.0], [1.0]])
        self.unit.bias.data = torch.tensor([0.5, -0.5])

    def forward(self, x: Tensor) -> Tensor:
        seen = self.unit(x.mean((2, 3))).relu()
        return torch.cat([seen, torch.full_like(seen[:, :1], 0.001)], 1)


class Bands(nn.Module):
    """Class 2 of images whose brightness lies in a band, else class 0."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.band, self.one = (low, high), nn.Parameter(torch.eye(3), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        bright, (low, high) = x.mean((1, 2, 3)), self.band
        return self.one[torch.where((bright > low) & (bright < high), 2, 0)]


def test_a_network_that_resists_one_form_of_a_trigger_does_not_resist():
    """An image is moved if any form does it, among them the strongest and the weakest."""
    dark = torch.zeros(2, 1, 4, 4)
    original = Bands(0.05, 2.0)
    measure = evaluator(original, [0, 0], [Perturbation(torch.full((1, 4, 4), 0.1))], dark)
    assert measure(original).asr.value == 1
    for resists, asr in ((Bands(0.25, 2), 1.0), (Bands(0.05, 0.3), 1.0), (Bands(0.95, 0.99), 0.0)):
        assert measure(resists).asr.value == asr


def test_a_trigger_that_never_works_is_taken_as_it_works_best():
    """Of these images one is moved, and that by the strongest form alone."""
    images = torch.tensor([0.1, 0.2]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    original = Bands(0.55, 2)
    measure = evaluator(original, [0, 0], [Perturbation(torch.full((1, 4, 4), 0.05))], images)
    assert 0.3 < measure(original).asr.value < 0.7


def test_removed_neurons_are_masked():
    net = Units().requires_grad_(False)
    measure = evaluator(net, [0, 1])
    assert measure(net).accuracy.value == 1
    assert measure(net, [1]).accuracy.value == 0.5
    assert measure(net, [0, 1]).accuracy.value == 0
    assert measure(net).accuracy.value == 1


def test_refusals():
    with pytest.raises(InputError, match="at least one trigger"):
        evaluator(Answers(0, 1), [0, 1], [])
    with pytest.raises(InputError, match="another class than the target"):
        evaluator(Answers(0, 1), [2, 2])
