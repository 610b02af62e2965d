"""The pruning curve on the toy, whose one backdoor neuron is known."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from shapprune.errors import InputError
from shapprune.method.case import check_case
from shapprune.method.evaluation import Evaluator
from shapprune.method.inversion import InvertedTrigger
from shapprune.method.pruning import prune
from shapprune.method.settings import SelectionSettings
from shapprune.method.triggers import all_to_one
from shapprune.model.neurons import find_neurons
from toys import CLASSES, TARGET, backdoor_neuron, backdoored_net, seeded, toy_images, true_trigger

CASE = check_case(backdoored_net(), *toy_images())
NEURONS = find_neurons(CASE.model, CASE.images)


@pytest.fixture(scope="module")
def evaluator():
    known = InvertedTrigger(all_to_one(TARGET, CLASSES), true_trigger(), 4.0, 1.0, 1)
    return Evaluator(CASE, [known], neurons=NEURONS, generator=seeded())


def test_the_curve_falls_where_the_backdoors_neuron_goes(evaluator):
    """It comes second."""
    score = torch.zeros(len(NEURONS))
    score[7], score[backdoor_neuron()] = 2, 1
    found = prune(CASE.model, score=score, evaluator=evaluator)
    assert [point.pruned for point in found.curve] == [0, 1, 2]
    assert [point.proxies.asr.value for point in found.curve] == [1, 1, 0]
    assert found.curve[2].proxies.accuracy.value == 1
    assert found.first(2) == (7, backdoor_neuron())


def test_no_more_are_removed_where_half_of_the_answers_are_lost(evaluator):
    """Without what sees red and green nothing is right."""
    score = torch.zeros(len(NEURONS))
    score[:4] = torch.tensor([4.0, 3, 2, 1])
    settings = SelectionSettings(counts=(0, 4, 8), most=1.0)
    found = prune(CASE.model, score=score, evaluator=evaluator, settings=settings)
    assert [point.pruned for point in found.curve] == [0, 4]


@pytest.mark.parametrize("count", [0, 1, 16])
def test_as_many_as_asked(evaluator, count):
    found = prune(CASE.model, score=torch.arange(16.0), evaluator=evaluator, pruned=count)
    assert [point.pruned for point in found.curve] == sorted({0, count})
    assert found.first(count) == tuple(range(15, 15 - count, -1))


@pytest.mark.parametrize("count", [-1, 17])
def test_an_impossible_count(evaluator, count):
    with pytest.raises(InputError, match="pruned must be a whole number from 0 to 16, got"):
        prune(CASE.model, score=torch.zeros(16), evaluator=evaluator, pruned=count)


@pytest.mark.parametrize(
    "score", [torch.zeros(16, 1), torch.tensor(1.0), torch.full((16,), torch.nan), [0.0] * 16]
)
def test_what_is_no_score(evaluator, score):
    with pytest.raises(InputError, match="score must be a float tensor"):
        prune(CASE.model, score=score, evaluator=evaluator)


def test_one_neuron_is_tried_however_small_the_share(evaluator):
    settings = SelectionSettings(counts=(0, 1, 2), most=0.01)
    found = prune(CASE.model, score=torch.zeros(16), evaluator=evaluator, settings=settings)
    assert [point.pruned for point in found.curve] == [0, 1]


def test_who_keeps_just_enough_is_pruned_on(evaluator):
    score = torch.zeros(len(NEURONS))
    score[:4] = torch.tensor([4.0, 3, 2, 1])
    settings = SelectionSettings(counts=(0, 4, 8), most=1.0, least_kept=0.0)
    kept = prune(CASE.model, score=score, evaluator=evaluator, settings=settings).curve[1]
    settings = replace(settings, least_kept=kept.proxies.kept.value)
    found = prune(CASE.model, score=score, evaluator=evaluator, settings=settings)
    assert [point.pruned for point in found.curve][:3] == [0, 4, 8]


def test_progress_is_the_share_of_the_numbers(evaluator):
    shares: list[float] = []
    settings = SelectionSettings(counts=(0, 1, 2), most=1.0, least_kept=0.0)
    prune(
        CASE.model,
        score=torch.zeros(16),
        evaluator=evaluator,
        settings=settings,
        progress=shares.append,
    )
    assert shares == pytest.approx([1 / 3, 2 / 3, 1, 1])


def test_curves_are_not_written_over(evaluator):
    found = prune(CASE.model, score=torch.zeros(16), evaluator=evaluator, pruned=0)
    for record, name in ((found, "curve"), (found.curve[0], "pruned")):
        with pytest.raises(FrozenInstanceError):
            setattr(record, name, None)
