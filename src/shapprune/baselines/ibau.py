"""I-BAU: backdoors unlearned as a minimax problem (Zeng et al., ICLR 2022).

The trigger is taken for the universal perturbation that the network suffers most from; the weights
descend the loss under it, and the gradient follows how the perturbation moves with the weights.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.baselines.plain_finetuning import Progress
from shapprune.model.classifier import check_input

Loss: TypeAlias = Callable[[Tensor], Tensor]  # of a perturbation, at the weights of the moment

_ASCENT = 10.0  # learning rate of the perturbation
_NORM = 0.001  # weight of its squared norm
_INNER = 0.1  # step of the map whose fixed point the implicit gradient is taken at


def ibau(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    rounds: int = 5,
    learning_rate: float = 1e-3,
    iterations: int = 5,
    batch_size: int = 100,
    share: float = 0.01,
    seed: int = 0,
    progress: Progress | None = None,
) -> nn.Module:
    """A copy with the worst universal perturbations unlearned.

    Args:
        model: maps images in [0, 1] to logits; left as it was. Used in eval mode.
        images, labels: clean, (n, C, H, W) in [0, 1] and int64 (n,).
        rounds: how often a perturbation is looked for.
        learning_rate: of Adam, the authors' code's.
        iterations: K, of the fixed-point solver of the implicit gradient.
        batch_size: at most; fewer images make smaller batches.
        share: of a batch that is perturbed while it is unlearned, one image at least: all in the
            paper, 0.01 in the authors' code.
        seed: of all random draws.
        progress: called with the share of the work done.

    Raises:
        InputError: what does not fit, in one line.
    """
    images, labels, _ = check_input(model, images, labels)
    generator = torch.Generator().manual_seed(seed)
    student = deepcopy(model).requires_grad_(True).eval()
    weights = [weight for weight in student.parameters() if weight.is_floating_point()]
    optimizer = torch.optim.Adam(weights, learning_rate)
    # Images come sorted by class, and batches of one class would each unlearn another thing.
    mixed = torch.randperm(len(images), generator=generator).to(images.device)
    parts = [(images[rows], labels[rows]) for rows in mixed.split(batch_size)]

    def inner(delta: Tensor) -> Tensor:
        some, answers = parts[0]
        loss = F.cross_entropy(student(some + delta), answers)
        return _NORM * delta.square().sum() - loss

    with torch.enable_grad():
        for turn in range(rounds):
            delta = worst_perturbation(student, [some for some, _ in parts])
            for some, answers in parts:
                drawn = torch.randperm(len(some), generator=generator)
                hit = (drawn < max(1, round(share * len(some)))).view(-1, 1, 1, 1).to(some)
                gradients = implicit_gradient(
                    partial(_loss, student, some, answers, hit),
                    inner,
                    delta,
                    weights,
                    rate=_INNER,
                    iterations=iterations,
                )
                for weight, gradient in zip(weights, gradients, strict=True):
                    weight.grad = gradient
                optimizer.step()
            if progress:
                progress((turn + 1) / rounds)
    optimizer.zero_grad()
    return student.requires_grad_(False)


def _loss(model: nn.Module, images: Tensor, labels: Tensor, hit: Tensor, delta: Tensor) -> Tensor:
    return F.cross_entropy(model(images + hit * delta), labels)


def worst_perturbation(model: nn.Module, parts: Sequence[Tensor]) -> Tensor:
    """One pass of gradient ascent, from zero: what takes images from the model's answers.

    Args:
        parts: batches (n, C, H, W).

    Returns:
        (1, C, H, W); images with it added may leave [0, 1], as in the authors' code.
    """
    delta = torch.zeros_like(parts[0][:1])
    for some in parts:
        leaf = delta.requires_grad_()
        with torch.no_grad():
            answers = model(some).argmax(1)
        loss = _NORM * leaf.square().sum() - F.cross_entropy(model(some + leaf), answers)
        (slope,) = torch.autograd.grad(loss, leaf)
        delta = leaf.detach() - _ASCENT * slope
    return delta


def implicit_gradient(
    outer: Loss,
    inner: Loss,
    point: Tensor,
    weights: Sequence[Tensor],
    *,
    rate: float,
    iterations: int,
) -> list[Tensor]:
    """The gradient of outer(x*(w), w) by the weights w, where x* minimises inner(x, w).

    x* is the fixed point of Φ(x, w) = x - rate · ∇ inner. With v = (I - ∂Φ/∂x)ᵀ⁻¹ ∇ₓ outer, it is
    ∇_w outer + (∂Φ/∂w)ᵀ v. The solver iterates v ← (∂Φ/∂x)ᵀ v + ∇ₓ outer from zero (Grazzi et al.
    2020); what it reaches in a few steps is what the method works with.

    Args:
        outer, inner: functions of x, of the weights also.
        point: where the derivatives are taken.
        weights: w, which require gradients.
        rate: of Φ.
        iterations: of the solver.
    """
    x = point.detach().requires_grad_()
    by_x, *by_weights = torch.autograd.grad(
        outer(x), [x, *weights], allow_unused=True, materialize_grads=True
    )
    (slope,) = torch.autograd.grad(inner(x), x, create_graph=True)
    mapped = x - rate * slope
    v = torch.zeros_like(x)
    for _ in range(iterations):
        (moved,) = torch.autograd.grad(mapped, x, v, retain_graph=True)
        v = moved + by_x
    through = torch.autograd.grad(mapped, weights, v, allow_unused=True, materialize_grads=True)
    return [direct + more for direct, more in zip(by_weights, through, strict=True)]
