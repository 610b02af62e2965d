"""Exact Shapley values of small games (Eq. 2 of the paper)."""

from math import comb

import torch

from shapprune.errors import InputError
from shapprune.shapley.result import CountedGame, Game, ShapleyValues

_MOST_PLAYERS = 20


def exact(game: Game) -> ShapleyValues:
    """Shapley values from all 2^n coalitions.

    Raises:
        InputError: no players, or more than 20.

    >>> class Glove:  # player 0 has a left glove, players 1 and 2 a right one each
    ...     n = 3
    ...     def __call__(self, coalitions):
    ...         return (coalitions[:, 0] & coalitions[:, 1:].any(1)).float()
    >>> [round(v, 4) for v in exact(Glove()).values.tolist()]
    [0.6667, 0.1667, 0.1667]
    """
    counted = CountedGame(game)
    n = game.n
    if n > _MOST_PLAYERS:
        raise InputError(
            f"exact values need 2^n evaluations: at most {_MOST_PLAYERS} players, got {n}"
        )
    codes = torch.arange(2**n)
    coalitions = (codes[:, None] >> torch.arange(n)) & 1 == 1
    worth = torch.cat([counted(part) for part in coalitions.split(4096)])
    size = coalitions.sum(1)
    values = torch.empty(n, dtype=torch.float64)
    for player in range(n):
        without = codes[~coalitions[:, player]]
        weight = torch.tensor([1 / (n * comb(n - 1, c)) for c in range(n)], dtype=torch.float64)
        marginals = worth[without | (1 << player)] - worth[without]
        values[player] = (weight[size[without]] * marginals).sum()
    counts = torch.full((n,), 2 ** (n - 1))
    return ShapleyValues(values.float(), torch.zeros(n), counts, len(codes))
