"""Shapley values from gradients of the game's multilinear extension.

The multilinear extension F(q) of a game is its expected value when every player joins on its own
with probability q; a player's Shapley value is the integral of dF/dq_i over q from 0 to 1 (Owen,
1972). One gradient samples the derivative for all players at once, so that the cost does not grow
with their number. As the paper's Sec. 3.2 has it, what counts is the neighbourhood of the whole
network, where its performance is normal: q is drawn near 1. From 0.6 on, the estimate comes nearest
to long runs of the paper's Algorithm 1 (docs/shapley.md).
"""

from collections.abc import Callable
from math import inf

import torch
from numpy.polynomial import legendre
from torch import Tensor

from shapprune.errors import InputError
from shapprune.shapley.result import CountedGame, DifferentiableGame, ShapleyValues
from shapprune.shapley.stopping import EarlyStopping, TopSet

_NODES = 16  # of the quadrature


def multilinear(
    game: DifferentiableGame,
    *,
    budget: int = 512,
    min_q: float = 0.6,
    antithetic: bool = False,
    fractional: bool = False,
    refine: int = 0,
    contexts: int = 16,
    stop: TopSet | None = None,
    generator: torch.Generator,
    progress: Callable[[float], None] | None = None,
) -> ShapleyValues:
    """First-order estimate: the mean gradient over random coalitions near the whole.

    Each gradient draws q uniformly from [min_q, 1], stratified over the gradients, and a
    coalition that holds each player with probability q. The standard errors leave the
    stratification out, and so are upper bounds.

    Args:
        budget: gradients and evaluations to spend; both count as one.
        min_q: the smallest q; 0 gives the whole integral.
        antithetic: draw coalitions in pairs, from u and 1 - u for the same q.
        fractional: no coalitions, but masks that hold q of every player, at Gauss-Legendre points:
            exact where the game is a polynomial that is linear in every player, and for a network
            the gradient along the straight path to it. Up to 16 points, turn after turn through
            them: `NeuronGame` plays each gradient on another image. Standard errors are those
            between turns.
        refine: so many of the best get the mean of exact marginal contributions instead, in
            coalitions near the whole as above. The gradients of the others are brought to the
            same scale, on which the refined ones add up to the same; where the two sums do not
            have the same sign, there is none, and the gradients stay as they are.
        contexts: coalitions for ``refine``, each of which costs 1 + refine evaluations.
        stop: ends the gradients early. They are asked for from look to look, so that a game which
            spreads its images over the gradients of a call, as `NeuronGame` does, should have no
            more than the first look has gradients.
        generator: on the CPU.
        progress: called with the share of the work done.

    Raises:
        InputError: no players, a budget that leaves no gradient, a game that returns a wrong
            shape, NaN or an infinite value.
    """
    counted = CountedGame(game, budget)
    if not 0 <= min_q <= 1 or refine < 0 or contexts < 1:
        raise InputError(
            "expected min_q between 0 and 1, refine not negative, contexts of at least 1, got "
            f"{min_q}, {refine}, {contexts}"
        )
    n = game.n
    best = min(refine, n)
    gradients = budget - (contexts * (1 + best) if best else 0)
    if gradients < 1:
        raise InputError(f"budget {budget} leaves no gradient: expected {budget - gradients + 1}")
    if fractional:
        q, weights, group = _turns(gradients, min_q, generator)
        masks = q[:, None].expand(-1, n)
    else:
        masks = _coalitions(gradients, n, min_q, antithetic, generator)
        weights, group = torch.ones(gradients), 2 if antithetic else 1
    early, stopped_early = EarlyStopping(stop), False
    slopes = torch.empty(0, n, dtype=torch.float64)
    while len(slopes) < len(masks) and not stopped_early:
        few = slice(len(slopes), int(min(early.next, len(masks))))
        slopes = torch.cat([slopes, counted.gradient(masks[few].float()) * weights[few, None]])
        values, errors = _mean(slopes, group)
        samples = torch.full((n,), len(slopes) // group)
        stopped_early = early.should_stop(len(slopes), values, errors, samples)
    counts = torch.full((n,), len(slopes))
    if progress:
        progress(gradients / budget)
    if best:
        chosen = values.topk(best).indices
        around = _coalitions(contexts, n, min_q, False, generator)
        marginals = _marginals(counted, around, chosen)
        mean, error = _mean(marginals, 1)
        scale = float(mean.sum() / values[chosen].sum())
        if 0 < scale < inf:
            values, errors = values * scale, errors * scale
            values[chosen], errors[chosen], counts[chosen] = mean, error, contexts
        if progress:
            progress(1.0)
    return ShapleyValues(values.float(), errors.float(), counts, counted.spent, stopped_early)


def _coalitions(
    number: int, n: int, min_q: float, antithetic: bool, generator: torch.Generator
) -> Tensor:
    """Random coalitions, bool (number, n), with q stratified."""
    draws = -(-number // 2) if antithetic else number
    position = torch.randperm(draws, generator=generator) + torch.rand(draws, generator=generator)
    q = min_q + (1 - min_q) * position / draws
    u = torch.rand(draws, n, generator=generator)
    if not antithetic:
        return u < q[:, None]
    return torch.stack([u < q[:, None], 1 - u < q[:, None]], 1).flatten(0, 1)[:number]


def _mean(samples: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """Mean and standard error of samples (b, n), of which so many after another are one draw."""
    draws = samples[: len(samples) // group * group].unflatten(0, (-1, group)).mean(1)
    if len(draws) < 2:
        return samples.mean(0), torch.full(samples.shape[1:], torch.inf)
    return samples.mean(0), draws.std(0) / len(draws) ** 0.5


def _turns(gradients: int, min_q: float, generator: torch.Generator) -> tuple[Tensor, Tensor, int]:
    """Turns through the points of a quadrature: their q, their weights, and the length of a turn.

    Each turn has an order of its own, or the same points could meet the same images.
    """
    points, shares = (torch.from_numpy(a) for a in legendre.leggauss(min(_NODES, gradients)))
    length = len(points)
    turns = range(gradients // length)
    order = torch.cat([torch.randperm(length, generator=generator) for _ in turns])
    return min_q + (1 - min_q) * (points[order] + 1) / 2, shares[order] / 2 * length, length


def _marginals(counted: CountedGame, around: Tensor, chosen: Tensor) -> Tensor:
    """Marginal contributions (contexts, k) of the chosen players to coalitions (contexts, n)."""
    turned = around[:, None, :].repeat(1, len(chosen), 1)
    turned[:, torch.arange(len(chosen)), chosen] ^= True
    asked = torch.cat([around[:, None, :], turned], 1)
    worth = counted(asked.flatten(0, 1)).view(len(around), -1)
    change = worth[:, :1] - worth[:, 1:]
    return torch.where(around[:, chosen], change, -change)
