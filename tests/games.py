"""Games whose Shapley values are known."""

from collections.abc import Callable

import torch
from torch import Tensor

from toys import seeded


class Plays:
    """A game from a function of coalitions (b, n). It remembers what it was asked."""

    def __init__(self, n: int, worth: Callable[[Tensor], Tensor]) -> None:
        self.n, self.worth, self.asked = n, worth, []

    def __call__(self, coalitions: Tensor) -> Tensor:
        self.asked.append(coalitions.clone())
        return self.worth(coalitions)


def additive(weights: list[float]) -> Plays:
    return Plays(len(weights), lambda s: s.float() @ torch.tensor(weights))


def table(n: int, seed: int = 0) -> Plays:
    """Any worth for any coalition, between 0 and 1."""
    worth = torch.rand(2**n, generator=seeded(seed))
    return Plays(n, lambda s: worth[(s.long() << torch.arange(n)).sum(1)])


def by_size(worth: list[float]) -> Plays:
    """A coalition's worth by how many players it has."""
    return Plays(len(worth) - 1, lambda s: torch.tensor(worth)[s.sum(1)])


def steps(n: int = 200, seed: int = 0) -> Plays:
    """As ASR is: flat until the key players are gone, and never more for fewer players."""
    keys = torch.randperm(n, generator=seeded(seed))[:8]
    return Plays(n, lambda s: (s[:, keys].sum(1) / 2).floor() / 4)


class Products:
    """Σ a_T Π_{i in T} x_i: a game that is its own multilinear extension."""

    def __init__(self, n: int, terms: dict[tuple[int, ...], float]) -> None:
        self.n, self.terms = n, terms

    def worth(self, x: Tensor) -> Tensor:
        return sum(a * x[:, list(t)].prod(1) for t, a in self.terms.items())

    def __call__(self, coalitions: Tensor) -> Tensor:
        return self.worth(coalitions.float())

    def gradient(self, masks: Tensor) -> Tensor:
        out = torch.zeros_like(masks)
        for team, a in self.terms.items():
            for i in team:
                out[:, i] += a * masks[:, [j for j in team if j != i]].prod(1)
        return out

    def values(self) -> Tensor:
        out = torch.zeros(self.n)
        for team, a in self.terms.items():
            out[list(team)] += a / len(team)
        return out


class Extended(Plays):
    """Any small game, with the gradient of its multilinear extension from all 2^n coalitions."""

    def gradient(self, masks: Tensor) -> Tensor:
        coalitions = (torch.arange(2**self.n)[:, None] >> torch.arange(self.n)) & 1 == 1
        worth = self.worth(coalitions)
        out = torch.empty_like(masks)
        for i in range(self.n):
            likely = torch.where(coalitions, masks[:, None], 1 - masks[:, None])
            likely[:, :, i] = torch.where(coalitions[:, i], 1.0, -1.0)
            out[:, i] = likely.prod(2) @ worth
        return out


AIRPORT = Extended(4, lambda s: (s * torch.tensor([1.0, 3.0, 3.0, 6.0])).amax(1))
GLOVES = Extended(4, lambda s: (s[:, 0] & s[:, 1:].any(1)).float())
VOTING = Extended(4, lambda s: (s.long() @ torch.tensor([3, 2, 1, 1]) >= 4).float())
ADDITIVE = Extended(4, lambda s: s.float() @ torch.tensor([1.0, -2.0, 0.0, 4.0]))
HARMFUL = Extended(1, lambda s: 3 - s[:, 0].float())
PAIR = Extended(2, lambda s: torch.tensor([0.1, 0.4, 0.6, 1.0])[s[:, 0] + 2 * s[:, 1].long()])
CLOSED_FORMS = {
    "one-player": (HARMFUL, [-1.0]),
    "two-players": (PAIR, [0.35, 0.55]),  # (0.3 + 0.4) / 2 and (0.5 + 0.6) / 2
    "additive": (ADDITIVE, [1.0, -2.0, 0.0, 4.0]),
    "airport": (AIRPORT, [1 / 4, 11 / 12, 11 / 12, 11 / 12 + 3]),
    "glove": (GLOVES, [3 / 4, 1 / 12, 1 / 12, 1 / 12]),
    "weighted-voting": (VOTING, [1 / 2, 1 / 6, 1 / 6, 1 / 6]),
}

PRODUCTS = Products(5, {(0,): 0.3, (0, 1): 0.5, (1, 2, 3): -0.4, (0, 2, 3): 0.6})


def close(a: Tensor, b: list[float] | Tensor, tolerance: float = 1e-6) -> bool:
    return torch.allclose(a, torch.as_tensor(b, dtype=a.dtype), rtol=0, atol=tolerance)
