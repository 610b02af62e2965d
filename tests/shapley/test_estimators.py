"""Estimators of Shapley values beside exact ones: unbiased, in budget, whatever the batches."""

import sys
from math import log
from statistics import NormalDist

import pytest
import torch

from games import CLOSED_FORMS, PRODUCTS, Extended, Plays, Products, additive, by_size, close, table
from shapprune.errors import InputError
from shapprune.shapley import algorithm1, multilinear, permutation, tmab
from toys import seeded

ESTIMATORS = {
    "permutation": lambda game, seed, budget, **options: permutation(
        game, budget=budget, generator=seeded(seed), **options
    ),
    "antithetic": lambda game, seed, budget, **options: permutation(
        game, budget=budget, antithetic=True, generator=seeded(seed), **options
    ),
    "algorithm1": lambda game, seed, budget, **options: algorithm1(
        game,
        budget=budget,
        average_iterations=1e9,
        explore=1e9,
        discard_below=-1e9,
        generator=seeded(seed),
        **options,
    ),
    "tmab": lambda game, seed, budget, **options: tmab(
        game,
        budget=budget,
        top=1,
        truncate_below=-1e9,
        marginal_range=1e9,
        generator=seeded(seed),
        **options,
    ),
    "multilinear": lambda game, seed, budget, **options: multilinear(
        game, budget=budget, min_q=0, generator=seeded(seed), **options
    ),
    "antithetic-multilinear": lambda game, seed, budget, **options: multilinear(
        game, budget=budget, min_q=0, antithetic=True, generator=seeded(seed), **options
    ),
}
every_estimator = pytest.mark.parametrize("name", ESTIMATORS)


@every_estimator
@pytest.mark.parametrize("form", CLOSED_FORMS)
def test_closed_forms(name, form):
    game, values = CLOSED_FORMS[form]
    result = ESTIMATORS[name](game, 0, 500 * game.n)
    difference = (result.values - torch.tensor(values)).abs()
    assert bool((difference <= 5 * result.standard_errors + 1e-6).all())
    assert float(result.standard_errors.max()) < 0.12


@every_estimator
@pytest.mark.parametrize("form", ["one-player", "additive"])
def test_values_are_exact_where_marginals_never_vary(name, form):
    game, values = CLOSED_FORMS[form]
    assert close(ESTIMATORS[name](game, 0, 500 * game.n).values, values)


@every_estimator
def test_null_and_symmetric_players(name):
    game = Extended(5, lambda s: (s[:, 0] & (s[:, 1] | s[:, 2])).float() + 0.5 * s[:, 3])
    values = ESTIMATORS[name](game, 0, 6000).values
    assert values[4] == 0
    assert close(values[1], values[2], 0.05)
    assert close(values[3], 0.5)


@every_estimator
def test_unbiased(name):
    """The mean of 150 runs with few evaluations. A false alarm once in 10⁶ sound versions."""
    runs = [ESTIMATORS[name](PRODUCTS, seed, 22).values.double() for seed in range(150)]
    found = torch.stack(runs)
    z = NormalDist().inv_cdf(1 - 1e-6 / 2 / 5)
    error = found.std(0) / 150**0.5
    truth = PRODUCTS.values().double()
    assert bool(((found.mean(0) - truth).abs() <= z * error + 1e-6).all())
    assert float(found.std(0).max()) > 0.01  # else a biased estimator could hide behind no spread


@every_estimator
def test_standard_errors_tell_the_spread_of_runs(name):
    runs = [ESTIMATORS[name](PRODUCTS, seed, 82) for seed in range(200)]
    spread = torch.stack([run.values for run in runs]).std(0)
    told = torch.stack([run.standard_errors for run in runs]).mean(0)
    ratio = (told / spread)[:4]
    # Multilinear's errors are bounds: they leave out the stratification.
    most = {"multilinear": 2, "antithetic-multilinear": 3}.get(name, 1.25)
    assert bool(((ratio > 0.8) & (ratio < most)).all())
    assert told[4] == spread[4] == 0


@pytest.mark.parametrize("budget", [6, 7])
def test_a_budget_below_two_walks_is_too_small_for_pairs(budget):
    with pytest.raises(InputError, match="too small"):
        ESTIMATORS["antithetic"](Products(5, PRODUCTS.terms), 0, budget)


@pytest.mark.parametrize(
    ("name", "budget"),
    [(n, b) for n in ESTIMATORS for b in (6, 7, 23, 50, 100) if b > 9 or n != "antithetic"],
)
def test_the_budget_is_kept(name, budget):
    game = Products(5, PRODUCTS.terms)
    asked = []
    game.worth = lambda x: asked.append(len(x)) or PRODUCTS.worth(x)
    gradient = game.gradient
    game.gradient = lambda x: asked.append(len(x)) or gradient(x)
    result = ESTIMATORS[name](game, 0, budget)
    assert result.evaluations == sum(asked) <= budget


@every_estimator
def test_the_generator_decides(name):
    state = torch.get_rng_state()
    first, again, other = (ESTIMATORS[name](PRODUCTS, seed, 60) for seed in (1, 1, 2))
    assert torch.equal(first.values, again.values)
    assert torch.equal(first.standard_errors, again.standard_errors)
    assert not torch.equal(first.values, other.values)
    assert torch.equal(torch.get_rng_state(), state)


@every_estimator
def test_progress(name):
    seen = []
    ESTIMATORS[name](PRODUCTS, 0, 101, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1


@every_estimator
@pytest.mark.parametrize(
    ("n", "budget", "answer", "message"),
    [
        (0, 99, lambda s: s.float().sum(1), "player"),
        (3, -1, lambda s: s.float().sum(1), "budget"),
        (3, 99, lambda s: torch.zeros(len(s) + 1), "shape"),
        (3, 99, lambda s: torch.zeros(len(s), 1), "shape"),
        (3, 99, lambda s: torch.tensor(0.5), "shape"),
        (3, 99, lambda s: torch.full(s.shape, torch.nan), "shape|NaN"),
        (3, 99, lambda s: torch.full((len(s),), torch.nan), "shape|NaN"),
        (3, 99, lambda s: torch.full((len(s),), torch.inf), "shape|infinite"),
        (3, 99, lambda s: torch.where(s.all(1), torch.nan, 1.0), "shape|NaN"),
        (3, 99, lambda s: torch.where(s > 0, torch.nan, 1.0), "shape|NaN"),
        (3, 99, lambda s: torch.full(s.shape, -torch.inf), "shape|infinite"),
    ],
)
def test_bad_games(name, n, budget, answer, message):
    game = Plays(n, answer)
    game.gradient = answer
    with pytest.raises(InputError, match=message):
        ESTIMATORS[name](game, 0, budget)


@every_estimator
def test_the_game_may_batch_as_it_likes(name):
    whole = ESTIMATORS[name](PRODUCTS, 0, 100)
    single = Products(5, PRODUCTS.terms)
    single.worth = lambda x: torch.cat([PRODUCTS.worth(row) for row in x.split(1)])
    single.gradient = lambda x: torch.cat([PRODUCTS.gradient(row) for row in x.split(1)])
    found = ESTIMATORS[name](single, 0, 100)
    assert close(found.values, whole.values)
    assert found.counts.tolist() == whole.counts.tolist()


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("permutation", "_BATCH_SIZE"),
        ("antithetic", "_BATCH_SIZE"),
        ("algorithm1", "_BLOCK"),
        ("tmab", "_BLOCK"),
    ],
)
def test_batches_do_not_matter(name, size, monkeypatch):
    """The budget is that of 42 walks and the whole: none is cut off."""
    game = table(7)
    usual = ESTIMATORS[name](game, 0, 295)
    module = sys.modules[f"shapprune.shapley.{'permutation' if name == 'antithetic' else name}"]
    for other in (1, 3):
        monkeypatch.setattr(module, size, other)
        found = ESTIMATORS[name](game, 0, 295)
        assert torch.equal(found.values, usual.values)
        assert found.evaluations == usual.evaluations


@pytest.mark.parametrize("n", [1, 2])
@every_estimator
def test_no_game_is_asked_about_nothing(name, n):
    game = Extended(n, lambda s: s.float().sum(1))
    sizes = []
    game.worth = lambda s: sizes.append(len(s)) or s.float().sum(1)
    game.gradient = lambda masks: sizes.append(len(masks)) or torch.ones_like(masks)
    ESTIMATORS[name](game, 0, 20)
    assert min(sizes) > 0


@pytest.mark.parametrize("name", ["algorithm1", "tmab"])
@pytest.mark.parametrize("budget", [0, 1, 5])
def test_a_budget_that_ends_within_the_first_walk(name, budget):
    with pytest.raises(InputError, match="within one walk"):
        ESTIMATORS[name](PRODUCTS, 0, budget)


# Permutation


@pytest.mark.parametrize("antithetic", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_permutations_give_away_what_the_whole_is_worth(n, antithetic):
    game = table(n)
    result = permutation(game, budget=100, antithetic=antithetic, generator=seeded())
    ends = game(torch.tensor([[True] * n, [False] * n]))
    assert close(result.values.sum(), ends[0] - ends[1], 1e-5)


def test_pairs_of_permutations_are_exact_for_pairs_of_players():
    """Walked both ways, each of two players comes before the other once."""
    game = Products(4, {(0,): 0.2, (0, 1): 0.5, (1, 3): -0.7, (2, 3): 1.0})
    result = permutation(game, budget=50, antithetic=True, generator=seeded())
    assert close(result.values, game.values())
    assert close(result.standard_errors, [0.0] * 4, 1e-6)


def test_one_walk_too_many():
    with pytest.raises(InputError, match="takes 6 evaluations"):
        permutation(PRODUCTS, budget=5, generator=seeded())


# T-MAB


def test_tmab_bounds_are_empirical_bernstein():
    """Two players: their values are as far from the border, and their samples spread as much.

    What removing player 0 costs is 1.5 with player 1 there and 0.5 without; player 1's, 1 and 0.
    """
    game = Plays(2, lambda s: s.all(1).float() + 0.5 * s[:, 0])
    result = tmab(
        game,
        budget=10_000,
        top=1,
        delta=0.1,
        truncate_below=-1,
        marginal_range=2,
        generator=seeded(),
    )
    assert result.stopped_early
    rows = torch.cat(game.asked[1:])
    late = 1.0 * rows[~rows.all(1) & rows.any(1)][:, 0]  # player 0 still there: 1 leaves first
    lost = torch.stack([1.5 - late, late], 1)
    t = torch.arange(1, len(lost) + 1)[:, None]
    means = lost.cumsum(0) / t
    variances = (lost**2).cumsum(0) / t - means**2
    variances *= t / (t - 1).clamp(min=1)
    bounds = (2 * variances * log(30) / t).sqrt() + 3 * 2 * log(30) / t
    gap = (means[:, 0] - means[:, 1]).abs()
    resolved = (gap / 2 > bounds[:, 0]) & (t[:, 0] > 1)
    assert int(resolved.nonzero()[0]) + 1 == len(lost) == int(result.counts[0])


def test_tmab_of_all_players_spends_the_budget():
    result = tmab(table(6), budget=200, truncate_below=-1, generator=seeded())
    assert not result.stopped_early
    assert result.evaluations > 190
    assert result.counts.tolist() == [33] * 6


def test_tmab_tells_a_game_that_is_lost_from_the_start():
    with pytest.raises(InputError, match="threshold"):
        tmab(by_size([0.0, 0.05, 0.1]), budget=50, top=1, generator=seeded())


def test_tmab_resolves_the_best_and_leaves_the_rest():
    game = additive([0.4, 0.3, 0.2] + [0.0] * 27)
    result = tmab(game, budget=20_000, top=2, truncate_below=-1, generator=seeded())
    assert result.stopped_early
    assert result.values.topk(2).indices.tolist() == [0, 1]
    assert int(result.counts[3:].max()) < 0.3 * int(result.counts[1])
    assert result.evaluations < 0.5 * 30 * int(result.counts.max())


def test_tmab_truncates_with_zeros():
    """Players 0 and 1 are worth 0.5 each: the second that goes leaves nothing to the rest."""
    game = additive([0.5, 0.5] + [0.0] * 8)
    result = tmab(game, budget=400, top=2, truncate_below=0.6, generator=seeded())
    assert len(set(result.counts.tolist())) == 1
    assert close(result.values[:2].sum(), 0.5, 1e-5)  # the first that goes, in every walk
    assert close(result.values[2:], [0.0] * 8)


def test_tmab_walks_past_resolved_players():
    """Of 40 players only two are close to each other; the walks end with those two alone."""
    noisy = Plays(40, lambda s: 0.3 * s[:, 0] + 0.3 * s[:, 1] + 0.4 * (s[:, 2] & s[:, 3]))
    result = tmab(noisy, budget=4000, top=1, truncate_below=-1, generator=seeded())
    assert not result.stopped_early
    assert result.counts[:4].tolist() > result.counts[4:8].tolist()
    assert result.evaluations > 3900


@pytest.mark.parametrize("options", [{"top": 0}, {"delta": 1}, {"marginal_range": 0}])
def test_tmab_refuses(options):
    with pytest.raises(InputError, match="expected"):
        tmab(PRODUCTS, budget=100, generator=seeded(), **options)
