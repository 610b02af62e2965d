"""The kinds of trigger that are inverted, as free parameters of an optimisation."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from shapprune.method.triggers import Perturbation, Stamp, Trigger


class Family(ABC):
    """A kind of trigger as free parameters, one row a class."""

    learning_rate: float
    penalty: float  # λ of Eq. 5 at the start

    @abstractmethod
    def start(self, rows: int, shape: tuple[int, ...], generator: torch.Generator) -> list[Tensor]:
        """Fresh parameters for images of a shape (C, H, W)."""

    @abstractmethod
    def stamp(self, parameters: Sequence[Tensor], images: Tensor) -> Tensor:
        """Images (rows, k, C, H, W), stamped, row by row."""

    @abstractmethod
    def norm(self, parameters: Sequence[Tensor]) -> Tensor:
        """Sizes (rows,)."""

    @abstractmethod
    def finish(self, parameters: Sequence[Tensor]) -> Stamp:
        """The trigger of one row's parameters."""


class _Patch(Family):
    """Mask and pattern of Eq. 4, each (tanh + 1) / 2 of a free tensor."""

    learning_rate, penalty = 0.1, 1e-3

    def start(self, rows: int, shape: tuple[int, ...], generator: torch.Generator) -> list[Tensor]:
        mask = 0.1 * torch.randn(rows, 1, *shape[1:], generator=generator) - 1
        return [mask, 0.1 * torch.randn(rows, *shape, generator=generator)]

    def stamp(self, parameters: Sequence[Tensor], images: Tensor) -> Tensor:
        mask, pattern = ((p.tanh() + 1).unsqueeze(1) / 2 for p in parameters)
        return (1 - mask) * images + mask * pattern

    def norm(self, parameters: Sequence[Tensor]) -> Tensor:
        return ((parameters[0].tanh() + 1) / 2).sum((1, 2, 3))

    def finish(self, parameters: Sequence[Tensor]) -> Trigger:
        mask, pattern = ((p.tanh() + 1) / 2 for p in parameters)
        return Trigger(mask, pattern)


class _Perturbation(Family):
    """A pattern added to the image. The clipping to [0, 1] lets gradients through."""

    learning_rate, penalty = 0.02, 0.1

    def start(self, rows: int, shape: tuple[int, ...], generator: torch.Generator) -> list[Tensor]:
        return [0.01 * torch.randn(rows, *shape, generator=generator)]

    def stamp(self, parameters: Sequence[Tensor], images: Tensor) -> Tensor:
        moved = images + parameters[0].unsqueeze(1)
        return moved + (moved.clamp(0, 1) - moved).detach()

    def norm(self, parameters: Sequence[Tensor]) -> Tensor:
        return (parameters[0] ** 2).sum((1, 2, 3)).sqrt()

    def finish(self, parameters: Sequence[Tensor]) -> Perturbation:
        return Perturbation(parameters[0])


PATCH: Family = _Patch()
PERTURBATION: Family = _Perturbation()
