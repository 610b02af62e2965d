"""The paper's accelerated Monte-Carlo estimation (Algorithm 1, Sec. 3.2)."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from shapprune.errors import InputError
from shapprune.shapley.result import Game, ShapleyValues, check_players, evaluate

_BLOCK = 16  # coalitions of a walk evaluated at once; what lies past the threshold is thrown away


def algorithm1(
    game: Game,
    *,
    average_iterations: float = 50,
    discard_below: float = 0.2,
    top: int = 50,
    explore: float = 30,
    epsilons: Mapping[float, float] | None = None,
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
        discard_below: the discarding threshold t (the paper: 0.2).
        top: m, how many players ε-greedy prefers.
        explore: l, average iterations with uniform permutations (the paper: 30).
        epsilons: from which average iteration on which ε holds; the paper's, and the default:
            0.5 after 30, 0.3 after 40. Before the first entry the largest ε holds.
        generator: on the CPU.
        progress: called with the share of the work done.

    Raises:
        InputError: no players, a game that returns a wrong shape or NaN, a full network whose
            value is below the threshold (nothing could be collected).
    """
    check_players(game)
    if not average_iterations > 0:
        raise InputError(f"average_iterations must be positive, got {average_iterations}")
    n = game.n
    schedule = {30: 0.5, 40: 0.3} if epsilons is None else epsilons
    total = torch.zeros(n, dtype=torch.float64)
    squares = torch.zeros(n, dtype=torch.float64)
    counts = torch.zeros(n, dtype=torch.int64)
    whole = float(evaluate(game, torch.ones(1, n, dtype=torch.bool))[0])
    if whole < discard_below:
        raise InputError(
            f"the whole network's value {whole:.3f} is below the discarding threshold "
            f"{discard_below}: nothing to attribute"
        )
    evaluations = 1
    while (average := int(counts.sum()) / n) < average_iterations:
        order = torch.randperm(n, generator=generator)
        if average > explore:
            epsilon = next(
                (e for a, e in sorted(schedule.items())[::-1] if average > a),
                max(schedule.values()),
            )
            values = torch.where(counts > 0, total / counts.clamp(min=1), 0.0)
            order = _epsilon_greedy(order, values, top, epsilon, generator)
        before = whole
        for block in order.split(_BLOCK):
            removed = torch.zeros(n, dtype=torch.bool)
            removed[order[: int((order == block[0]).nonzero())]] = True
            steps = torch.stack(
                [removed.index_fill(0, block[: j + 1], True) for j in range(len(block))]
            )
            after = evaluate(game, ~steps)
            evaluations += len(block)
            # Algorithm 1, line 12: a marginal counts if the value before the removal does.
            previous = torch.cat([torch.tensor([before]), after[:-1]])
            kept = (previous >= discard_below).long().cumprod(0).bool()
            marginals = (previous - after)[kept].double()
            total[block[kept]] += marginals
            squares[block[kept]] += marginals**2
            counts[block[kept]] += 1
            before = float(after[-1])
            if not bool(kept.all()):
                break
        if progress:
            progress(min(1.0, int(counts.sum()) / n / average_iterations))
    mean = total / counts.clamp(min=1)
    variance = (squares / counts.clamp(min=1) - mean**2).clamp(min=0) * counts / (counts - 1)
    errors = torch.where(counts > 1, (variance / counts).sqrt(), torch.inf)
    return ShapleyValues(mean.float(), errors.float(), counts, evaluations)


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
