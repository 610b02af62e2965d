"""The truncated multi-armed bandit of Neuron Shapley (Ghorbani and Zou, NeurIPS 2020)."""

from collections.abc import Callable
from math import log

import torch
from torch import Tensor

from shapprune.errors import InputError
from shapprune.shapley.result import BudgetSpent, Game, Meter, ShapleyValues, Tally

_BLOCK = 16  # coalitions of a walk evaluated at once; what lies past the truncation is for nothing


def tmab(
    game: Game,
    *,
    budget: int,
    top: int = 50,
    delta: float = 0.05,
    truncate_below: float = 0.2,
    largest_marginal: float = 1.0,
    generator: torch.Generator,
    progress: Callable[[float], None] | None = None,
) -> ShapleyValues:
    """Samples only players of which it is open whether they are among the best.

    Walks along uniform permutations, removing player after player; once the value is below the
    truncation, the marginals of the rest count as zero. A player is resolved, and no more sampled,
    when its confidence interval excludes the border halfway between the k-th best and the next
    (not the k-th best itself, as in the paper, which would never be resolved). The intervals are
    empirical Bernstein ones (Audibert et al. 2009): √(2 V ln(3/δ) / t) + 3 R ln(3/δ) / t for t
    samples with variance V and range R. Players that are not sampled are removed in passing.

    Args:
        game: any.
        budget: evaluations to spend at most.
        top: k, how many are the best.
        delta: δ, of each interval.
        truncate_below: the truncation.
        largest_marginal: R, which no marginal contribution exceeds.
        generator: on the CPU.
        progress: called with the share of the budget spent.

    Returns:
        Values with ``settled`` true where every player is resolved.

    Raises:
        InputError: no players, a negative budget, a game that returns a wrong shape or NaN.
    """
    meter = Meter(game, budget)
    if top < 1 or not 0 < delta < 1 or not largest_marginal > 0:
        raise InputError(
            "expected top of at least 1, delta between 0 and 1, largest_marginal above 0, got "
            f"{top}, {delta}, {largest_marginal}"
        )
    n, tally, width = game.n, Tally(game.n), log(3 / delta)
    active = torch.ones(n, dtype=torch.bool)
    try:
        whole = float(meter(torch.ones(1, n, dtype=torch.bool))[0])
        while bool(active.any()):
            order = torch.randperm(n, generator=generator)
            players, marginals = _walk(meter, order, active, whole, truncate_below)
            tally.add(players, marginals)
            times = tally.counts.clamp(min=1)
            bounds = (2 * tally.variances * width / times).sqrt() + (
                3 * largest_marginal * width / times
            )
            if top >= n:
                break
            border = tally.means.topk(top + 1).values[-2:].mean()
            active &= (tally.means - border).abs() <= bounds
            if progress:
                progress(meter.spent / budget)
    except BudgetSpent:
        return tally.result(meter.spent)
    return tally.result(meter.spent, settled=True)


def _walk(
    meter: Meter, order: Tensor, active: Tensor, whole: float, truncate_below: float
) -> tuple[Tensor, Tensor]:
    """The active players, and their marginal contributions along one permutation."""
    positions = active[order].nonzero().flatten()
    asked = torch.cat([positions, positions + 1]).unique()
    asked = asked[asked > 0]
    worth = torch.full((len(order) + 1,), -torch.inf, dtype=torch.float64)  # truncated
    worth[0] = whole
    rank = order.argsort()
    for block in asked.split(_BLOCK):
        worth[block] = meter(rank >= block[:, None])
        if bool((worth[block] < truncate_below).any()):
            break
    known = torch.cat([torch.zeros(1, dtype=torch.int64), asked])
    over = known[worth[known] < truncate_below]
    kept = positions < over[0] if len(over) else torch.ones_like(positions, dtype=torch.bool)
    marginals = torch.zeros(len(positions), dtype=torch.float64)
    marginals[kept] = (worth[positions] - worth[positions + 1])[kept]
    return order[positions], marginals
