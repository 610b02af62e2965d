"""Stopping when the best players are known: not too late, and hardly ever too early."""

import pytest
import torch

from games import Plays, Products
from shapprune.errors import InputError
from shapprune.shapley import TopSet, algorithm1, multilinear, permutation
from toys import seeded

ESTIMATORS = {
    "permutation": lambda game, **options: permutation(game, **options),
    "antithetic": lambda game, **options: permutation(game, antithetic=True, **options),
    "algorithm1": lambda game, **options: algorithm1(
        game, average_iterations=1e9, explore=1e9, discard_below=-1e9, **options
    ),
    "multilinear": lambda game, **options: multilinear(game, min_q=0, **options),
    "antithetic-multilinear": lambda game, **options: multilinear(
        game, min_q=0, antithetic=True, **options
    ),
}
every_estimator = pytest.mark.parametrize("name", ESTIMATORS)

# Two teams of two, worth 0.3 a player and 0.1 a player, and eight that are worth 0.02.
EASY = Products(12, {(0, 1): 0.6, (2, 3): 0.2} | {(i,): 0.02 for i in range(4, 12)})
TIE = Products(2, {(0, 1): 1.0})


def rare(k: int) -> Plays:
    """Player 0 contributes 1, but only before all of k others; player 1 always contributes less."""
    return Plays(
        k + 2, lambda s: (s[:, 0] & ~s[:, 2:].any(1)).float() + 0.6 / (k + 1) * s[:, 1].float()
    )


@every_estimator
def test_an_easy_set_is_known_early(name):
    budget = 11 * 4096
    result = ESTIMATORS[name](EASY, budget=budget, stop=TopSet(2), generator=seeded())
    assert result.stopped_early
    assert set(result.values.topk(2).indices.tolist()) == {0, 1}
    assert result.evaluations < budget / 4


@every_estimator
def test_without_a_stop_nothing_is_settled(name):
    result = ESTIMATORS[name](EASY, budget=1000, generator=seeded())
    assert not result.stopped_early
    assert result.evaluations > 950


@every_estimator
def test_stopping_is_all_that_a_stop_does(name):
    """Estimates that never settle are those of no stop, whatever the looks in between."""
    stop = TopSet(1, delta=1e-9)
    watched = ESTIMATORS[name](TIE, budget=300, stop=stop, generator=seeded())
    alone = ESTIMATORS[name](TIE, budget=300, generator=seeded())
    assert not watched.stopped_early
    assert torch.equal(watched.values, alone.values)
    assert torch.equal(watched.standard_errors, alone.standard_errors)
    assert watched.evaluations == alone.evaluations


@pytest.mark.parametrize("name", ["permutation", "algorithm1", "multilinear"])
def test_a_tie_is_never_settled_but_by_tolerance(name):
    for seed in range(10):
        options = {"budget": 500, "generator": seeded(seed)}
        assert not ESTIMATORS[name](TIE, stop=TopSet(1), **options).stopped_early
        assert ESTIMATORS[name](TIE, stop=TopSet(1, tolerance=0.5), **options).stopped_early


def wrong(stop: TopSet, k: int, walks: int) -> tuple[int, int]:
    """How many of 200 runs settle, and how many of them on the wrong player."""
    game = rare(k)
    budget = 2 + (k + 1) * walks
    runs = [permutation(game, budget=budget, stop=stop, generator=seeded(s)) for s in range(200)]
    stopped_early = [run for run in runs if run.stopped_early]
    return len(stopped_early), sum(int(run.values.argmax()) != 0 for run in stopped_early)


def test_settled_sets_are_wrong_at_most_as_often_as_delta_says():
    """Sound intervals have more than 28 of 200 runs wrong with a probability of less than 1e-6."""
    stopped_early, wrongly = wrong(TopSet(1, delta=0.05), 9, walks=2048)
    assert stopped_early > 60  # else the test says nothing
    assert wrongly <= 28


def test_normal_intervals_alone_are_wrong_more_often():
    """Why ``marginal_range`` is there: in few samples, what is rare has often not come up."""
    _, wrongly = wrong(TopSet(1, delta=0.05, marginal_range=0), 14, walks=64)
    assert wrongly > 28


@pytest.mark.parametrize(
    ("gap", "look", "marginal_range", "stable"),
    [  # α is 0.3 / 3 / 2 = 0.05 at look 1, z 1.645; 0.025 at look 2, z 1.960; ln 20 = 2.996
        (0.330, 1, 0, True),
        (0.328, 1, 0, False),
        (0.393, 2, 0, True),
        (0.391, 2, 0, False),
        (0.336, 1, 1, True),
        (0.334, 1, 1, False),
        (0.342, 1, 2, True),
        (0.340, 1, 2, False),
    ],
)
def test_intervals_by_hand(gap, look, marginal_range, stable):
    stop = TopSet(1, delta=0.3, marginal_range=marginal_range)
    means = torch.tensor([0.0, gap, -0.1], dtype=torch.float64)
    errors, counts = torch.full((3,), 0.1, dtype=torch.float64), torch.full((3,), 1000)
    assert stop.is_stable(means, errors, counts, look) == stable
    near = TopSet(1, delta=0.3, marginal_range=marginal_range, tolerance=0.01)
    assert near.is_stable(means, errors, counts, look)


def test_a_player_without_samples_keeps_the_set_open():
    means, errors = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, torch.inf])
    assert not TopSet(1).is_stable(means, errors, torch.tensor([10**6, 10**6, 1]), 1)
    assert TopSet(1).is_stable(means[:2], errors[:2], torch.tensor([10**6, 10**6]), 1)


def test_all_players_are_the_best_of_themselves():
    result = permutation(TIE, budget=500, stop=TopSet(2), generator=seeded())
    assert result.stopped_early
    assert result.counts.tolist() == [16, 16]


class Watching(TopSet):
    """Never stable; says when it was asked."""

    def is_stable(self, means, errors, counts, look):
        LOOKS.append((look, int(counts.min())))
        return False


LOOKS: list[tuple[int, int]] = []


@every_estimator
def test_looks_are_taken_as_the_samples_double(name):
    LOOKS.clear()
    ESTIMATORS[name](EASY, budget=2 + 2 * 11 * 100, stop=Watching(2), generator=seeded())
    half = 2 if name == "antithetic-multilinear" else 1  # it counts gradients, and has pairs
    assert LOOKS[:3] == [(1, 16 // half), (2, 32 // half), (3, 64 // half)]


@pytest.mark.parametrize(
    "options",
    [
        {"size": 0},
        {"size": 2, "delta": 0},
        {"size": 2, "delta": 1},
        {"size": 2, "tolerance": -1},
        {"size": 2, "tolerance": float("nan")},
        {"size": 2, "marginal_range": -1},
    ],
)
def test_top_set_refuses(options):
    with pytest.raises(InputError):
        TopSet(**options)
