"""Gradients of the multilinear extension, their quadrature, and what refines them."""

import pytest
import torch

from games import CLOSED_FORMS, PRODUCTS, Products, close
from shapprune.errors import InputError
from shapprune.shapley import exact, multilinear
from toys import seeded


@pytest.mark.parametrize("seed", range(3))
def test_whole_integral_is_the_shapley_value(seed):
    result = multilinear(PRODUCTS, budget=4000, min_q=0, generator=seeded(seed))
    difference = (result.values - PRODUCTS.values()).abs()
    assert bool((difference <= 4 * result.standard_errors + 1e-6).all())
    assert float(difference.max()) < 0.05
    assert result.values[4] == result.standard_errors[4] == 0  # takes part in nothing
    assert result.counts.tolist() == [4000] * 5
    assert result.evaluations == 4000


def test_only_q_near_one():
    """Means of q and q² over [0.8, 1]."""
    pair, triple = Products(2, {(0, 1): 1.0}), Products(3, {(0, 1, 2): 1.0})
    values = multilinear(pair, budget=20000, min_q=0.8, generator=seeded()).values
    assert close(values, [0.9] * 2, 0.01)
    values = multilinear(triple, budget=20000, min_q=0.8, generator=seeded()).values
    assert close(values, [(1 - 0.8**3) / 0.6] * 3, 0.012)


def test_multilinear_standard_errors():
    """The gradient of a pair is a coin."""
    result = multilinear(Products(2, {(0, 1): 1.0}), budget=2500, min_q=0, generator=seeded())
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


@pytest.mark.parametrize("n", [1, 2, 5])
def test_quadrature_is_exact_on_multilinear_games(n):
    terms = {(i,): 0.3 * i + 0.1 for i in range(n)}
    terms |= {(i, i + 1): 0.5 - i for i in range(n - 1)}
    terms |= {(i, i + 1, i + 2): 0.7 for i in range(n - 2)}
    game = Products(n, terms)
    result = multilinear(game, budget=16, min_q=0, fractional=True, generator=seeded())
    assert close(result.values, game.values(), 1e-5)
    assert close(exact(game).values, game.values(), 1e-5)
    near = multilinear(game, budget=16, min_q=0.8, fractional=True, generator=seeded())
    drawn = multilinear(game, budget=20_000, min_q=0.8, generator=seeded())
    assert close(near.values, drawn.values, 0.03)


@pytest.mark.parametrize("form", CLOSED_FORMS)
def test_quadrature_is_exact_on_the_extension_of_any_small_game(form):
    game, values = CLOSED_FORMS[form]
    result = multilinear(game, budget=4, min_q=0, fractional=True, generator=seeded())
    assert close(result.values, values, 1e-5)


def test_quadrature_counts_whole_turns():
    result = multilinear(PRODUCTS, budget=50, fractional=True, generator=seeded())
    assert result.counts.tolist() == [48] * 5
    assert result.evaluations == 48
    assert close(result.standard_errors, [0.0] * 5)
    once = multilinear(PRODUCTS, budget=20, fractional=True, generator=seeded())
    assert once.standard_errors.isinf().all()


def test_turns_have_orders_of_their_own():
    """A game that spreads its images over rows must not see low q with some of them alone."""
    seen = []
    game = Products(5, PRODUCTS.terms)
    game.gradient = lambda masks: seen.append(masks[:, 0]) or torch.zeros_like(masks)
    multilinear(game, budget=32, fractional=True, generator=seeded())
    first, second = torch.cat(seen).split(16)
    assert not torch.equal(first, second)
    assert torch.equal(first.sort().values, second.sort().values)
    assert 0.6 < float(first.min()) < float(first.max()) < 1


def test_antithetic_masks_spread_less():
    """By hand, the variances given q are 1/6 / 100 and 1/24 / 50."""
    game = Products(2, {(0, 1): 1.0})

    def spread(antithetic: bool) -> float:
        runs = [
            multilinear(game, budget=100, min_q=0, antithetic=antithetic, generator=seeded(seed))
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


@pytest.mark.parametrize("factor", [0.0, -1.0])
def test_refining_without_a_common_scale_changes_nothing(factor):
    """Marginals of 0.5 and 0.3 beside gradients of nothing, or of the other sign."""
    game = Products(3, {(0,): 0.5, (1,): 0.3})
    game.gradient = lambda masks: factor * torch.tensor([0.5, 0.3, 0.2]).expand_as(masks)
    result = multilinear(game, budget=64, refine=2, generator=seeded())
    assert close(result.values, [factor * 0.5, factor * 0.3, factor * 0.2])
    assert result.counts.tolist() == [64 - 16 * 3] * 3


def test_refined_marginals_are_exact_ones_near_the_whole():
    """With gloves 0 and 1: q on average for the one, in whatever coalition it is met."""
    game = Products(6, {(0, 1): 1.0, (2,): 0.1})
    options = {"budget": 5000, "refine": 2, "contexts": 1500}
    result = multilinear(game, min_q=0.6, **options, generator=seeded())
    assert bool(((result.values[:2] - 0.8).abs() < 5 * result.standard_errors[:2]).all())
    assert float(result.standard_errors[:2].max()) < 0.02
    assert result.evaluations == 5000


@pytest.mark.parametrize(
    "options", [{"min_q": -0.1}, {"min_q": 1.1}, {"refine": -1}, {"refine": 1, "contexts": 0}]
)
def test_multilinear_refuses(options):
    with pytest.raises(InputError, match="expected"):
        multilinear(PRODUCTS, budget=64, generator=seeded(), **options)


def test_refining_needs_a_budget():
    with pytest.raises(InputError, match="leaves no gradient"):
        multilinear(PRODUCTS, budget=16, refine=3, contexts=4, generator=seeded())
