"""Triggers inverted on the hand-wired network."""

from statistics import median

import pytest
import torch
from torch import Tensor, nn

from shapprune.errors import InputError
from shapprune.method.inversion import invert_triggers
from shapprune.method.outliers import detect
from shapprune.method.triggers import Perturbation, Trigger
from shapprune.model.masking import remove_neurons
from shapprune.model.metrics import accuracy, attack_success_rate
from shapprune.model.neurons import find_neurons
from toys import (
    BACKDOOR,
    CLASSES,
    TARGET,
    backdoor_neuron,
    backdoored_net,
    seeded,
    toy_images,
    true_trigger,
)

IMAGES, LABELS = toy_images()  # the defender's


UNSEEN = toy_images(per_class=10, seed=1)


def true_asr(model: torch.nn.Module) -> float:
    return attack_success_rate(model, *UNSEEN, stamp=true_trigger().stamp, target=TARGET)


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


def test_the_toy_is_backdoored(net, neurons):
    assert accuracy(net, *UNSEEN) == 1
    assert true_asr(net) == 1
    assert neurons.locate(backdoor_neuron()) == ("bn1", BACKDOOR)
    clean = remove_neurons(net, neurons, [backdoor_neuron()])
    assert accuracy(clean, *UNSEEN) == 1
    assert true_asr(clean) == 0


def test_inversion_finds_the_trigger(net, inversion):
    found = inversion.triggers[TARGET]
    assert isinstance(found.stamp, Trigger)
    assert found.norm < min(t.norm for t in inversion.triggers if t.target != TARGET) / 3
    rate = attack_success_rate(net, *UNSEEN, stamp=found.stamp.stamp, target=TARGET)
    assert rate > 0.9
    blue = found.stamp.pattern[2][found.stamp.mask[0] > 0.5]
    assert len(blue) > 0
    assert float(blue.mean()) > 0.8


def test_detection_tells_the_target(inversion):
    for method in ("mad", "mad-small"):
        assert detect(inversion.norms, method=method).targets == (TARGET,)


def test_without_the_backdoor_neuron_the_target_is_one_of_many(net, neurons):
    clean = remove_neurons(net, neurons, [backdoor_neuron()])
    norms = invert_triggers(
        clean, IMAGES, LABELS, targets=range(CLASSES), steps=120, generator=seeded()
    ).norms
    assert norms[TARGET] > 0.9 * median(norms)


def test_inverted_triggers_are_what_they_say(inversion):
    assert inversion.kind == "patch"
    assert [t.target for t in inversion.triggers] == list(range(CLASSES))
    for trigger in inversion.triggers:
        mask, pattern = trigger.stamp.mask, trigger.stamp.pattern
        assert mask.shape == (1, 12, 12)
        assert pattern.shape == (3, 12, 12)
        assert trigger.norm == pytest.approx(trigger.stamp.norm, rel=1e-4)
        for part in (mask, pattern):
            assert 0 <= float(part.min()) <= float(part.max()) <= 1
            assert not part.requires_grad
        assert 0 <= trigger.asr <= 1
        assert 0 < trigger.steps <= 120
    assert inversion.passes > 0


def test_inversion_of_perturbations(net):
    inversion = invert_triggers(
        net, IMAGES, LABELS, targets=[TARGET, 0], kind="perturbation", steps=80, generator=seeded()
    )
    assert inversion.kind == "perturbation"
    for trigger in inversion.triggers:
        assert isinstance(trigger.stamp, Perturbation)
        assert trigger.norm == pytest.approx(trigger.stamp.norm, rel=1e-4)
        rate = attack_success_rate(net, *UNSEEN, stamp=trigger.stamp.stamp, target=trigger.target)
        assert rate > 0.8


def test_inversion_of_one_class_several_times(net):
    """Different starts, different triggers."""
    twice = invert_triggers(
        net, IMAGES, LABELS, targets=[TARGET] * 2, steps=20, generator=seeded()
    ).triggers
    assert not torch.equal(twice[0].stamp.mask, twice[1].stamp.mask)


def test_hopeless_classes_stop_early():
    """No trigger makes the network say 0: that trigger is large, and its steps are saved."""
    net = backdoored_net()
    with torch.no_grad():
        net.head.bias[0] = -50

    def invert(give_up):
        return invert_triggers(
            net,
            IMAGES,
            LABELS,
            targets=range(CLASSES),
            steps=80,
            give_up=give_up,
            generator=seeded(),
        )

    patient, hasty = invert(False), invert(True)
    assert [t.steps for t in patient.triggers] == [80] * CLASSES
    assert hasty.triggers[0].steps < 60
    assert hasty.triggers[TARGET].steps == 80
    assert hasty.passes / patient.passes == pytest.approx(
        sum(t.steps for t in hasty.triggers) / (80 * CLASSES)
    )
    for inversion in (patient, hasty):
        assert inversion.triggers[0].asr == 0
        assert inversion.triggers[0].norm == max(inversion.norms)
        assert detect(inversion.norms).targets == (TARGET,)


class OneFurther(nn.Module):
    """Says which of three pixels is bright, and the next one where a fourth is bright, too."""

    def forward(self, x: Tensor) -> Tensor:
        seen, moved = x[:, 0, 0, :3], x[:, 0, 1, :1]
        return 10 * ((1 - moved) * seen + moved * seen.roll(1, 1))


def test_inversion_for_a_map():
    """No class has a small trigger, and yet one pixel moves all images, each to its own class.

    A patch: shifted by a pixel, as images are while inverting, a perturbation this small is lost.
    """
    images = torch.zeros(3, 1, 2, 3)
    images[:, 0, 0] = 0.9 * torch.eye(3)
    labels, mapping = torch.arange(3), (1, 2, 0)
    (found,) = invert_triggers(
        OneFurther(), images, labels, targets=[mapping], kind="patch", generator=seeded()
    ).triggers
    assert found.mapping == mapping
    assert OneFurther()(found.stamp.stamp(images)).argmax(1).tolist() == [1, 2, 0]
    with pytest.raises(ValueError, match="too many"):
        _ = found.target
    change = (found.stamp.stamp(images) - images).abs().mean((0, 1))
    assert change.argmax() == 3  # the fourth pixel


def test_a_map_of_another_length(net):
    with pytest.raises(InputError, match="names 2 classes, and the model has 8"):
        invert_triggers(net, IMAGES, LABELS, targets=[(1, 0)], generator=seeded())


def test_inversion_needs_images_of_other_classes(net):
    only = LABELS == TARGET
    with pytest.raises(InputError, match="classes"):
        invert_triggers(net, IMAGES[only], LABELS[only], targets=[TARGET], generator=seeded())
