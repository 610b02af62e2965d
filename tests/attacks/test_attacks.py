"""BadNets by hand, its training on toy networks, and the demo's network."""

import json
from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import Tensor, nn

from shapprune import demo
from shapprune.attacks import (
    BadNets,
    Learning,
    all_to_all,
    make_backdoored,
    poison,
    square_trigger,
    train,
)
from shapprune.checkpoints.architectures import build_network
from shapprune.data.dataset import LabeledImages
from shapprune.errors import InputError
from shapprune.method.triggers import Trigger
from shapprune.model.metrics import accuracy
from shapprune.model.neurons import find_neurons
from toys import (
    CLASSES,
    SIDE,
    TARGET,
    build,
    fresh_net,
    seeded,
    snapshot,
    toy_images,
    unchanged,
)

SHAPE = (3, SIDE, SIDE)
TRIGGER = square_trigger(SHAPE, size=2, colour=(0.2, 0.4, 0.6))


def poison_toys(images: Tensor, labels: Tensor, seed: int = 0, **changes):
    settings = {"trigger": TRIGGER, "target": TARGET, "rate": 0.25, "generator": seeded(seed)}
    return poison(images, labels, **{**settings, **changes})


# The trigger.


def test_square_by_hand():
    trigger = square_trigger((1, 4, 5), size=2, colour=0.5)
    square = torch.tensor([[[0, 0, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0]]])
    assert torch.equal(trigger.mask, square.float())
    assert torch.equal(trigger.pattern, square / 2)


@pytest.mark.parametrize("colour", [1.0, 0.0, (0.2, 0.4, 0.6)])
def test_colour_of_every_channel(colour):
    stamped = square_trigger(SHAPE, size=2, colour=colour).stamp(torch.full((1, *SHAPE), 0.5))
    painted = torch.as_tensor(colour).expand(3).view(3, 1, 1).expand(3, 2, 2)
    assert torch.equal(stamped[0, :, -3:-1, -3:-1], painted)
    assert int((stamped != 0.5).any(1).sum()) == 4


def test_square_may_cover_the_image():
    assert square_trigger((1, 3, 3), size=3, margin=0).norm == 9


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"size": SIDE},
        {"size": 2, "margin": -1},
        {"size": 2, "colour": 1.1},
        {"size": 2, "colour": float("nan")},
        {"size": 2, "colour": (0.1, 0.2)},
    ],
)
def test_no_such_square(wrong):
    with pytest.raises(InputError, match=r"trigger (size|colour) must .* got"):
        square_trigger(SHAPE, **wrong)


# Poisoning.


@pytest.mark.parametrize(("rate", "count"), [(0, 0), (0.1, 4), (0.25, 10), (0.875, 35)])
def test_rate_is_a_share_of_the_whole_set(rate, count):
    images, labels = toy_images(5)
    poisoned = poison_toys(images, labels, rate=rate)
    rows = poisoned.poisoned
    assert len(rows.unique()) == len(rows) == count
    assert torch.equal(rows, rows.sort().values)
    clean = torch.ones(len(labels), dtype=torch.bool)
    clean[rows] = False
    assert torch.equal(poisoned.images[rows], TRIGGER.stamp(images[rows]))
    assert torch.equal(poisoned.images[clean], images[clean])
    assert (poisoned.labels[rows] == TARGET).all()
    assert (labels[rows] != TARGET).all()
    assert torch.equal(poisoned.labels[clean], labels[clean])


def test_all_to_all():
    images, labels = toy_images(5)
    poisoned = poison_toys(images, labels, target=all_to_all(CLASSES), rate=1)
    assert torch.equal(poisoned.labels, (labels + 1) % CLASSES)
    assert len(poisoned.poisoned) == len(labels)


@pytest.mark.parametrize("rate", [0, 0.25])
def test_caller_keeps_the_clean_data(rate):
    images, labels = toy_images()
    before = images.clone(), labels.clone()
    poisoned = poison_toys(images, labels, rate=rate)
    poisoned.images.zero_()
    poisoned.labels.zero_()
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])


def test_seed_decides_which_images():
    data = toy_images(20)
    first, again, other = (poison_toys(*data, seed=seed).poisoned for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("rate", [-0.1, 1.01, float("nan"), 0.95])
def test_no_such_rate(rate):
    """One in eight is of the target class, so that 0.95 is too much."""
    with pytest.raises(InputError, match=r"rate must be .* 0 \.\. 0\.875 .* got"):
        poison_toys(*toy_images(5), rate=rate)


@pytest.mark.parametrize("target", [-1, lambda labels: labels[:-1], lambda labels: labels - 1])
def test_no_such_target(target):
    with pytest.raises(InputError, match="target must give classes"):
        poison_toys(*toy_images(), target=target)


def test_poisoned_is_frozen():
    with pytest.raises(FrozenInstanceError):
        poison_toys(*toy_images()).labels = torch.zeros(1)


# Training.


def test_training_learns_and_leaves_the_network_alone():
    network = fresh_net()
    before = snapshot(network)
    images, labels = toy_images(16)
    model = train(network, images, labels, epochs=15, seed=0, batch_size=32)
    assert unchanged(network, before)
    assert accuracy(model, *toy_images(8, seed=1)) >= 0.95
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_same_seed_same_weights():
    """Whatever state the global generator is in, also with dropout."""

    def weights(seed: int, state: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(state)
            model = train(fresh_net(dropout=0.3), *toy_images(), epochs=2, seed=seed)
        return nn.utils.parameters_to_vector(model.parameters())

    first, again, other = weights(0, 1), weights(0, 2), weights(1, 1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_global_random_state_is_the_callers():
    network, before = fresh_net(dropout=0.3), torch.get_rng_state()

    def interrupt(_share: float) -> None:
        raise KeyboardInterrupt

    train(network, *toy_images(), epochs=1, seed=0)
    with pytest.raises(KeyboardInterrupt):
        train(network, *toy_images(), epochs=1, seed=0, progress=interrupt)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("n", "batches"), [(2, 1), (8, 1), (9, 1), (10, 2), (16, 2)])
def test_a_last_batch_of_one_is_left_out(n, batches):
    """A batch norm over 1 × 1 pixels cannot be trained on one image."""
    images, labels = torch.rand(n, 3, 8, 8, generator=seeded()), torch.arange(n) % 5
    network = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 5)
    )
    shares: list[float] = []
    train(network, images, labels, epochs=3, seed=0, batch_size=8, progress=shares.append)
    assert shares == pytest.approx([(i + 1) / (3 * batches) for i in range(3 * batches)])


def test_weights_of_double_precision_are_trained_too():
    model = train(
        build("conv-bn").double(), torch.rand(4, 3, 8, 8), torch.arange(4), epochs=1, seed=0
    )
    assert {p.dtype for p in model.parameters()} == {torch.float64}


@pytest.mark.parametrize(
    ("n", "labels", "wrong"),
    [(1, 1, {}), (0, 0, {}), (4, 3, {}), (4, 4, {"epochs": 0}), (4, 4, {"batch_size": 1})],
)
def test_nothing_to_train_on(n, labels, wrong):
    images, numbers = torch.rand(n, *SHAPE), torch.zeros(labels, dtype=torch.int64)
    with pytest.raises(InputError, match=r"(training needs|must be at least) .*got"):
        train(fresh_net(), images, numbers, **{"epochs": 1, "seed": 0, **wrong})


# From network and data to a backdoored model.


def make(target: int | None = TARGET, **changes):
    data, test = (LabeledImages(*toy_images(32, seed)) for seed in (0, 1))
    settings = {"num_classes": CLASSES, "target": target, "attack": BadNets(size=3), "epochs": 60}
    return make_backdoored(fresh_net(), data, test, **{**settings, **changes})


def test_backdoored_toy():
    made = make()
    assert made.accuracy >= 0.95
    assert made.asr >= 0.95
    assert torch.equal(made.trigger.mask, square_trigger(SHAPE, size=3).mask)
    assert isinstance(made.trigger, Trigger)
    assert json.loads(json.dumps(made.recipe)) == made.recipe
    assert made.recipe["poisoned_images"] == round(0.1 * 32 * CLASSES)


def test_clean_twin():
    made = make(rate=0)
    assert made.accuracy >= 0.95
    assert made.asr <= 0.2
    assert made.recipe["poisoned_images"] == 0


@pytest.mark.parametrize("target", [-1, CLASSES])
def test_target_is_no_class(target):
    with pytest.raises(InputError, match=rf"class in 0 \.\. {CLASSES - 1}, got {target}"):
        make(target)


def test_all_to_all_is_written_down():
    assert make(None, epochs=1).recipe["target"] == "all-to-all"


# The demo's network.


def test_digit_cnn():
    network = build_network(demo.ARCH, demo.NUM_CLASSES).eval()
    images = torch.rand(2, 1, 28, 28)
    assert network(images).shape == (2, 10)
    assert len(find_neurons(network, images)) == 208
    assert sum(4 * tensor.numel() for tensor in network.state_dict().values()) < 0.7e6


# Ways of learning.


@pytest.mark.parametrize(
    ("learning", "rate"),
    [
        (Learning("sgd", weight_decay=5e-4, label_smoothing=0), 0.1),
        (Learning(schedule="constant", shift=0, colour=0), 5e-3),
        (Learning(adversarial=0.02), 5e-3),
    ],
)
def test_other_ways_of_learning(learning, rate):
    images, labels = toy_images(32)
    trained = [
        train(fresh_net(), images, labels, epochs=40, seed=3, learning_rate=rate, learning=how)
        for how in (learning, learning, Learning())
    ]
    assert accuracy(trained[0], images, labels) >= 0.9
    first, again, own = ([p for p in net.parameters()] for net in trained)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, own, strict=True))


def test_attacks_learn_as_they_are_told():
    data = LabeledImages(*toy_images(16))
    how = Learning(schedule="constant", shift=0, colour=0)
    settings = {"num_classes": CLASSES, "target": TARGET, "epochs": 2, "rate": 0.1}
    made = make_backdoored(fresh_net(), data, data, learning=how, **settings)
    assert made.recipe["learning"]["schedule"] == "constant"
    ordinary = make_backdoored(fresh_net(), data, data, **settings)
    assert "learning" not in ordinary.recipe
    assert not unchanged(made.model, snapshot(ordinary.model))
    with pytest.raises(InputError, match="by its own recipe"):
        make_backdoored(fresh_net(), data, data, attack="input-aware", learning=how, **settings)


@pytest.mark.parametrize(
    "wrong", [{"optimizer": "lion"}, {"schedule": "never"}, {"adversarial": -0.1}, {"shift": 2.0}]
)
def test_no_such_learning(wrong):
    images, labels = toy_images(2)
    with pytest.raises(InputError, match="must be"):
        train(fresh_net(), images, labels, epochs=1, seed=0, learning=Learning(**wrong))
