"""Shapley values from gradients of the game's multilinear extension.

The multilinear extension F(q) of a game is its expected value when every player joins on its own
with probability q; a player's Shapley value is the integral of dF/dq_i over q from 0 to 1 (Owen,
1972). One gradient samples the derivative for all players at once, so that the cost does not grow
with their number. As the paper's Sec. 3.2 has it, what counts is the neighbourhood of the whole
network, where its performance is normal: q is drawn near 1.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from shapprune.errors import InputError
from shapprune.shapley.result import DifferentiableGame, Meter, ShapleyValues

_NODES = 16  # of the quadrature


def multilinear(
    game: DifferentiableGame,
    *,
    budget: int = 512,
    lowest: float = 0.8,
    antithetic: bool = False,
    fractional: bool = False,
    refine: int = 0,
    contexts: int = 16,
    generator: torch.Generator,
    progress: Callable[[float], None] | None = None,
) -> ShapleyValues:
    """First-order estimate: the mean gradient over random coalitions near the whole.

    Each gradient draws q uniformly from [lowest, 1], stratified over the gradients, and a
    coalition that holds each player with probability q. The standard errors leave the
    stratification out, and so are upper bounds.

    Args:
        budget: gradients and evaluations to spend; both count as one.
        lowest: the smallest q; 0 gives the whole integral.
        antithetic: draw coalitions in pairs, from u and 1 - u for the same q.
        fractional: no coalitions, but masks that hold q of every player, at Gauss-Legendre points:
            exact where the game is a polynomial that is linear in every player, and for a network
            the gradient along the straight path to it.
        refine: so many of the best get the mean of exact marginal contributions instead, in
            coalitions near the whole as above. The gradients of the others are brought to the
            same scale, on which the refined ones add up to the same.
        contexts: coalitions for ``refine``, each of which costs 1 + refine evaluations.
        generator: on the CPU.
        progress: called with the share of the work done.

    Raises:
        InputError: no players, a budget that leaves no gradient, a game that returns a wrong
            shape or NaN.
    """
    meter = Meter(game, budget)
    n = game.n
    best = min(refine, n)
    gradients = budget - (contexts * (1 + best) if best else 0)
    if gradients < 1:
        raise InputError(f"budget {budget} leaves no gradient: expected {budget - gradients + 1}")
    if fractional:
        values, errors = _quadrature(meter, gradients, lowest)
    else:
        masks = _coalitions(gradients, n, lowest, antithetic, generator)
        slopes = meter.gradient(masks.float())
        values, errors = _mean(slopes, 2 if antithetic else 1)
    counts = torch.full((n,), gradients)
    if progress:
        progress(gradients / budget)
    if best:
        chosen = values.topk(best).indices
        around = _coalitions(contexts, n, lowest, False, generator)
        marginals = _marginals(meter, around, chosen)
        mean, error = _mean(marginals, 1)
        scale = float(mean.sum() / values[chosen].sum())
        if scale > 0:  # else marginals and gradients contradict each other, and neither is known
            values, errors = values * scale, errors * scale
            values[chosen], errors[chosen], counts[chosen] = mean, error, contexts
        if progress:
            progress(1.0)
    return ShapleyValues(values.float(), errors.float(), counts, meter.spent)


def _coalitions(
    number: int, n: int, lowest: float, antithetic: bool, generator: torch.Generator
) -> Tensor:
    """Random coalitions, bool (number, n), with q stratified."""
    draws = -(-number // 2) if antithetic else number
    position = torch.randperm(draws, generator=generator) + torch.rand(draws, generator=generator)
    q = lowest + (1 - lowest) * position / draws
    u = torch.rand(draws, n, generator=generator)
    if not antithetic:
        return u < q[:, None]
    return torch.stack([u < q[:, None], 1 - u < q[:, None]], 1).flatten(0, 1)[:number]


def _mean(samples: Tensor, together: int) -> tuple[Tensor, Tensor]:
    """Mean and standard error of samples (b, n), of which so many after another are one draw."""
    draws = samples[: len(samples) // together * together].unflatten(0, (-1, together)).mean(1)
    if len(draws) < 2:
        return samples.mean(0), torch.full(samples.shape[1:], torch.inf)
    return samples.mean(0), draws.std(0) / len(draws) ** 0.5


def _quadrature(meter: Meter, gradients: int, lowest: float) -> tuple[Tensor, Tensor]:
    """The mean gradient over q, each turn through the points being one draw."""
    points, weights = np.polynomial.legendre.leggauss(min(_NODES, gradients))
    turns = gradients // len(points)
    q = torch.from_numpy(lowest + (1 - lowest) * (points + 1) / 2).repeat(turns)
    slopes = meter.gradient(q[:, None].float().expand(-1, meter.n))
    share = torch.from_numpy(weights / 2).repeat(turns)[:, None] * len(points)
    return _mean(slopes * share, len(points))


def _marginals(meter: Meter, around: Tensor, chosen: Tensor) -> Tensor:
    """Marginal contributions (contexts, k) of the chosen players to coalitions (contexts, n)."""
    turned = around[:, None, :].repeat(1, len(chosen), 1)
    turned[:, torch.arange(len(chosen)), chosen] ^= True
    asked = torch.cat([around[:, None, :], turned], 1)
    worth = meter(asked.flatten(0, 1)).view(len(around), -1)
    change = worth[:, :1] - worth[:, 1:]
    return torch.where(around[:, chosen], change, -change)
