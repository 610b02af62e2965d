"""The truncated multi-armed bandit of Neuron Shapley (Ghorbani and Zou, NeurIPS 2020)."""

from collections.abc import Callable
from math import log

import torch
from torch import Tensor

from shapprune.errors import InputError
from shapprune.shapley.result import BudgetSpent, CountedGame, Game, RunningMeans, ShapleyValues

_BLOCK = 16  # coalitions of a walk evaluated at once; what lies past the truncation is for nothing


def tmab(
    game: Game,
    *,
    budget: int,
    top: int = 50,
    delta: float = 0.05,
    truncate_below: float = 0.2,
    marginal_range: float = 1.0,
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
        budget: evaluations to spend at most; a walk that it cuts off does not count.
        top: k, how many are the best; with all players among them, the whole budget is spent.
        delta: δ, of each interval.
        truncate_below: the truncation.
        marginal_range: R, by how much marginal contributions of a player differ at most: 1 where
            values lie in [0, 1] and never rise as players go.
        generator: on the CPU.
        progress: called with the share of the budget spent.

    Returns:
        Values with ``stopped_early`` true where every player is resolved.

    Raises:
        InputError: no players, a budget too small for one walk, a game that returns a wrong shape,
            NaN or an infinite value, a whole network whose value is below the truncation.
    """
    counted = CountedGame(game, budget)
    if top < 1 or not 0 < delta < 1 or not marginal_range > 0:
        raise InputError(
            "expected top of at least 1, delta between 0 and 1, marginal_range above 0, got "
            f"{top}, {delta}, {marginal_range}"
        )
    n, running, width = game.n, RunningMeans(game.n), log(3 / delta)
    active = torch.ones(n, dtype=torch.bool)
    try:
        whole = counted.whole(truncate_below)
        while bool(active.any()):
            order = torch.randperm(n, generator=generator)
            players, marginals = _walk(counted, order, active, whole, truncate_below)
            running.add(players, marginals)
            if top < n:
                border = running.means.topk(top + 1).values[-2:].mean()
                spread = (2 * width) ** 0.5 * running.errors
                unseen = 3 * marginal_range * width / running.counts
                active &= (running.means - border).abs() <= spread + unseen
            if progress:
                progress(counted.share)
    except BudgetSpent:
        return running.result(counted.spent)
    return running.result(counted.spent, stopped_early=True)


def _walk(
    counted: CountedGame, order: Tensor, active: Tensor, whole: float, truncate_below: float
) -> tuple[Tensor, Tensor]:
    """The active players, and their marginal contributions along one permutation."""
    positions = active[order].nonzero().flatten()
    asked = torch.cat([positions, positions + 1]).unique()
    asked = asked[asked > 0]
    worth = torch.full((len(order) + 1,), -torch.inf, dtype=torch.float64)  # truncated
    worth[0] = whole
    rank = order.argsort()
    for block in asked.split(_BLOCK):
        worth[block] = counted(rank >= block[:, None])
        if bool((worth[block] < truncate_below).any()):
            break
    known = torch.cat([torch.zeros(1, dtype=torch.int64), asked])
    over = known[worth[known] < truncate_below]
    kept = positions < over[0] if len(over) else torch.ones_like(positions, dtype=torch.bool)
    marginals = torch.zeros(len(positions), dtype=torch.float64)
    marginals[kept] = (worth[positions] - worth[positions + 1])[kept]
    return order[positions], marginals
