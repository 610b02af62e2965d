"""Whether the gradient of a model's logits reaches its images, and says what the logits do."""

import torch
from torch import Tensor, nn

from shapprune.errors import InputError
from shapprune.model.adapted import Adapted
from shapprune.model.outputs import fixed_draws, largest, outputs_of, spread
from shapprune.model.settings import EXAMINATION, GRADIENT
from shapprune.utils.text import describe


def gradient_fault(model: Adapted, images: Tensor) -> str | None:
    """What is wrong with the gradient at the images, if anything is.

    Of each image's logits one number is looked at, in which all classes have a part.
    """
    plain = outputs_of(model, images, "images")
    # In full precision, as sums over halves overflow.
    weights = torch.randn(plain.shape[1], generator=fixed_draws()).to(plain.device)
    weights -= weights.mean()  # what is added to all logits is no answer
    cut = (
        "no gradient of the logits reaches the image, and nothing can be searched without: take "
        "torch.no_grad, inference_mode, detach, numpy and comparisons out of the forward, or "
        "give the float model if this one is quantised"
    )
    try:
        slope, logits = _slope(model, images, weights)
    except InputError:
        raise
    except Exception as error:
        return f"{cut} ({describe(error)})"
    if slope is None:
        return cut
    if largest(logits - plain) > EXAMINATION.repeats * spread(plain):
        return (
            "the model gives other logits when a gradient is asked for than without: let its "
            "forward be the same in both"
        )
    if not bool(slope.isfinite().all()):
        return (
            "the gradient of the logits is NaN or infinite at the images, though the logits are "
            "finite: mostly a square root, norm or logarithm of zero in the forward"
        )
    if not bool(slope.any()):
        return (
            "the logits depend on the image, but their gradient is zero everywhere: take what "
            "rounds (8-bit casts, thresholds, sign, argmax) or saturates (a softmax) out of the "
            "forward"
        )
    predicted, came = _step(model, images, weights, slope)
    square = float((predicted**2).sum()) + 1e-30
    ratio = float((predicted * came).sum()) / square
    wrong = float(((predicted - came) ** 2).sum()) / square
    factor = GRADIENT.factor
    if not 1 / factor <= ratio <= factor or (model.straight_through and wrong > GRADIENT.rough):
        return (
            "the gradient of the logits is not that of the answers: a small step along it changes "
            f"them by {ratio:.2g} of what it says; take what is detached or rounded out of the "
            "forward"
        )
    return None


def _slope(model: nn.Module, images: Tensor, weights: Tensor) -> tuple[Tensor | None, Tensor]:
    """The gradient (n, C, H, W) of the weighted logits, None where there is none; the logits."""
    leaf = images.detach().clone().requires_grad_()
    logits: Tensor = model(leaf)
    if not logits.requires_grad:
        return None, logits
    (slope,) = torch.autograd.grad((logits.float() * weights).sum(), leaf, allow_unused=True)
    return slope, logits.detach()


def _step(
    model: nn.Module, images: Tensor, weights: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    """The change (n,) of the weighted logits in a step uphill: by the gradient, and in truth."""
    chosen = torch.rand(images.shape, generator=fixed_draws()).to(images) < GRADIENT.stepped
    there = (images + GRADIENT.step * slope.sign() * chosen).clamp(0, 1)
    uphill, _ = _slope(model, there, weights)
    mean = (slope + (slope if uphill is None else uphill)) / 2
    predicted = (mean.float() * (there - images).float()).flatten(1).sum(1)
    before, after = outputs_of(model, images, "images"), outputs_of(model, there, "images")
    return predicted, (after.float() - before.float()) @ weights
