"""Other papers' defences: what all of them owe their caller, and each against a naive reference."""

import random
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from shapprune.baselines import DEFENCES
from shapprune.baselines.anp import anp
from shapprune.baselines.clp import clp
from shapprune.baselines.deepinspect import deepinspect
from shapprune.baselines.fine_pruning import fine_pruning
from shapprune.baselines.gangsweep import gangsweep
from shapprune.baselines.ibau import ibau
from shapprune.baselines.neural_cleanse import neural_cleanse
from shapprune.baselines.plain_finetuning import plain_fine_tune
from shapprune.errors import InputError
from shapprune.model.masking import remove_neurons
from shapprune.model.metrics import attack_success_rate
from shapprune.model.neurons import find_neurons
from toys import (
    TARGET,
    backdoor_neuron,
    backdoored_net,
    build,
    random_images,
    snapshot,
    toy_images,
    true_trigger,
    unchanged,
)

# The same functions with less work.
QUICK = {
    "fine-tuning": partial(plain_fine_tune, epochs=3),
    "fine-pruning": partial(fine_pruning, epochs=3),
    "neural-cleanse": partial(neural_cleanse, steps=3, epochs=2),
    "gangsweep": partial(gangsweep, steps=2, epochs=2),
    "deepinspect": partial(deepinspect, steps=2, inversion_steps=2, epochs=2),
    "anp": partial(anp, iterations=4),
    "clp": clp,
    "i-bau": partial(ibau, rounds=2),
}
every_defence = pytest.mark.parametrize("name", QUICK)


def test_every_defence_is_tested():
    assert set(QUICK) == set(DEFENCES)


def one_a_class():
    return toy_images(per_class=1)


@every_defence
def test_a_copy_is_returned_and_the_model_stays_as_it_was(name):
    model, (images, labels) = backdoored_net().train(), one_a_class()
    model.bn2.eval()
    before, given = snapshot(model), images.clone()
    repaired = QUICK[name](model, images, labels, seed=1)
    assert unchanged(model, before)
    assert torch.equal(images, given)
    mine = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert not mine & {tensor.data_ptr() for tensor in repaired.state_dict().values()}
    state = repaired.state_dict()
    assert {k: v.shape for k, v in state.items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
    assert all(bool(tensor.isfinite().all()) for tensor in state.values())


@every_defence
def test_global_generators_are_left_alone_and_do_not_matter(name):
    def once(noise: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(noise)
        states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
        model = nn.Sequential(nn.Dropout(0.2), backdoored_net())
        repaired = QUICK[name](model, *one_a_class(), seed=3)
        assert torch.equal(torch.get_rng_state(), states[0])
        assert random.getstate() == states[1]
        assert np.array_equal(np.random.get_state()[1], states[2])
        return repaired.state_dict()

    one, two = once(0), once(1)
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("name", sorted(set(QUICK) - {"clp"}))
def test_networks_without_norms_are_repaired_too(name):
    model, images = build("plain-conv"), random_images(5)
    repaired = QUICK[name](model, images, torch.arange(5))
    assert repaired is not model
    assert {k: v.shape for k, v in repaired.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
    assert bool(repaired(images).isfinite().all())


@every_defence
def test_progress_ends_at_one(name):
    shares: list[float] = []
    QUICK[name](backdoored_net(), *one_a_class(), progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1


class FailsLater(nn.Module):
    """Works a few times."""

    def __init__(self, module: nn.Module, calls: int) -> None:
        super().__init__()
        self.module, self.calls = module, [calls]

    def forward(self, images):
        self.calls[0] -= 1
        if self.calls[0] < 0:
            raise RuntimeError("boom")
        return self.module(images)


@every_defence
def test_nothing_is_left_behind_after_an_exception(name):
    for calls in (1, 3):
        model = FailsLater(backdoored_net().train(), calls)
        before, state = snapshot(model), torch.get_rng_state()
        with pytest.raises((RuntimeError, InputError), match="boom"):
            [QUICK[name](model, *one_a_class()) for _ in range(4)]  # CLP runs the model twice
        assert unchanged(model, before)
        assert torch.equal(torch.get_rng_state(), state)


@every_defence
def test_bad_input_is_told(name):
    images, labels = one_a_class()
    with pytest.raises(InputError, match="normalisation"):
        QUICK[name](backdoored_net(), 3 * images, labels)


# Passes


# Plain fine-tuning and unlearning


# Fine-Pruning


# Neural Cleanse


# GangSweep


# DeepInspect


# CLP


# ANP


# I-BAU


def test_removed_neurons_are_the_reference_of_the_toy():
    """What a perfect defence does to it."""
    net, unseen = backdoored_net(), toy_images(per_class=10, seed=1)
    perfect = remove_neurons(net, find_neurons(net, unseen[0]), [backdoor_neuron()])
    rate = attack_success_rate(perfect, *unseen, stamp=true_trigger().stamp, target=TARGET)
    assert rate < 0.1
