"""The game of a network's neurons."""

import numpy as np
import pytest
import torch
from torch import nn

from shapprune.errors import InputError
from shapprune.model.game import NeuronGame
from shapprune.model.inference import CHUNK
from shapprune.model.masking import masked, remove_neurons
from shapprune.model.neurons import Neurons, find_neurons
from shapprune.shapley import exact, multilinear
from toys import BUILDERS, build, random_images, seeded

every_shape = pytest.mark.parametrize("name", BUILDERS)


def toy(name: str) -> tuple[nn.Module, Neurons]:
    model = build(name)
    return model, find_neurons(model, random_images())


@every_shape
def test_game_is_a_loop_over_coalitions(name):
    model, neurons = toy(name)
    images = random_images(7)
    with torch.no_grad():
        labels = model(images).argmax(1)
    players = torch.rand(40, len(neurons), generator=seeded()) < 0.8
    assert 2 * CHUNK < 7 * 40  # several chunks
    assert CHUNK % 7  # that end inside a coalition
    game = NeuronGame(model, neurons, images, labels)
    worth = []
    for coalition in players:
        pruned = remove_neurons(model, neurons, (~coalition).nonzero().flatten().tolist())
        with torch.no_grad():
            worth.append(float((pruned(images).argmax(1) == labels).float().mean()))
    torch.testing.assert_close(game(players), torch.tensor(worth))
    assert len(set(worth)) > 2  # else the loop would prove nothing
    assert game.n == len(neurons)
    assert game.passes == 7 * 40


SMOOTH = {
    "success": lambda logits: logits.softmax(1)[:, 2],
    "log-probability": lambda logits: logits.log_softmax(1)[:, 2],
    "margin": lambda logits: logits[:, 2] - logits[:, [0, 1, 3, 4]].amax(1),
}


@pytest.mark.parametrize("metric", SMOOTH)
@every_shape
def test_gradient_is_a_finite_difference(name, metric):
    model, neurons = toy(name)
    model, image = model.double(), random_images(1).double()
    label = torch.tensor([2])
    masks = 0.2 + 0.7 * torch.rand(3, len(neurons), generator=seeded(), dtype=torch.float64)
    game = NeuronGame(model, neurons, image, label, metric=metric)
    found = game.gradient(masks)
    assert found.shape == masks.shape

    def answer(rows):
        with torch.no_grad(), masked(model, neurons, rows):
            return SMOOTH[metric](model(image.expand(len(rows), -1, -1, -1)))

    step = 1e-6 * torch.eye(len(neurons), dtype=torch.float64)
    for mask, gradient in zip(masks, found, strict=True):
        expected = (answer(mask + step) - answer(mask - step)) / 2e-6
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)


def test_gradients_of_many_rows_take_every_image():
    """Rows as many as images, or twice as many: their mean is the gradient of the mean."""
    model, neurons = toy("functional")
    images, labels = random_images(9), torch.arange(9) % 5
    mask = 0.2 + 0.7 * torch.rand(1, len(neurons), generator=seeded())
    game = NeuronGame(model, neurons, images, labels)
    each = [
        NeuronGame(model, neurons, images[i : i + 1], labels[i : i + 1]).gradient(mask)
        for i in range(9)
    ]
    expected = torch.cat(each).mean(0)
    for rows in (9, 18, 18 * 9):  # the last is more than a chunk
        found = game.gradient(mask.expand(rows, -1))
        torch.testing.assert_close(found.mean(0), expected, rtol=1e-4, atol=1e-6)


def test_every_image_counts_in_the_multilinear_estimate():
    """600 images, of which only the last 80 are not black; nothing has a bias."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5, bias=False)
    )
    model[0].weight.data.abs_()  # else one time in sixteen no neuron is awake
    images = torch.zeros(600, 3, 8, 8)
    images[520:] = 1
    game = NeuronGame(
        model, find_neurons(model, images), images, torch.zeros(600, dtype=torch.int64)
    )
    assert bool((multilinear(game, budget=1200, generator=seeded()).values != 0).any())


def test_absent_neurons_have_gradients():
    """log σ(2 m - 1): steep at m = 0, where the neuron is absent, and flat at m = 1."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 2))
    with torch.no_grad():
        model[1].weight.fill_(1)
        model[3].weight.copy_(torch.tensor([[2.0], [0.0]]))
        model[3].bias.copy_(torch.tensor([-1.0, 0.0]))
    image = torch.ones(1, 1, 1, 1)
    labels = torch.tensor([0])
    game = NeuronGame(model, find_neurons(model, image), image, labels, metric="log-probability")
    gradient = game.gradient(torch.tensor([[0.0], [1.0]])).flatten()
    expected = 2 * torch.sigmoid(torch.tensor([1.0, -1.0]))
    torch.testing.assert_close(gradient, expected, rtol=0.02, atol=0.02)


def test_gradients_where_the_caller_wants_none():
    model, neurons = toy("conv-bn")
    game = NeuronGame(model, neurons, random_images(), torch.arange(4))
    with torch.no_grad():
        assert bool((game.gradient(torch.ones(4, len(neurons))) != 0).any())


@pytest.mark.parametrize("images", [0, 3])
def test_game_without_images(images):
    model, neurons = toy("conv-bn")
    with pytest.raises(InputError, match="image"):
        NeuronGame(model, neurons, random_images()[:images], torch.arange(4)[: images // 2])


# What sharing, chunks and metrics change, and what they do not


@every_shape
@pytest.mark.parametrize("metric", ["success", "log-probability", "margin"])
def test_batches_do_not_matter(name, metric):
    model, neurons = toy(name)
    images, labels = random_images(7), torch.arange(7) % 5
    players = torch.rand(40, len(neurons), generator=seeded()) < 0.8
    found = [
        NeuronGame(model, neurons, images, labels, metric=metric, rows=rows).outcomes(players)
        for rows in (1, 5, 64, 10_000)
    ]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-5)
    one_by_one = NeuronGame(model, neurons, images, labels, metric=metric)
    rows = [one_by_one.outcomes(row[None])[0] for row in players]
    torch.testing.assert_close(torch.stack(rows), found[0], rtol=1e-4, atol=1e-5)


@every_shape
def test_metrics_by_hand(name):
    model, neurons = toy(name)
    images, labels = random_images(7), torch.arange(7) % 5
    players = torch.rand(3, len(neurons), generator=seeded()) < 0.8
    for metric in ("success", "log-probability", "margin"):
        found = NeuronGame(model, neurons, images, labels, metric=metric).outcomes(players)
        for coalition, values in zip(players, found, strict=True):
            pruned = remove_neurons(model, neurons, (~coalition).nonzero().flatten().tolist())
            with torch.no_grad():
                logits = pruned(images)
            for row, label, value in zip(logits, labels.tolist(), values, strict=True):
                others = torch.cat([row[:label], row[label + 1 :]])
                expected = {
                    "success": float(row.argmax() == label),
                    "log-probability": float(row.log_softmax(0)[label]),
                    "margin": float(row[label] - others.max()),
                }[metric]
                assert float(value) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def rows_seen(model: nn.Module, module: nn.Module, play) -> int:
    """How many images a module computes while ``play`` runs."""
    seen = []
    handle = module.register_forward_hook(lambda _m, _i, output: seen.append(len(output)))
    play()
    handle.remove()
    return sum(seen)


def test_coalitions_share_the_layers_before_the_first_that_differs():
    """``1`` has 4 neurons and ``4`` has 6: these coalitions differ in the latter alone."""
    model, neurons = toy("conv-bn")
    game = NeuronGame(model, neurons, random_images(7), torch.arange(7) % 5)
    players = torch.ones(6, 10, dtype=torch.bool)
    players[range(6), range(4, 10)] = False
    assert rows_seen(model, model[0], lambda: game(players)) == 7
    assert rows_seen(model, model[3], lambda: game(players)) == 7
    assert rows_seen(model, model[8], lambda: game(players)) == 6 * 7
    players[0, 0] = False
    assert rows_seen(model, model[0], lambda: game(players)) == 7
    assert rows_seen(model, model[3], lambda: game(players)) == 2 * 7


def test_the_same_coalition_is_computed_once():
    model, neurons = toy("mlp")
    game = NeuronGame(model, neurons, random_images(3), torch.arange(3))
    players = torch.zeros(9, len(neurons), dtype=torch.bool)
    assert rows_seen(model, model[-1], lambda: game(players)) == 3


@pytest.mark.parametrize("name", ["residual", "pre-activation"])
def test_branches_share_nothing(name):
    model, neurons = toy(name)
    game = NeuronGame(model, neurons, random_images(4), torch.arange(4))
    players = torch.ones(6, len(neurons), dtype=torch.bool)
    assert rows_seen(model, model.head, lambda: game(players)) == 6 * 4


def test_batches_stay_small():
    model, neurons = toy("conv-bn")
    largest = []
    for module in model:
        module.register_forward_hook(lambda _m, _i, output: largest.append(len(output)))
    game = NeuronGame(model, neurons, random_images(50), torch.arange(50) % 5, rows=20)
    game(torch.rand(70, 10, generator=seeded()) < 0.5)
    game.gradient(torch.ones(70, 10))
    assert max(largest) <= 20


def test_arrays_in_arrays_out():
    """As shapiq's approximators call a game."""
    model, neurons = toy("functional")
    game = NeuronGame(model, neurons, random_images(7), torch.arange(7) % 5)
    players = torch.rand(9, len(neurons), generator=seeded()) < 0.8
    found = game(players.numpy())
    assert isinstance(found, np.ndarray)
    assert found.tolist() == game(players).tolist()


def test_success_and_accuracy_in_one_pass():
    model, neurons = toy("functional")
    clean, stamped = random_images(4), random_images(3, seed=1)
    labels, target = torch.arange(4), torch.full((3,), 2)
    players = torch.rand(9, len(neurons), generator=seeded()) < 0.8
    both = NeuronGame(model, neurons, torch.cat([clean, stamped]), torch.cat([labels, target]))
    outcomes = both.outcomes(players)
    wanted = NeuronGame(model, neurons, clean, labels)(players)
    torch.testing.assert_close(outcomes[:, :4].mean(1), wanted)
    wanted = NeuronGame(model, neurons, stamped, target)(players)
    torch.testing.assert_close(outcomes[:, 4:].mean(1), wanted)


def test_unknown_metric():
    model, neurons = toy("mlp")
    with pytest.raises(InputError, match="metric"):
        NeuronGame(model, neurons, random_images(), torch.arange(4), metric="loss")


# Other libraries' estimators play the game as it is


def small_game() -> NeuronGame:
    model, neurons = toy("conv-bn")
    return NeuronGame(
        model, neurons, random_images(7), torch.arange(7) % 5, metric="log-probability"
    )


def test_shapiq_plays():
    approximator = pytest.importorskip("shapiq").PermutationSamplingSV(n=10, random_state=0)
    found = approximator.approximate(budget=4000, game=small_game())
    values = [float(found[(player,)]) for player in range(10)]
    assert values == pytest.approx(exact(small_game()).values.tolist(), abs=0.03)


def test_captum_plays():
    attribution = pytest.importorskip("captum.attr").ShapleyValueSampling(small_game())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = attribution.attribute(torch.ones(1, 10), n_samples=300, perturbations_per_eval=1)
    assert found[0].tolist() == pytest.approx(exact(small_game()).values.tolist(), abs=0.03)
