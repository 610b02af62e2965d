"""The paper's Algorithm 1: what is discarded, what is preferred, what is skipped."""

import pytest
import torch

from games import PRODUCTS, Plays, additive, by_size, close, steps, table
from shapprune.errors import InputError
from shapprune.shapley import algorithm1, exact
from toys import seeded


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


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("zeroed", [False, True])
def test_bisection_changes_the_cost_and_not_the_values(seed, zeroed):
    options = {"average_iterations": 5, "discard_below": 0.2, "zeroed": zeroed}
    plain = algorithm1(steps(), **options, generator=seeded(seed))
    bisected = algorithm1(steps(), **options, bisect=True, generator=seeded(seed))
    assert torch.equal(plain.values, bisected.values)
    assert torch.equal(plain.counts, bisected.counts)
    assert bisected.evaluations < plain.evaluations / 3


def test_bisection_keeps_the_sum_where_values_rise_again():
    """Worth 1 with 40 players or 20 and fewer, else 0.5: the ends of the walk agree."""
    game = by_size([1.0] * 21 + [0.5] * 19 + [1.0])
    options = {"average_iterations": 2, "discard_below": 0}
    plain = algorithm1(game, **options, generator=seeded())
    bisected = algorithm1(game, **options, bisect=True, generator=seeded())
    assert close(plain.values.sum(), 0.0, 1e-5)
    assert close(bisected.values.sum(), 0.0, 1e-5)
    assert bisected.evaluations < plain.evaluations


def test_zeroed_marginals_count():
    """Removing player 1 first leaves 0.1, below the threshold: player 0's marginal is zeroed."""
    worth = torch.tensor([0.0, 0.1, 0.8, 1.0])  # nobody, player 0, player 1, both
    game = Plays(2, lambda s: worth[s[:, 0] + 2 * s[:, 1].long()])
    result = algorithm1(game, average_iterations=50, zeroed=True, generator=seeded())
    assert result.counts.tolist() == [50, 50]
    assert 0.05 < float(result.values[0]) < 0.15  # 0.2 in half of the walks


def test_truncated_efficiency():
    """A walk's marginals add up to the fall from the whole to below the threshold."""
    result = algorithm1(steps(), average_iterations=3, discard_below=0.3, generator=seeded())
    walks = float((result.values * result.counts).sum())
    assert walks == pytest.approx(round(walks / 0.75) * 0.75, abs=1e-4)


def test_zeroed_marginals_leave_less_than_the_threshold():
    """Values add up to the fall from the whole to the first value below the threshold."""
    weights = torch.rand(30, generator=seeded()) / 15  # about 1 together
    game = additive(weights.tolist())
    result = algorithm1(
        game, average_iterations=4, discard_below=0.3, zeroed=True, generator=seeded()
    )
    whole = float(weights.sum())
    assert len(set(result.counts.tolist())) == 1
    assert whole - 0.3 < float(result.values.sum()) <= whole - 0.3 + float(weights.max())


@pytest.mark.parametrize("options", [{"top": 0}, {"epsilons": {}}, {"epsilons": {5: 1.5}}])
def test_algorithm1_refuses(options):
    with pytest.raises(InputError, match="expected"):
        algorithm1(PRODUCTS, generator=seeded(), **options)


def test_algorithm1_tells_how_much_of_the_budget_is_gone():
    seen = []
    algorithm1(
        steps(20), average_iterations=1e6, budget=500, generator=seeded(), progress=seen.append
    )
    assert seen == sorted(seen)
    assert seen[-1] > 0.9
