"""Other papers' defences: what all of them owe their caller, and each against a naive reference."""

import random
from functools import partial
from importlib import import_module

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shapprune.baselines import DEFENCES
from shapprune.baselines.anp import anp, neuron_masks
from shapprune.baselines.clp import channel_sensitivity, clp
from shapprune.baselines.deepinspect import deepinspect, deepinspect_scan, double_mad
from shapprune.baselines.fine_pruning import dormant_first, fine_pruning
from shapprune.baselines.gangsweep import TriggerGenerator, gangsweep, gangsweep_scan, hinge
from shapprune.baselines.ibau import ibau, implicit_gradient, worst_perturbation
from shapprune.baselines.neural_cleanse import CostSchedule, neural_cleanse, neural_cleanse_scan
from shapprune.baselines.plain_finetuning import batches, blame, plain_fine_tune, unlearn
from shapprune.errors import InputError
from shapprune.method.outliers import detect
from shapprune.model.cost import counting
from shapprune.model.masking import remove_neurons
from shapprune.model.metrics import accuracy, attack_success_rate
from shapprune.model.neurons import find_neurons
from toys import (
    BACKDOOR,
    SIDE,
    TARGET,
    backdoor_neuron,
    backdoored_net,
    build,
    no_norm,
    random_images,
    seeded,
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
    QUICK[name](build("plain-conv"), random_images(5), torch.arange(5))


def test_clp_needs_norms():
    with pytest.raises(InputError, match="batch norms that follow"):
        clp(no_norm(), *one_a_class())


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


def test_passes_are_counted_forwards_and_backwards():
    net, (images, _) = build("conv-bn"), (random_images(6), None)
    with counting(net, images) as passes, torch.no_grad():
        net(images)
        assert passes.count == 6
    net.requires_grad_(False)
    leaf = images.clone().requires_grad_()
    with counting(net, images) as passes:
        net(leaf).sum().backward()
    assert passes.count == 12  # a way back to the image costs as much as the way there
    net.requires_grad_(True)
    with counting(net, images) as passes:
        net(leaf).sum().backward()
    assert passes.count == 18


# Plain fine-tuning and unlearning


def test_batches_hold_every_row_once_and_never_one_alone():
    for n in range(2, 70):
        rows = list(batches(n, 32, seeded()))
        assert torch.cat(rows).sort().values.tolist() == list(range(n))
        assert min(map(len, rows)) > 1
        assert max(map(len, rows)) <= 32


def test_fine_tuning_learns_the_images_and_the_statistics():
    net, (images, labels) = build("conv-bn"), (random_images(20), torch.arange(20) % 5)
    tuned = plain_fine_tune(net, images, labels, epochs=200)
    assert accuracy(tuned, images, labels) > accuracy(net, images, labels) + 0.2
    assert not torch.equal(tuned[1].running_mean, net[1].running_mean)


def test_unlearning_with_the_trigger_removes_the_backdoor():
    net, (images, labels) = backdoored_net(), toy_images()
    unseen = toy_images(per_class=10, seed=1)
    score = partial(
        attack_success_rate,
        images=unseen[0],
        labels=unseen[1],
        stamp=true_trigger().stamp,
        target=TARGET,
    )
    alone = {"stamps": [true_trigger().stamp], "norms": [1.0], "targets": []}
    repaired = unlearn(net, images, labels, **alone, epochs=60, seed=0)
    assert score(net) > 0.9
    assert score(repaired) < 0.2


# Fine-Pruning


def staircase() -> nn.Module:
    """Four channels: 0 and 1 tell bright from dark, 2 sleeps, 3 is active and of no use."""
    net = nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([2.0, -2.0, -1.0, 0.0]).view(4, 1, 1, 1))
        net[0].bias.copy_(torch.tensor([-1.0, 1.0, 0.0, 0.1]))
        net[4].weight.copy_(torch.tensor([[0, 9.0, 0, 0], [9.0, 0, 0, 0], [0, 0, 9.0, 0]]))
        net[4].bias.copy_(torch.tensor([0.0, 0.0, -5.0]))
    return net


def test_fine_pruning_goes_by_activity_and_keeps_the_last_within_the_bound():
    net = staircase()
    images = torch.tensor([0.0, 0.1, 0.8, 1.0, 0.9]).view(5, 1, 1, 1).expand(5, 1, 4, 4)
    labels = torch.tensor([0, 0, 1, 1, 1])
    neurons = find_neurons(net, images)
    # Mean activities: 0.48 for channel 0, 0.36 for 1, none for 2, 0.1 for 3.
    assert dormant_first(net, images, neurons=neurons) == [2, 3, 1, 0]
    pruned = fine_pruning(net, images, labels, epochs=1)
    gone = [c for c in range(4) if not pruned[0].weight[c].any() and not pruned[0].bias[c].any()]
    # Without channel 1 dark images tie at 0 and go to class 0: nothing is lost, so that it goes
    # too; the last channel always stays.
    assert gone == [1, 2, 3]
    with torch.no_grad():
        net[4].bias[1] = 0.5  # now the dark ones need channel 1
    pruned = fine_pruning(net, images, labels, epochs=1)
    gone = [c for c in range(4) if not pruned[0].weight[c].any() and not pruned[0].bias[c].any()]
    assert gone == [2, 3]


def test_fine_pruning_looks_at_the_last_convolution_alone():
    for name, first, size in (("conv-bn", 4, 6), ("functional", 6, 4), ("mlp", 7, 6)):
        net = build(name)
        order = dormant_first(net, random_images(), neurons=find_neurons(net, random_images()))
        assert sorted(order) == list(range(first, first + size)), name


# Neural Cleanse


def test_the_cost_follows_runs_of_successes_and_failures():
    schedule, seen = CostSchedule(), []
    script = (
        "+" * 4 + "-" + "+" * 5 + "+" * 5 + "+" * 4 + "-" + "+" * 5 + "-" * 5 + "-" * 4 + "+" * 5
    )
    for outcome in script:
        schedule.update(outcome == "+")
        seen.append(schedule.cost)
    assert seen[:9] == [0] * 9  # four in a row are not enough
    assert seen[9] == seen[13] == 1e-3
    assert seen[14] == seen[23] == 2e-3
    assert seen[24] == seen[28] == 4e-3
    assert seen[29] == pytest.approx(4e-3 / 2**1.5)
    assert seen[38] == pytest.approx(8e-3 / 2**1.5)
    assert len(seen) == 39
    assert schedule.turned


def test_no_success_no_cost():
    schedule = CostSchedule()
    for _ in range(50):
        schedule.update(False)
    assert schedule.cost == 0
    assert not schedule.turned


def test_the_anomaly_index_is_that_of_the_true_median():
    # Ten norms: the median is 10.5, where the lower middle would be 10. Deviations: 7.5, 2.5, 1.5,
    # 1, 0.5, 0.5, 1, 1.5, 2.5, 3.5, whose median is 1.5.
    norms = [3, 8, 9, 9.5, 10, 11, 11.5, 12, 13, 14]
    detection = detect(norms, method="mad", logarithm=False)
    assert detection.indices[0] == pytest.approx(7.5 / (1.4826 * 1.5), rel=1e-4)
    assert detection.indices[1] == pytest.approx(2.5 / (1.4826 * 1.5), rel=1e-4)
    assert detection.indices[5:] == (0,) * 5
    assert detection.targets == (0,)
    assert detection.bound == pytest.approx(2, abs=1e-3)


def test_blamed_is_the_outlier_or_the_smallest():
    outlier = detect([3, 8, 9, 9.5, 10, 11, 11.5, 12, 13, 14], method="mad", logarithm=False)
    none = detect([5, 9, 4, 8], method="mad", logarithm=False)
    assert [tuple(blame(d.norms, d.targets)) for d in (outlier, none)] == [(0,), (2,)]


def test_neural_cleanse_reverses_the_toys_trigger():
    net, (images, labels) = backdoored_net(), toy_images()
    scan = neural_cleanse_scan(net, images, labels, steps=80)
    norms = scan.detection.norms
    assert scan.detection.targets[0] == TARGET
    assert norms[TARGET] < 0.5 * sorted(norms)[1]
    for target, trigger in enumerate(scan.triggers):
        hits = net(trigger.stamp(images)).argmax(1) == target
        assert float(hits.float().mean()) == pytest.approx(scan.rates[target], abs=0.1)
        assert trigger.norm == pytest.approx(norms[target])


def test_neural_cleanse_keeps_the_smallest_mask_among_those_that_succeed():
    """A network that answers class 1 to nothing: no mask succeeds, the last one is told so."""
    net, (images, labels) = backdoored_net(), toy_images()
    with torch.no_grad():
        net.head.weight[1] = 0
        net.head.bias[1] = -100.0
    scan = neural_cleanse_scan(net, images, labels, steps=5)
    assert scan.rates[1] < 0.99
    assert scan.steps[1] == 5


# GangSweep


def test_the_hinge_is_the_margin_that_is_missing():
    logits = torch.tensor([[1.0, 4.0, 2.0], [5.0, 4.0, 2.0], [2.0, 2.0, 2.0]])
    assert hinge(logits, 0).tolist() == [3, 0, 0]
    assert hinge(logits, 1).tolist() == [0, 1, 0]
    assert hinge(logits, 2).tolist() == [2, 3, 0]


@pytest.mark.parametrize("size", [(3, 12, 12), (1, 28, 28), (3, 9, 14)])
def test_generators_start_at_nothing_and_fit_any_size(size):
    images = torch.rand(2, *size, generator=seeded())
    generator = TriggerGenerator(size[0])
    assert torch.equal(generator(images), torch.zeros_like(images))
    torch.nn.init.normal_(generator.last.weight)
    assert generator.stamp(images).shape == images.shape
    assert bool(((generator.stamp(images) >= 0) & (generator.stamp(images) <= 1)).all())


def test_gangsweeps_generator_reaches_the_target():
    net, (images, labels) = backdoored_net(), toy_images()
    scan = gangsweep_scan(net, images, labels, steps=60)
    assert scan.rates[TARGET] > 0.9
    others = images[labels != TARGET]
    hits = net(scan.generators[TARGET].stamp(others)).argmax(1) == TARGET
    assert float(hits.float().mean()) == pytest.approx(scan.rates[TARGET])


# DeepInspect


def test_double_mad_has_a_sigma_for_each_side():
    # Median 10. Below: 9, 2, 1, 0 off, median 1.5; above: 0, 2, 4, 30 off, median 3.
    found = double_mad([1.0, 8.0, 9.0, 10.0, 12.0, 14.0, 40.0])
    low, high = 1.4826 * 1.5, 1.4826 * 3
    assert found == pytest.approx((9 / low, 2 / low, 1 / low, 0, 2 / high, 4 / high, 30 / high))
    assert double_mad([5.0, 5.0, 5.0]) == (0, 0, 0)


def test_deepinspect_finds_triggers_without_images():
    net, (images, _) = backdoored_net(), toy_images()
    scan = deepinspect_scan(net, images, steps=150, inversion_steps=60)
    assert scan.rates[TARGET] > 0.9
    assert bool(((scan.images >= 0) & (scan.images <= 1)).all())
    # On the images that it recovered: on the real ones of this toy they work one time in eight.
    stamped = scan.generator.stamp(TARGET, seeded())(scan.images)
    assert float((net(stamped).argmax(1) == TARGET).float().mean()) > 0.9


def test_deepinspect_uses_only_the_size_of_images():
    given = toy_images()[0], torch.zeros(1, 3, SIDE, SIDE)
    one, other = (
        deepinspect_scan(backdoored_net(), images, steps=5, inversion_steps=5) for images in given
    )
    assert one.norms == other.norms


# CLP


def test_channel_constants_are_those_of_a_singular_value_decomposition_each():
    net = build("conv-bn")
    first, second = channel_sensitivity(net, random_images())
    assert (first.norm, second.norm) == ("1", "4")
    for found, conv, norm in ((first, net[0], net[1]), (second, net[3], net[4])):
        for channel in range(conv.out_channels):
            matrix = conv.weight[channel].reshape(conv.in_channels, -1).detach()
            gain = float(norm.weight[channel].detach().abs() / norm.running_var[channel].sqrt())
            largest = float(torch.linalg.svd(gain * matrix).S.max())
            assert float(found.constants[channel]) == pytest.approx(largest, rel=1e-5)


def test_channels_are_paired_by_what_they_read_and_not_by_their_names():
    found = {layer.norm for layer in channel_sensitivity(build("residual"), random_images())}
    assert found == {"norm1", "norm2"}
    # Of the two norms before their convolutions, one reads the stem and the other a sum.
    found = {layer.norm for layer in channel_sensitivity(build("pre-activation"), random_images())}
    assert found == {"norm1"}


def test_clp_prunes_the_outlier_to_zero():
    net = backdoored_net()
    layer = channel_sensitivity(net, toy_images()[0])[0]
    assert int(layer.constants.argmax()) == BACKDOOR
    repaired = clp(net, *toy_images(), u=2.0)
    assert not repaired.bn1.weight[BACKDOOR].any()
    assert not repaired.bn1.bias[BACKDOOR].any()
    assert int((repaired.bn1.weight == 0).sum()) == 1


# ANP


def test_anp_lets_go_of_the_backdoor_neuron():
    net, (images, labels) = backdoored_net(), toy_images()
    neurons = find_neurons(net, images)
    masks = neuron_masks(net, images, labels, neurons=neurons, iterations=60)
    assert bool(((masks >= 0) & (masks <= 1)).all())
    first = neurons.split(masks)[0]
    assert int(first.argmin()) == backdoor_neuron()


def test_anp_prunes_at_the_threshold_and_keeps_biases():
    net, (images, labels) = backdoored_net(), toy_images()
    neurons = find_neurons(net, images)
    masks = neuron_masks(net, images, labels, neurons=neurons, iterations=30, seed=2)
    threshold = float(masks.median())
    repaired = anp(net, images, labels, iterations=30, threshold=threshold, seed=2)
    gone = torch.cat([repaired.bn1.weight, repaired.bn2.weight]) == 0
    assert torch.equal(gone, masks <= threshold)
    assert torch.equal(repaired.bn1.bias, net.bn1.bias)
    assert torch.equal(repaired.bn1.running_mean, net.bn1.running_mean)


# I-BAU


def test_implicit_gradient_is_that_of_the_exact_hessian():
    """Inner problem: ridge regression; outer: a logistic loss at its solution."""
    generator = seeded()
    a = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    w = torch.randn(6, generator=generator, dtype=torch.float64).requires_grad_()
    c = torch.randn(3, generator=generator, dtype=torch.float64)

    def inner(x):
        return 0.5 * (a @ x - w).square().sum() + 0.5 * x.square().sum()

    def outer(x):
        return F.softplus(c @ x) + 0.1 * w.square().sum()

    hessian = a.T @ a + torch.eye(3, dtype=torch.float64)
    best = torch.linalg.solve(hessian, a.T @ w)
    (exact,) = torch.autograd.grad(outer(best), w)  # through the solution itself
    rate = 1 / float(torch.linalg.matrix_norm(hessian, 2))
    (found,) = implicit_gradient(outer, inner, best.detach(), [w], rate=rate, iterations=2000)
    torch.testing.assert_close(found, exact)
    # A few iterations are the same number of terms of the Neumann series of the inverse.
    (few,) = implicit_gradient(outer, inner, best.detach(), [w], rate=rate, iterations=3)
    step = torch.eye(3, dtype=torch.float64) - rate * hessian
    slope = torch.sigmoid(c @ best.detach()) * c
    v = sum((torch.linalg.matrix_power(step, k) @ slope for k in range(3)), torch.zeros(3))
    torch.testing.assert_close(few, 0.2 * w.detach() + rate * (a @ v))


def test_the_perturbation_takes_images_from_their_class():
    net, images = build("conv-bn").requires_grad_(False), random_images(12)
    answers = net(images).argmax(1)
    delta = worst_perturbation(net, images.split(4))
    assert delta.shape == (1, 3, 8, 8)
    assert float((net(images + delta).argmax(1) != answers).float().mean()) > 0.5


def test_ibau_mixes_the_classes_of_its_batches(monkeypatch):
    net, (images, labels) = backdoored_net(), toy_images(per_class=4)
    by_class = labels.argsort()
    images, labels = images[by_class], labels[by_class]
    module = import_module("shapprune.baselines.ibau")  # the package's name is the function's
    seen = []

    def search(model, parts):
        seen.extend(parts)
        return worst_perturbation(model, parts)

    monkeypatch.setattr(module, "worst_perturbation", search)
    ibau(net, images, labels, rounds=1, batch_size=4)
    known = {image.numpy().tobytes(): int(c) for image, c in zip(images, labels, strict=True)}
    classes = [{known[image.numpy().tobytes()] for image in batch} for batch in seen]
    assert len(classes) == 8
    assert sum(len(some) for some in classes) > 16


def test_ibau_descends_the_loss_under_its_perturbation():
    net, (images, labels) = backdoored_net(), toy_images()
    repaired = ibau(net, images, labels, rounds=3, learning_rate=1e-2)
    delta = worst_perturbation(net.requires_grad_(False), [images])
    with torch.no_grad():
        before, after = (F.cross_entropy(m(images + delta), labels) for m in (net, repaired))
    assert after < before


def test_removed_neurons_are_the_reference_of_the_toy():
    """What a perfect defence does to it."""
    net, unseen = backdoored_net(), toy_images(per_class=10, seed=1)
    perfect = remove_neurons(net, find_neurons(net, unseen[0]), [backdoor_neuron()])
    rate = attack_success_rate(perfect, *unseen, stamp=true_trigger().stamp, target=TARGET)
    assert rate < 0.1
