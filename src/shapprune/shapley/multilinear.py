"""Shapley values from gradients of the game's multilinear extension.

The multilinear extension F(q) of a game is its expected value when every player joins on its own
with probability q; a player's Shapley value is the integral of dF/dq_i over q from 0 to 1 (Owen,
1972). One gradient samples the derivative for all players at once, so that the cost does not grow
with their number. As the paper's Sec. 3.2 has it, what counts is the neighbourhood of the whole
network, where its performance is normal: q is drawn near 1.
"""

import torch

from shapprune.errors import InputError
from shapprune.shapley.result import DifferentiableGame, ShapleyValues, check_players


def multilinear(
    game: DifferentiableGame,
    *,
    samples: int = 512,
    lowest: float = 0.8,
    generator: torch.Generator,
) -> ShapleyValues:
    """First-order estimate: the mean gradient over random coalitions near the whole.

    Each sample draws q uniformly from [lowest, 1], stratified over the samples, and a coalition
    that holds each player with probability q.

    Args:
        samples: gradients to draw.
        lowest: the smallest q; 0 gives the whole integral.
        generator: on the CPU.

    Raises:
        InputError: no players, fewer than one sample, a game that returns a wrong shape or NaN.
    """
    check_players(game)
    if samples < 1:
        raise InputError(f"samples must be at least 1, got {samples}")
    n = game.n
    position = torch.randperm(samples, generator=generator) + torch.rand(
        samples, generator=generator
    )
    q = lowest + (1 - lowest) * position / samples
    masks = (torch.rand(samples, n, generator=generator) < q[:, None]).float()
    gradients = game.gradient(masks).detach().cpu().double()
    if gradients.shape != masks.shape:
        raise InputError(
            f"the game returned gradients of shape {tuple(gradients.shape)}: "
            f"expected {tuple(masks.shape)}"
        )
    if bool(gradients.isnan().any()):
        raise InputError("the game returned NaN")
    mean = gradients.mean(0)
    errors = gradients.std(0) / samples**0.5 if samples > 1 else torch.full((n,), torch.inf)
    counts = torch.full((n,), samples)
    return ShapleyValues(mean.float(), errors.float(), counts, samples)
