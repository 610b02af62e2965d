"""The paper's method on networks whose answers are known by hand."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from shapprune.errors import InputError
from shapprune.method import paper
from shapprune.method.outliers import detect
from shapprune.method.paper import prune_backdoor, shap_pruning
from shapprune.method.settings import PAPER
from shapprune.model.metrics import accuracy, attack_success_rate
from toys import (
    TARGET,
    backdoor_neuron,
    backdoored_net,
    seeded,
    snapshot,
    toy_images,
    true_trigger,
    unchanged,
)

UNSEEN = toy_images(per_class=10, seed=1)
FEW = toy_images(per_class=1)
SHORT = PAPER.lasting(5)


def asr(model: nn.Module) -> float:
    return attack_success_rate(model, *UNSEEN, stamp=true_trigger().stamp, target=TARGET)


# Four units on five pixels, the last of which nothing reads; the first two tell classes 0 and 1.


@torch.no_grad()
def hand_made(head: list[list[float]], bias: list[float], always_on: bool = False) -> nn.Module:
    """A network of units that read pixel 0, 1, 2 and 3, the last one perhaps always at 1."""
    with torch.random.fork_rng(devices=[]):
        net = nn.Sequential(nn.Flatten(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, len(head)))
    net[1].weight.copy_(torch.eye(4, 5))
    net[1].bias.zero_()
    if always_on:
        net[1].weight[3] = 0
        net[1].bias[3] = 1
    net[3].weight.copy_(torch.tensor(head))
    net[3].bias.copy_(torch.tensor(bias))
    return net.eval()


IMAGES = torch.tensor([[1.0, 0, 0, 0, 0], [0, 1, 0, 0, 0]]).view(2, 1, 1, 5)
LABELS = torch.tensor([0, 1])


def bright(images: Tensor, pixels: list[int]) -> Tensor:
    stamped = images.clone()
    stamped[..., pixels] = 1
    return stamped


def pruned(net: nn.Module, pixels: list[int], most: float = 1.0, **options) -> paper.Pruned:
    return prune_backdoor(
        net,
        IMAGES,
        LABELS,
        target=2,
        stamp=partial(bright, pixels=pixels),
        settings=replace(SHORT, most=most),
        generator=seeded(),
        **options,
    )


# Units 2 and 3 see the trigger, and each alone reaches class 2.
EITHER = hand_made([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 5, 5]], [0.0, 0, 0])


def test_neurons_go_until_the_asr_on_the_given_images_has_fallen():
    found = pruned(EITHER, [2, 3])
    assert set(found.pruned) == {2, 3} == set(found.order[:2])
    assert found.asr == (1, 1, 0, 0, 0)
    assert not found.model[1].weight[[2, 3]].any()
    assert not found.model[1].bias[[2, 3]].any()


def test_no_more_go_than_may_and_none_for_nothing():
    found = pruned(EITHER, [2, 3], most=0.25)
    assert found.asr == (1, 1)
    assert found.pruned == ()


@pytest.mark.parametrize("mixture", [False, True])
def test_the_mixture_spares_what_accuracy_needs(mixture):
    """Class 2 needs unit 2, which the trigger lights, and unit 3, which every class needs."""
    needs_both = hand_made(
        [[1.0, 0, 0, 1], [0, 1, 0, 1], [0, 0, 3, 3], [0, 0, 0, 0]],
        [0.0, 0, -3, 1.5],
        always_on=True,
    )
    found = pruned(needs_both, [2], mixture=mixture)
    assert found.asr[:2] == (1, 0)
    if mixture:
        assert found.pruned == (2,)
        assert len(found.order) == 2  # half of them
        assert 3 not in found.order
    else:
        assert set(found.order[:2]) == {2, 3}


def test_the_toys_backdoor_goes():
    net, state, told = backdoored_net(), torch.get_rng_state(), []
    before = snapshot(net)
    found = shap_pruning(net, *FEW, progress=lambda *what: told.append(what), settings=SHORT)
    assert unchanged(net, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert found.detection.targets == (TARGET,)
    assert found.detection.bound == pytest.approx(2, abs=1e-3)
    assert found.trigger.target == TARGET
    assert found.pruned.pruned == (backdoor_neuron(),)
    assert asr(net) > 0.9
    assert asr(found.pruned.model) == 0
    assert accuracy(found.pruned.model, *UNSEEN) == 1
    assert list(dict.fromkeys(name for name, _ in told)) == [
        "invert a patch for every class",
        "value neurons for ASR",
        "fine-tune on the labels",
    ]
    assert told[-1][1] == 1


def test_the_same_seed_gives_the_same_network():
    one, same, other = (
        shap_pruning(backdoored_net(), *FEW, settings=SHORT, seed=seed) for seed in (0, 0, 1)
    )
    weights = [found.pruned.model.head.weight for found in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_without_an_outlier_the_smallest_patch_is_taken(monkeypatch):
    monkeypatch.setattr(paper, "detect", lambda _norms, **given: detect(range(10, 18), **given))
    found = shap_pruning(backdoored_net(), *FEW, settings=SHORT)
    assert found.detection.targets == ()
    assert found.trigger.target == TARGET
    assert asr(found.pruned.model) == 0


def test_fine_tuning_learns_and_leaves_statistics_and_pruned_neurons():
    net = backdoored_net()
    found = prune_backdoor(
        net,
        *FEW,
        target=TARGET,
        stamp=true_trigger().stamp,
        settings=replace(SHORT, learning_rate=0.1),
        generator=seeded(),
    )
    tuned = found.model
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), tuned.buffers(), strict=True))
    assert not torch.equal(net.head.weight, tuned.head.weight)
    assert (float(tuned.bn1.weight[backdoor_neuron()]), float(tuned.bn1.bias[4])) == (0, 0)
    pointers = [{p.data_ptr() for p in model.parameters()} for model in (net, tuned)]
    assert not pointers[0] & pointers[1]
    assert not any(module._forward_hooks for module in tuned.modules())


def test_algorithm_1_has_the_papers_numbers(monkeypatch):
    asked = []
    monkeypatch.setattr(paper, "algorithm1", lambda _game, **given: asked.append(given) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prune_backdoor(
            EITHER, IMAGES, LABELS, target=2, stamp=partial(bright, pixels=[2]), generator=seeded()
        )
    (given,) = asked
    assert given["average_iterations"] == 50
    assert (given["explore"], given["epsilons"]) == (30, {30: 0.5, 40: 0.3})
    assert (given["discard_below"], given["top"]) == (0.2, 50)
    short = PAPER.lasting(10)
    assert (short.average_iterations, short.uniform) == (10, 6)


@pytest.mark.parametrize(
    ("images", "labels", "pixels", "message"),
    [
        (IMAGES, torch.tensor([1, 1]), [2], "at least two classes"),
        (IMAGES, LABELS, [0], "nothing to attribute"),  # a trigger that does not work
    ],
)
def test_bad_input_is_told(images, labels, pixels, message):
    with pytest.raises(InputError, match=message):
        prune_backdoor(
            EITHER,
            images,
            labels,
            target=2,
            stamp=partial(bright, pixels=pixels),
            generator=seeded(),
        )
