"""An optimizer for repairs: Adam with one second moment a tensor."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class LayerwiseAdam(torch.optim.Optimizer):
    """Adam whose steps are scaled tensor by tensor, and not weight by weight.

    The mean square of a tensor's gradient stands in for the square of each weight's (layer-wise
    second moments, as in NovoGrad: Ginsburg et al. 2019, arXiv 1905.11286). Adam moves every
    weight by about the learning rate, also those whose gradient is nearly zero: of a network that
    answers as it should but for the backdoor, that is nearly all of them, and it forgets. Here the
    weights that carry the backdoor move, and the others stay.

    Args:
        params: to be optimised.
        lr: learning rate, the root mean square of a step in a tensor with steady gradients.
        betas: decay of the first and the second moment.
        eps: added to the root of the second moment.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step along the gradients; a closure, if there is one, computes them first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    _move(weight, self.state[weight], group)
        return loss


def _move(weight: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    assert weight.grad is not None
    if not state:
        state.update(steps=0, first=torch.zeros_like(weight), second=weight.new_zeros(()))
    state["steps"] += 1
    first, second = group["betas"]
    state["first"].lerp_(weight.grad, 1 - first)
    state["second"].lerp_((weight.grad**2).mean(), 1 - second)
    mean = state["first"] / (1 - first ** state["steps"])
    size = (state["second"] / (1 - second ** state["steps"])).sqrt()
    weight.sub_(group["lr"] * mean / (size + group["eps"]))
