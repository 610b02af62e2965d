"""Estimators of Shapley values beside exact ones: unbiased, in budget, told when to stop."""

from statistics import NormalDist

import pytest
import torch

from games import CLOSED_FORMS, PRODUCTS, Plays, Products, additive, by_size, close, table
from shapprune.errors import InputError
from shapprune.shapley import TopSet, algorithm1, exact, multilinear, permutation, tmab
from toys import seeded


def steps(n: int = 200, seed: int = 0) -> Plays:
    """As ASR is: flat until the key players are gone, and never more for fewer players."""
    keys = torch.randperm(n, generator=seeded(seed))[:8]
    return Plays(n, lambda s: (s[:, keys].sum(1) / 2).floor() / 4)


ESTIMATORS = {
    "permutation": lambda game, seed, budget: permutation(
        game, budget=budget, generator=seeded(seed)
    ),
    "antithetic": lambda game, seed, budget: permutation(
        game, budget=budget, antithetic=True, generator=seeded(seed)
    ),
    "algorithm1": lambda game, seed, budget: algorithm1(
        game,
        budget=budget,
        average_iterations=1e9,
        explore=1e9,
        discard_below=-1e9,
        generator=seeded(seed),
    ),
    "tmab": lambda game, seed, budget: tmab(
        game,
        budget=budget,
        top=1,
        truncate_below=-1e9,
        marginal_range=1e9,
        generator=seeded(seed),
    ),
    "multilinear": lambda game, seed, budget: multilinear(
        game, budget=budget, lowest=0, generator=seeded(seed)
    ),
    "antithetic-multilinear": lambda game, seed, budget: multilinear(
        game, budget=budget, lowest=0, antithetic=True, generator=seeded(seed)
    ),
}
SAMPLERS = [name for name in ESTIMATORS if "multilinear" not in name]
every_sampler = pytest.mark.parametrize("name", SAMPLERS)
every_estimator = pytest.mark.parametrize("name", ESTIMATORS)


@every_sampler
@pytest.mark.parametrize("form", CLOSED_FORMS)
def test_closed_forms(name, form):
    game, values = CLOSED_FORMS[form]
    assert close(ESTIMATORS[name](game, 0, 8000).values, values, 0.09)


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
    assert bool((ratio > 0.8).all())
    if "multilinear" not in name:  # its errors are bounds: they leave out the stratification
        assert bool((ratio < 1.25).all())
    assert told[4] == spread[4] == 0


@every_estimator
@pytest.mark.parametrize("budget", [6, 7, 23, 50, 100])
def test_the_budget_is_kept(name, budget):
    game = Products(5, PRODUCTS.terms)
    asked = []
    game.worth = lambda x: asked.append(len(x)) or PRODUCTS.worth(x)
    gradient = game.gradient
    game.gradient = lambda x: asked.append(len(x)) or gradient(x)
    if name == "antithetic" and budget < 10:
        with pytest.raises(InputError, match="too small"):
            ESTIMATORS[name](game, 0, budget)
        return
    result = ESTIMATORS[name](game, 0, budget)
    assert result.evaluations == sum(asked) <= budget


@every_estimator
def test_the_generator_decides(name):
    state = torch.get_rng_state()
    first, again, other = (ESTIMATORS[name](PRODUCTS, seed, 60) for seed in (1, 1, 2))
    assert torch.equal(first.values, again.values)
    assert not torch.equal(first.values, other.values)
    assert torch.equal(torch.get_rng_state(), state)


@every_estimator
@pytest.mark.parametrize(
    ("n", "budget", "answer", "message"),
    [
        (0, 99, lambda s: s.float().sum(1), "player"),
        (3, -1, lambda s: s.float().sum(1), "budget"),
        (3, 99, lambda s: torch.zeros(len(s) + 1), "shape"),
        (3, 99, lambda s: torch.full(s.shape, torch.nan), "shape|NaN"),
        (3, 99, lambda s: torch.full((len(s),), torch.nan), "shape|NaN"),
    ],
)
def test_bad_games(name, n, budget, answer, message):
    game = Plays(n, answer)
    game.gradient = answer
    with pytest.raises(InputError, match=message):
        ESTIMATORS[name](game, 0, budget)


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


def test_null_and_symmetric_players():
    game = Plays(5, lambda s: (s[:, 0] & (s[:, 1] | s[:, 2])).float() + 0.5 * s[:, 3])
    values = permutation(game, budget=6000, generator=seeded()).values
    assert values[4] == 0
    assert close(values[1], values[2], 0.05)
    assert close(values[3], 0.5)


def test_one_walk_too_many():
    with pytest.raises(InputError, match="takes 6 evaluations"):
        permutation(PRODUCTS, budget=5, generator=seeded())


# Algorithm 1


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


# T-MAB


def test_tmab_resolves_the_best_and_leaves_the_rest():
    game = additive([0.4, 0.3, 0.2] + [0.0] * 27)
    result = tmab(game, budget=20_000, top=2, truncate_below=-1, generator=seeded())
    assert result.settled
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
    assert not result.settled
    assert result.counts[:4].tolist() > result.counts[4:8].tolist()
    assert result.evaluations > 3900


@pytest.mark.parametrize("options", [{"top": 0}, {"delta": 1}, {"marginal_range": 0}])
def test_tmab_refuses(options):
    with pytest.raises(InputError, match="expected"):
        tmab(PRODUCTS, budget=100, generator=seeded(), **options)


# Multilinear


@pytest.mark.parametrize("n", [1, 2, 5])
def test_quadrature_is_exact_on_multilinear_games(n):
    terms = {(i,): 0.3 * i + 0.1 for i in range(n)}
    terms |= {(i, i + 1): 0.5 - i for i in range(n - 1)}
    terms |= {(i, i + 1, i + 2): 0.7 for i in range(n - 2)}
    game = Products(n, terms)
    result = multilinear(game, budget=16, lowest=0, fractional=True, generator=seeded())
    assert close(result.values, game.values(), 1e-5)
    assert close(exact(game).values, game.values(), 1e-5)
    near = multilinear(game, budget=16, lowest=0.8, fractional=True, generator=seeded())
    drawn = multilinear(game, budget=20_000, lowest=0.8, generator=seeded())
    assert close(near.values, drawn.values, 0.03)


def test_antithetic_masks_spread_less():
    """By hand, the variances given q are 1/6 / 100 and 1/24 / 50."""
    game = Products(2, {(0, 1): 1.0})

    def spread(antithetic: bool) -> float:
        runs = [
            multilinear(game, budget=100, lowest=0, antithetic=antithetic, generator=seeded(seed))
            for seed in range(300)
        ]
        return float(torch.stack([run.values for run in runs]).var(0).mean())

    assert spread(False) == pytest.approx(1 / 600, rel=0.2)
    assert spread(True) == pytest.approx(1 / 1200, rel=0.2)


class Misleading(Products):
    """Its gradient praises player 2 over player 1, and is twice too large."""

    def gradient(self, masks):
        return 2 * super().gradient(masks)[:, [0, 2, 1, 3, 4]]


def test_refining_puts_candidates_right():
    game = Misleading(5, {(0,): 0.5, (1,): 0.3, (2,): 0.2, (3,): 0.05})
    plain = multilinear(game, budget=32, generator=seeded())
    assert plain.values.argsort(descending=True).tolist()[:3] == [0, 2, 1]
    refined = multilinear(game, budget=32, refine=3, contexts=4, generator=seeded())
    assert close(refined.values, [0.5, 0.3, 0.2, 0.05, 0.0], 1e-5)
    assert refined.counts.tolist() == [4, 4, 4, 16, 16]
    assert refined.evaluations == 32


def test_refining_needs_a_budget():
    with pytest.raises(InputError, match="leaves no gradient"):
        multilinear(PRODUCTS, budget=16, refine=3, contexts=4, generator=seeded())


# Stopping


def noisy(weights: list[float]) -> Plays:
    """Additive, and a large pair term that makes two players vary."""
    w = torch.tensor(weights)
    return Plays(len(weights), lambda s: s.float() @ w + 0.5 * (s[:, 0] & s[:, 1]))


@pytest.mark.parametrize("options", [(0,), (2, 0), (2, 1), (2, 0.05, -1)])
def test_top_set_refuses(options):
    with pytest.raises(InputError):
        TopSet(*options)
