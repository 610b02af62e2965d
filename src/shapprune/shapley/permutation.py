"""Monte-Carlo estimation over whole permutations (Eq. 3 of the paper; Castro et al. 2009)."""

from collections.abc import Callable

import torch

from shapprune.errors import InputError
from shapprune.shapley.result import CountedGame, Game, RunningMeans, ShapleyValues
from shapprune.shapley.stopping import EarlyStopping, TopSet

_BATCH_SIZE = 1024  # coalitions evaluated at once


def permutation(
    game: Game,
    *,
    budget: int,
    antithetic: bool = False,
    stop: TopSet | None = None,
    generator: torch.Generator,
    progress: Callable[[float], None] | None = None,
) -> ShapleyValues:
    """The mean marginal contribution over uniform permutations; unbiased.

    The values add up to what the whole is worth more than nobody.

    Args:
        game: any.
        budget: evaluations to spend at most.
        antithetic: walk each permutation backwards too. The standard errors are those of pairs.
        stop: ends the estimation early.
        generator: on the CPU.
        progress: called with the share of the budget spent.

    Raises:
        InputError: no players, a budget too small for one walk, a game that returns a wrong shape,
            NaN or an infinite value.
    """
    counted = CountedGame(game, budget)
    n = game.n
    walk = (n - 1) * (2 if antithetic else 1)
    if budget < 2 + walk:
        raise InputError(f"budget {budget} is too small: one walk takes {2 + walk} evaluations")
    ends = counted(torch.tensor([[True] * n, [False] * n]))
    samples = (budget - 2) // walk if walk else 2
    running, early = RunningMeans(n), EarlyStopping(stop)
    while (done := int(running.counts[0])) < samples:
        several = min(samples - done, max(1, _BATCH_SIZE // max(1, walk)), early.next - done)
        orders = torch.stack([torch.randperm(n, generator=generator) for _ in range(int(several))])
        if antithetic:
            orders = torch.cat([orders, orders.flip(1)])
        # Coalition j of a walk lacks the first j players of its order.
        present = orders.argsort(1)[:, None, :] >= torch.arange(1, n)[:, None]
        inner = counted(present.flatten(0, 1)).view(len(orders), n - 1)
        worth = torch.cat(
            [ends[:1].expand(len(orders), 1), inner, ends[1:].expand(len(orders), 1)], 1
        )
        marginals = torch.empty_like(worth[:, 1:])
        marginals.scatter_(1, orders, worth[:, :-1] - worth[:, 1:])
        if antithetic:
            marginals = (marginals[: len(orders) // 2] + marginals[len(orders) // 2 :]) / 2
        running.add_all(marginals)
        if progress:
            progress(int(running.counts[0]) / samples)
        if early.should_stop(int(running.counts[0]), running.means, running.errors, running.counts):
            return running.result(counted.spent, stopped_early=True)
    return running.result(counted.spent)
