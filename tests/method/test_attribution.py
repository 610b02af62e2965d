"""Shapley values on the hand-wired network."""

import pytest
import torch

from shapprune.errors import InputError
from shapprune.method.attribution import estimate_shapley, stamped_images
from shapprune.method.inversion import invert_triggers
from shapprune.method.triggers import Perturbation
from shapprune.model.neurons import find_neurons
from toys import CLASSES, TARGET, backdoor_neuron, backdoored_net, seeded, toy_images, true_trigger

IMAGES, LABELS = toy_images()  # the defender's


ESTIMATORS = {
    "multilinear": {"samples": 128},
    "algorithm1": {"average_iterations": 5},
}


both_estimators = pytest.mark.parametrize("estimator", ESTIMATORS)


@pytest.fixture(scope="module")
def net():
    return backdoored_net()


@pytest.fixture(scope="module")
def neurons(net):
    return find_neurons(net, IMAGES)


@pytest.fixture(scope="module")
def inversion(net):
    return invert_triggers(
        net, IMAGES, LABELS, targets=range(CLASSES), steps=120, generator=seeded()
    )


@pytest.fixture(scope="module")
def triggers(inversion):
    return [(TARGET, inversion.triggers[TARGET].stamp)]


@pytest.fixture(scope="module")
def values(net, neurons, triggers):
    def estimate(estimator, **options):
        return estimate_shapley(
            net,
            IMAGES,
            LABELS,
            neurons=neurons,
            triggers=triggers,
            estimator=estimator,
            generator=seeded(),
            **{**ESTIMATORS[estimator], **options},
        )

    return estimate


@both_estimators
def test_the_backdoor_neuron_ranks_first(values, estimator):
    found = values(estimator)
    order = found.scores[0].argsort(descending=True).tolist()
    assert order[0] == backdoor_neuron()
    assert found.asr.values.argmax() == backdoor_neuron()
    assert found.estimator == estimator
    assert found.scores[0].shape == (16,)
    assert found.passes > 0


def test_accuracy_is_taken_off_the_score(values):
    found = values("multilinear")
    assert float(found.accuracy.values[:4].min()) > 0.01  # what sees red and green
    assert float(found.scores[0][:4].max()) < float(found.scores[0][4:8].min())
    expected = found.asr.values - found.accuracy.values.clamp(min=0)
    torch.testing.assert_close(found.scores[0], expected)
    plain = values("algorithm1")
    assert plain.accuracy is None
    assert torch.equal(plain.scores[0], plain.asr.values)


@both_estimators
def test_estimation_progress(values, estimator):
    seen = []
    values(estimator, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1


def test_maximum_margin_inputs_give_a_score_of_their_own(net, values, neurons):
    """Blue all over, which needs no trigger: the backdoor's neuron ranks first by it, too."""
    blue = torch.zeros(1, 3, 12, 12)
    blue[:, 2] = 1
    found = values("multilinear", extremes=(blue, torch.tensor([TARGET])))
    assert len(found.scores) == 2
    assert found.scores[1].argmax() == backdoor_neuron()
    cost = found.accuracy.values.clamp(min=0)
    torch.testing.assert_close(found.scores[1], found.margin.values - cost)
    assert values("algorithm1", extremes=(blue, torch.tensor([TARGET]))).margin is None


def test_stamped_images():
    stamp = Perturbation(torch.full((3, 12, 12), 0.5))
    stamped, answers = stamped_images(IMAGES, LABELS, [(TARGET, true_trigger()), (0, stamp)])
    others = IMAGES[LABELS != TARGET], IMAGES[LABELS != 0]
    assert answers.tolist() == [TARGET] * len(others[0]) + [0] * len(others[1])
    torch.testing.assert_close(
        stamped, torch.cat([true_trigger().stamp(others[0]), stamp.stamp(others[1])])
    )


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_estimation_errors(net, neurons, estimator):
    def estimate(images, labels, triggers, **options):
        estimate_shapley(
            net,
            images,
            labels,
            neurons=neurons,
            triggers=triggers,
            estimator=estimator,
            generator=seeded(),
            **options,
        )

    with pytest.raises(InputError, match="trigger"):
        estimate(IMAGES, LABELS, [])
    only = LABELS == TARGET
    with pytest.raises(InputError, match="another class"):
        estimate(IMAGES[only], LABELS[only], [(TARGET, true_trigger())])
