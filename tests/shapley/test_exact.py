"""Exact Shapley values, the yardstick of the estimators."""

from itertools import permutations

import pytest
import torch

from games import CLOSED_FORMS, PRODUCTS, Plays, by_size, close, table
from shapprune.errors import InputError
from shapprune.shapley import exact


@pytest.mark.parametrize(
    ("game", "values"),
    [
        *(pytest.param(*CLOSED_FORMS[name], id=name) for name in CLOSED_FORMS),
        pytest.param(
            Plays(4, lambda s: torch.minimum(s[:, :2].sum(1), s[:, 2:].sum(1)).float()),
            [1 / 2] * 4,
            id="two-pairs-of-gloves",
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


@pytest.mark.parametrize(
    ("n", "answer", "message"),
    [
        (0, lambda s: s.float().sum(1), "player"),
        (3, lambda s: torch.zeros(len(s) + 1), "shape"),
        (3, lambda s: torch.full((len(s),), torch.nan), "NaN"),
        (3, lambda s: torch.full((len(s),), torch.inf), "infinite"),
    ],
)
def test_bad_games(n, answer, message):
    with pytest.raises(InputError, match=message):
        exact(Plays(n, answer))
