"""Estimators of Shapley values on games whose values are known."""

from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import Tensor

from games import PRODUCTS, Plays, Products, additive, by_size, close, table
from shapprune.errors import InputError
from shapprune.shapley import algorithm1, exact, multilinear
from toys import seeded

# Exact


@pytest.mark.parametrize(
    ("game", "values"),
    [
        pytest.param(additive([0.5]), [0.5], id="one-player"),
        pytest.param(Plays(1, lambda s: 3 - s[:, 0].float()), [-1], id="one-harmful-player"),
        pytest.param(
            Plays(2, lambda s: torch.tensor([0.1, 0.4, 0.6, 1.0])[s[:, 0] + 2 * s[:, 1].long()]),
            [0.35, 0.55],  # (0.3 + 0.4) / 2 and (0.5 + 0.6) / 2
            id="two-players",
        ),
        pytest.param(additive([1.0, -2.0, 0.0, 4.0]), [1, -2, 0, 4], id="additive"),
        pytest.param(
            Plays(4, lambda s: (s[:, 0] & s[:, 1:].any(1)).float()),
            [3 / 4, 1 / 12, 1 / 12, 1 / 12],
            id="glove",
        ),
        pytest.param(
            Plays(4, lambda s: torch.minimum(s[:, :2].sum(1), s[:, 2:].sum(1)).float()),
            [1 / 2] * 4,
            id="two-pairs-of-gloves",
        ),
        pytest.param(
            Plays(4, lambda s: (s * torch.tensor([1.0, 3.0, 3.0, 6.0])).amax(1)),
            [1 / 4, 1 / 4 + 2 / 3, 1 / 4 + 2 / 3, 1 / 4 + 2 / 3 + 3],
            id="airport",
        ),
        pytest.param(
            Plays(4, lambda s: (s.long() @ torch.tensor([3, 2, 1, 1]) >= 4).float()),
            [1 / 2, 1 / 6, 1 / 6, 1 / 6],
            id="weighted-voting",
        ),
        pytest.param(PRODUCTS, PRODUCTS.values(), id="products"),
    ],
)
def test_exact_closed_forms(game, values):
    result = exact(game)
    assert close(result.values, values)
    assert result.standard_errors.tolist() == [0.0] * game.n
    assert result.evaluations == 2**game.n


def test_exact_is_the_mean_over_all_permutations():
    """Eq. 3, written out."""
    game = table(5)
    expected = torch.zeros(5)
    orders = list(permutations(range(5)))
    for order in orders:
        present = torch.zeros(1, 5, dtype=torch.bool)
        for player in order:
            before = game(present)
            present[0, player] = True
            expected[player] += (game(present) - before)[0] / len(orders)
    assert close(exact(game).values, expected, 1e-5)


def test_exact_gives_away_what_the_whole_is_worth_and_no_more():
    game = table(6)
    ends = game(torch.tensor([[False] * 6, [True] * 6]))
    assert close(exact(game).values.sum(), ends[1] - ends[0])


def test_null_and_symmetric_players():
    game = Plays(5, lambda s: (s[:, 0] & (s[:, 1] | s[:, 2])).float() + 0.5 * s[:, 3])
    values = exact(game).values
    assert values[4] == 0
    assert values[1] == values[2] > 0
    assert close(values[3], 0.5)


def test_exact_refuses_large_games():
    with pytest.raises(InputError, match="20"):
        exact(by_size([0.0] * 22))


# Multilinear


@pytest.mark.parametrize("seed", range(3))
def test_whole_integral_is_the_shapley_value(seed):
    result = multilinear(PRODUCTS, budget=4000, lowest=0, generator=seeded(seed))
    difference = (result.values - PRODUCTS.values()).abs()
    assert bool((difference <= 4 * result.standard_errors + 1e-6).all())
    assert float(difference.max()) < 0.05
    assert result.values[4] == result.standard_errors[4] == 0  # takes part in nothing
    assert result.counts.tolist() == [4000] * 5
    assert result.evaluations == 4000


def test_only_q_near_one():
    """Means of q and q² over [0.8, 1]."""
    pair, triple = Products(2, {(0, 1): 1.0}), Products(3, {(0, 1, 2): 1.0})
    values = multilinear(pair, budget=20000, lowest=0.8, generator=seeded()).values
    assert close(values, [0.9] * 2, 0.01)
    values = multilinear(triple, budget=20000, lowest=0.8, generator=seeded()).values
    assert close(values, [(1 - 0.8**3) / 0.6] * 3, 0.012)


def test_multilinear_standard_errors():
    """The gradient of a pair is a coin."""
    result = multilinear(Products(2, {(0, 1): 1.0}), budget=2500, lowest=0, generator=seeded())
    assert close(result.standard_errors, [0.01] * 2, 5e-4)
    one = multilinear(PRODUCTS, budget=1, generator=seeded())
    assert one.standard_errors.isinf().all()
    assert one.values.isfinite().all()


def test_additive_games_need_one_gradient():
    game = Products(3, {(0,): 1.0, (1,): -0.5})
    assert close(multilinear(game, budget=1, generator=seeded()).values, [1, -0.5, 0])


def test_multilinear_needs_a_sample():
    with pytest.raises(InputError, match="budget"):
        multilinear(PRODUCTS, budget=0, generator=seeded())


# Algorithm 1


def run(game, **options):
    return algorithm1(game, **{"generator": seeded(), "average_iterations": 50, **options})


@pytest.mark.parametrize(
    "game",
    [
        pytest.param(Plays(4, lambda s: (s.long() @ torch.tensor([3, 2, 1, 1]) >= 4).float())),
        pytest.param(table(6)),
    ],
    ids=["weighted-voting", "table"],
)
@pytest.mark.parametrize("seed", range(2))
def test_algorithm1_without_discarding_approximates_exact(game, seed):
    result = run(game, average_iterations=400, explore=400, discard_below=0, generator=seeded(seed))
    difference = (result.values - exact(game).values).abs()
    assert bool((difference <= 4 * result.standard_errors + 1e-6).all())
    assert float(difference.max()) < 0.08
    assert float(result.standard_errors.max()) < 0.03


def test_marginals_past_the_threshold_are_discarded_and_not_zeroed():
    """Removing player 1 first leaves 0.1: what player 0 does after that does not count."""
    worth = torch.tensor([0.0, 0.1, 0.8, 1.0])  # nobody, player 0, player 1, both
    result = run(Plays(2, lambda s: worth[s[:, 0] + 2 * s[:, 1].long()]))
    assert close(result.values[0], 0.2)  # 0.1 if the discarded marginals counted as 0
    first, second = result.counts.tolist()
    assert 0 < first < second
    assert close(result.values[1], (0.8 * first + 0.9 * (second - first)) / second, 1e-5)


def test_the_marginal_that_crosses_the_threshold_counts():
    result = run(by_size([0.0, 0.1, 0.6, 1.0]))  # 0.4, then 0.5, then discarded
    assert close((result.values * result.counts).sum() / result.counts.sum(), 0.45, 1e-5)


def test_a_value_on_the_threshold_is_not_below_it():
    result = run(by_size([0.0, 0.5, 1.0]), discard_below=0.5)
    assert len(set(result.counts.tolist())) == 1
    assert close(result.values, [0.5, 0.5])


def test_long_walks_go_on_where_a_block_ended():
    weights = [1 / 64] * 32 + [1 / 32] * 16
    result = run(additive(weights), average_iterations=3, discard_below=0)
    assert close(result.values, weights)
    assert close(result.standard_errors, [0.0] * 48)
    assert result.counts.tolist() == [3] * 48
    assert result.evaluations == 1 + 3 * 48


def test_a_long_walk_ends_at_the_threshold():
    """64 players, each worth 1/64: from 1 to below 0.5 there are 33 removals, in three blocks."""
    result = run(by_size([i / 64 for i in range(65)]), average_iterations=4, discard_below=0.5)
    assert int(result.counts.sum()) == 33 * 8  # walks enough for 4 * 64 marginals
    assert close(result.values, [1 / 64] * 64)


def test_what_recovers_past_the_threshold_is_discarded_too():
    """Without 6 of 40 players the game falls to 0.1, and with fewer it is worth 0.9 again."""
    game = by_size([0.9] * 34 + [0.1] + [1.0] * 6)
    result = run(game, average_iterations=3)
    walks = int(result.counts.sum()) // 6
    assert walks == 20
    assert close((result.values * result.counts).sum() / walks, 0.9, 1e-4)
    assert result.evaluations < 1 + walks * 40  # it does not walk on for nothing


def test_algorithm1_standard_errors():
    """One player: the same marginal each time. Two gloves: 0 or 1."""
    assert run(additive([1.0])).standard_errors.tolist() == [0.0]
    gloves = Plays(2, lambda s: s.all(1).float())
    result = run(gloves, average_iterations=40, discard_below=0)
    for value, error in zip(result.values, result.standard_errors, strict=True):
        assert close(error, (value * (1 - value) / (40 - 1)).sqrt(), 1e-5)
    once = run(additive([0.5, 0.5]), average_iterations=1, discard_below=0)
    assert once.standard_errors.isinf().all()


def first_removed(game: Plays) -> list[int]:
    """The first player of each walk: the whole less one is only asked at a walk's start."""
    rows = torch.cat(game.asked)
    return [int((~row).nonzero()) for row in rows if (~row).sum() == 1]


def leaders(n: int = 30) -> Plays:
    """Players 0, 1, 2 are worth much; after two losses of theirs the walk is over."""
    weights = [0.4] * 3 + [0.001] * (n - 3)
    return additive(weights)


@pytest.mark.parametrize("epsilon", [0.1, 0.5])
def test_epsilon_greedy_puts_the_best_first(epsilon):
    game = leaders()
    run(game, average_iterations=30, explore=2, top=3, epsilons={2: epsilon})
    late = first_removed(game)[20:]  # more than two average iterations are over
    share = sum(player < 3 for player in late) / len(late)
    assert abs(share - (1 - epsilon)) < 4 * (epsilon * (1 - epsilon) / len(late)) ** 0.5
    assert {0, 1, 2} <= set(late)  # at random among them


def test_exploring_less_does_not_put_the_best_last():
    game = leaders()
    run(game, average_iterations=20, explore=2, top=3)
    late = first_removed(game)[20:]
    assert sum(player < 3 for player in late) / len(late) > 0.3


def test_exploring_walks_are_uniform():
    game = leaders()
    run(game, average_iterations=12, explore=12, top=3, epsilons={0: 0.0})
    walks = first_removed(game)
    assert sum(player < 3 for player in walks) / len(walks) < 0.3


def test_every_player_is_in_a_greedy_walk_once():
    game = additive([1 / 16] * 16)
    result = run(game, average_iterations=20, explore=0, top=4, discard_below=-1, epsilons={0: 0.3})
    assert result.counts.tolist() == [20] * 16
    assert close(result.values, [1 / 16] * 16)


def test_algorithm1_tells_a_game_that_is_lost_from_the_start():
    with pytest.raises(InputError, match="threshold"):
        run(by_size([0.0, 0.05, 0.1]))
    with pytest.raises(InputError, match="average_iterations"):
        run(table(3), average_iterations=0)


def test_algorithm1_progress():
    seen = []
    run(table(4), average_iterations=10, discard_below=0, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


# All of them


ESTIMATORS = {
    "exact": lambda game, seed=0: exact(game),
    "multilinear": lambda game, seed=0: multilinear(game, budget=64, generator=seeded(seed)),
    "algorithm1": lambda game, seed=0: run(game, discard_below=0, generator=seeded(seed)),
}


def bad_game(n: int, answer: Callable[[Tensor], Tensor]) -> Plays:
    game = Plays(n, answer)
    game.gradient = answer
    return game


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(
    ("n", "answer", "message"),
    [
        (0, lambda s: s.float().sum(1), "player"),
        (3, lambda s: torch.zeros(len(s) + 1), "shape"),
        (3, lambda s: torch.zeros(len(s), 1), "shape"),
        (3, lambda s: torch.tensor(0.5), "shape"),
    ],
    ids=["no-players", "too-long", "column", "scalar"],
)
def test_bad_games(estimator, n, answer, message):
    with pytest.raises(InputError, match=message):
        ESTIMATORS[estimator](bad_game(n, answer))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_nan(estimator):
    game = Plays(3, lambda s: torch.full((len(s),), torch.nan))
    game.gradient = lambda masks: torch.full_like(masks, torch.nan)
    with pytest.raises(InputError, match="NaN"):
        ESTIMATORS[estimator](game)


@pytest.mark.parametrize("estimator", ["multilinear", "algorithm1"])
def test_the_generator_decides(estimator):
    state = torch.get_rng_state()
    first, again, other = (ESTIMATORS[estimator](PRODUCTS, seed) for seed in (1, 1, 2))
    assert torch.equal(first.values, again.values)
    assert torch.equal(first.standard_errors, again.standard_errors)
    assert not torch.equal(first.values, other.values)
    assert torch.equal(torch.get_rng_state(), state)
