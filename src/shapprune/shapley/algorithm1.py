"""The paper's accelerated Monte-Carlo estimation (Algorithm 1, Sec. 3.2)."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from shapprune.errors import InputError
from shapprune.shapley.result import BudgetSpent, CountedGame, Game, RunningMeans, ShapleyValues
from shapprune.shapley.stopping import EarlyStopping, TopSet

_BLOCK = 16  # coalitions of a walk evaluated at once; what lies past the threshold is thrown away
_BISECTED_BLOCK = 64


def algorithm1(
    game: Game,
    *,
    average_iterations: float = 50,
    budget: int | None = None,
    discard_below: float = 0.2,
    zeroed: bool = False,
    top: int = 50,
    explore: float = 30,
    epsilons: Mapping[float, float] | None = None,
    bisect: bool = False,
    stop: TopSet | None = None,
    generator: torch.Generator,
    progress: Callable[[float], None] | None = None,
) -> ShapleyValues:
    """Walks along permutations, removing neuron after neuron while the game's value lasts.

    Marginal contributions after the value falls below the discarding threshold are discarded,
    not set to zero. The first permutations are uniform; later ones put the neurons with the
    largest current values first, ε-greedily.

    Args:
        game: values in [0, 1], as ASR has.
        average_iterations: marginal contributions to collect, divided by the number of players
            (the paper: 50).
        budget: evaluations to spend at most; a walk that it cuts off does not count.
        discard_below: the discarding threshold t (the paper: 0.2).
        zeroed: set the marginals to zero instead, which the paper advises against.
        top: m, how many players ε-greedy prefers.
        explore: l, average iterations with uniform permutations (the paper: 30).
        epsilons: from which average iteration on which ε holds; the paper's, and the default:
            0.5 after 30, 0.3 after 40. Before the first entry the largest ε holds.
        bisect: skip the inside of a stretch of a walk with the same value at both ends, halving
            the others: the same where values never rise along a walk, at a fraction of the cost.
        stop: ends the estimation early.
        generator: on the CPU.
        progress: called with the share of the work done.

    Raises:
        InputError: no players, a budget too small for one walk, a game that returns a wrong shape,
            NaN or an infinite value, a whole network whose value is below the threshold (nothing
            could be collected).
    """
    counted = CountedGame(game, budget)
    if not average_iterations > 0:
        raise InputError(f"average_iterations must be positive, got {average_iterations}")
    schedule = {30: 0.5, 40: 0.3} if epsilons is None else epsilons
    if top < 1 or not schedule or not all(0 <= e <= 1 for e in schedule.values()):
        raise InputError(
            f"expected top of at least 1 and epsilons between 0 and 1, got {top}, {dict(schedule)}"
        )
    n = game.n
    running, early = RunningMeans(n), EarlyStopping(stop)
    try:
        whole = counted.whole(discard_below)
        while (average := int(running.counts.sum()) / n) < average_iterations:
            order = torch.randperm(n, generator=generator)
            if average > explore:
                epsilon = next(
                    (e for a, e in sorted(schedule.items())[::-1] if average > a),
                    max(schedule.values()),
                )
                order = _epsilon_greedy(order, running.means, top, epsilon, generator)
            worth = _walk(counted, order, whole, discard_below, bisect)
            # Algorithm 1, line 12: a marginal counts if the value before the removal does.
            kept = (worth[:-1] >= discard_below).long().cumprod(0).bool()
            marginals = (worth[:-1] - worth[1:])[kept]
            running.add(order[: len(marginals)], marginals)
            if zeroed:
                running.add(order[len(marginals) :], torch.zeros(n - len(marginals)).double())
            average = int(running.counts.sum()) / n
            if progress:
                progress(min(1.0, max(average / average_iterations, counted.share)))
            if early.should_stop(average, running.means, running.errors, running.counts):
                return running.result(counted.spent, stopped_early=True)
    except BudgetSpent:
        pass
    return running.result(counted.spent)


def _walk(
    counted: CountedGame, order: Tensor, whole: float, discard_below: float, bisect: bool
) -> Tensor:
    """Values along a permutation, the whole's first, until one is below the threshold or later."""
    rank = order.argsort()

    def ask(removed: Tensor) -> Tensor:
        """Values without the first so many players."""
        return counted(rank >= removed[:, None])

    worth = torch.tensor([whole], dtype=torch.float64)
    for block in torch.arange(1, len(order) + 1).split(_BISECTED_BLOCK if bisect else _BLOCK):
        values = _bisected(ask, block, worth[-1]) if bisect else ask(block)
        worth = torch.cat([worth, values])
        if bool((values < discard_below).any()):
            break
    return worth


def _bisected(ask: Callable[[Tensor], Tensor], block: Tensor, before: Tensor) -> Tensor:
    """Values at the positions of a block, from as few as its steps need."""
    first, last = int(block[0]) - 1, int(block[-1])
    found = {first: float(before), last: float(ask(block[-1:])[0])}
    open_ = [(first, last)]
    while open_:
        halves = [(a, b, (a + b) // 2) for a, b in open_ if b - a > 1 and found[a] != found[b]]
        if halves:
            middles = torch.tensor([middle for _, _, middle in halves])
            found |= dict(zip(middles.tolist(), ask(middles).tolist(), strict=True))
        open_ = [half for a, b, middle in halves for half in ((a, middle), (middle, b))]
    values, last_known = [], found[first]
    for position in block.tolist():
        last_known = found.get(position, last_known)
        values.append(last_known)
    return torch.tensor(values, dtype=torch.float64)


def _epsilon_greedy(
    order: Tensor, values: Tensor, top: int, epsilon: float, generator: torch.Generator
) -> Tensor:
    """A permutation: next one of the ``top`` best with probability 1 - ε, else one of the rest.

    Within each group the order is that of ``order``, which is random.
    """
    best = torch.zeros(len(values), dtype=torch.bool)
    best[values.topk(min(top, len(values))).indices] = True
    groups = order[best[order]].tolist(), order[~best[order]].tolist()
    others = torch.rand(len(order), generator=generator) < epsilon
    walk: list[int] = []
    for other in others.tolist():
        group = groups[other] or groups[not other]
        walk.append(group.pop())
    return torch.tensor(walk)
