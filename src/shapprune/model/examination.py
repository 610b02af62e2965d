"""Whether a model can be examined at all: found out before any search starts.

The search follows the gradient of the logits to the image. Where that is cut, zero or of another
function than the one that answers, or where answers change from pass to pass, no trigger is found
in any model, and it would pass for a clean one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from shapprune.errors import InputError
from shapprune.model.adapted import Adapted, Outputs, ends_in_sigmoid
from shapprune.model.inference import CHUNK, evaluating, left_as_it_was
from shapprune.utils.text import describe, list_names

_IMAGES, _NOISE = 8, 4  # that are looked at more closely than by one pass
_ALONE = 3  # of them, also passed without the others
_REPEATS = 1e-3  # of the outputs' range: what the same pass may differ by
_ALONE_DIFFERS = 1e-2  # and what an image alone may, as other kernels run on a batch
_CONSTANT = 1e-6  # of the largest logit: rounding
_SUM = 1e-4  # what probabilities may miss 1 by
_STEP = 4 / 255  # of a pixel's range: four levels of an 8-bit image
_STEPPED = 1 / 8  # of the pixels: so that the step stays a small one
# Between the change that a gradient predicts and the one that comes. On 36 trained networks of
# thirteen architectures the quotient is 0.87 to 1.05.
_FACTOR = 4.0
# What the square of their difference may be of the prediction's, where rounding was let pass: on
# seven of the networks 0.02 with 64 to 256 levels, 0.006 to 0.4 with 32, 0.5 to 2.3 with 2.
_ROUGH = 0.1


def examine(model: nn.Module, images: Tensor, *, labels: Tensor | None = None) -> nn.Module:
    """The module that the search can work with, for a model that answers as a classifier should.

    That is the model itself, or an `Adapted` around it where its forward writes into the images,
    ends in a softmax or sigmoid, or rounds the images: then `unwrap` gives the model back, also
    from a repaired deepcopy. Whatever module comes back has the model's weights, not copies, and
    has shown on the images and on noise that

    - its logits are finite, not the same for all inputs, and the same in every pass, with other
      images in the batch and without;
    - their gradient reaches the images, and a step along it changes the logits of the model as it
      says, within a factor.

    Costs one pass an image and about a hundred more. The model and the images are left as they
    were.

    Args:
        model: has passed `check_classifier`; used in eval mode.
        images: float (n, C, H, W) in [0, 1], n at least 1, on its device.
        labels: int64 (n,), the images' true classes; None where they have none, as noise. Of three
            classes or more, all images may not get one answer.

    Raises:
        InputError: what stands in the way, and what to do, in one line.
    """
    if torch.is_inference_mode_enabled() or not torch.is_grad_enabled():
        raise InputError(
            "gradients are switched off here, by torch.no_grad() or torch.inference_mode(), and "
            "nothing can be searched without: call from outside of it"
        )
    names = [name for name, tensor in model.named_parameters() if tensor.is_inference()]
    if names:
        raise InputError(
            f"{list_names(names)} was made under torch.inference_mode() and takes no part in "
            "gradients: build or load the model outside of it"
        )
    like = next((p for p in model.parameters() if p.is_floating_point()), images)
    images = images.detach().to(like.device, like.dtype, copy=True)
    scripted = isinstance(model, torch.jit.ScriptModule)  # which lacks much that modules have
    subject = Adapted(model) if scripted else model
    with left_as_it_was(subject), evaluating(subject):
        return _examine(subject, images, labels)


def _examine(model: nn.Module, images: Tensor, labels: Tensor | None) -> nn.Module:
    """As `examine`, on a model in eval mode and images of its own device and type."""
    probes = _Probes.of(images)
    statistics = _statistics(model)
    found, writes = _first_pass(model, images)
    noise = _outputs(model, probes.noise, "noise")
    _check_finite(found, noise)
    adapted = Adapted(model, clones=writes)
    together = _outputs(adapted, probes.rows, "images")
    _check_repeats(model, together, _outputs(adapted, probes.rows, "images"), statistics)
    _check_alone(adapted, probes, together)
    adapted.outputs = _kind_of(torch.cat([found, noise]), adapted, probes)
    if adapted.outputs != "logits":
        found, noise = (_outputs(adapted, x, "images") for x in (images, probes.noise))
    _check_answers(found, noise, labels)
    fault = _gradient_fault(adapted, probes.rows)
    if fault:
        adapted.straight_through = True
        if _gradient_fault(adapted, probes.rows):
            raise InputError(fault)
    changed = writes or adapted.straight_through or adapted.outputs != "logits"
    return adapted if changed else model


@dataclass(frozen=True, eq=False)
class _Probes:
    """Some images and noise, (n, C, H, W) each; the rows are both."""

    images: Tensor
    noise: Tensor

    @classmethod
    def of(cls, images: Tensor) -> "_Probes":
        some = torch.linspace(0, len(images) - 1, min(_IMAGES, len(images))).round().long()
        noise = torch.rand((_NOISE, *images.shape[1:]), generator=_generator()).to(images)
        return cls(images[some.to(images.device)], noise)

    @property
    def rows(self) -> Tensor:
        return torch.cat([self.images, self.noise])


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# What is asked, in this order. Each check has its own error.


def _first_pass(model: nn.Module, images: Tensor) -> tuple[Tensor, bool]:
    """The outputs (n, classes), and whether the forward wrote into what it was given."""
    writes, parts = False, []
    for part in images.split(CHUNK):
        given = part.clone()
        version = given._version
        parts.append(_outputs(model, given, "images", copy=False))
        # Writing the values that are there, as a ReLU in place does, breaks gradients as well.
        writes |= given._version != version or not torch.equal(given, part)
    return torch.cat(parts), writes


def _outputs(model: nn.Module, images: Tensor, what: str, *, copy: bool = True) -> Tensor:
    """What the model returns for a copy of the images, without a gradient."""
    with torch.no_grad():
        parts = [_run(model, part.clone() if copy else part, what) for part in images.split(CHUNK)]
    return torch.cat(parts)


def _run(model: nn.Module, images: Tensor, what: str) -> Tensor:
    count = len(images)
    advice = "the model must take batches of any size, and return a row of logits for each image"
    try:
        outputs: object = model(images)
    except Exception as error:
        alone = f"{what} alone" if count == 1 else f"{count} {what} at once"
        raise InputError(f"the model fails on {alone}: {advice} ({describe(error)})") from error
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != count:
        kind = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise InputError(f"the model returns {kind} for {count} {what}: {advice}")
    return outputs.clone()  # the model may use the same memory again


def _check_finite(found: Tensor, noise: Tensor) -> None:
    wrong = (~found.isfinite()).any(1).nonzero().flatten().tolist()
    if wrong or not bool(noise.isfinite().all()):
        where = f"image {wrong[0]} ({len(wrong)} of {len(found)} images)" if wrong else "noise"
        raise InputError(
            f"the model returns NaN or infinite logits for {where}: check mean, std and the "
            "weights, and divisions and logarithms in the forward"
        )


def _check_repeats(
    model: nn.Module, one: Tensor, other: Tensor, statistics: dict[str, Tensor]
) -> None:
    now = _statistics(model)
    moved = [name for name, before in statistics.items() if not torch.equal(now[name], before)]
    if moved:
        raise InputError(
            f"a forward changes {list_names(moved)} although eval() was called{_training(model)}: "
            "answers then depend on what was asked before; use the running statistics as they are"
        )
    if _largest(one - other) > _REPEATS * _range(one):
        raise InputError(
            f"two passes of the same images give different logits{_training(model)}: take what is "
            "random (dropout, noise, augmentation) out of the forward in eval mode"
        )


def _check_alone(model: nn.Module, probes: _Probes, together: Tensor) -> None:
    """Images alone, the last of them noise, against the same ones in a batch."""
    for row in [*range(min(_ALONE - 1, len(probes.images))), len(together) - 1]:
        alone = _outputs(model, probes.rows[row : row + 1], "one image")
        if _largest(alone[0] - together[row]) > _ALONE_DIFFERS * _range(together):
            norms = {
                name: module
                for name, module in model.named_modules()
                if isinstance(module, _BatchNorm) and module.running_mean is None
            }
            cause = f" ({list_names(list(norms))} has no running statistics)" if norms else ""
            raise InputError(
                "the answer for an image depends on the other images of the batch"
                f"{_training(model) or cause}, as with a batch norm in training mode: use running "
                "statistics in eval mode"
            )


def _kind_of(outputs: Tensor, model: Adapted, probes: _Probes) -> Outputs:
    """What the outputs are, (n, classes), of images and noise."""
    if float(outputs.min()) < 0 or float(outputs.max()) > 1:
        return "logits"
    slack = max(_SUM, 4 * torch.finfo(outputs.dtype).eps)
    if bool(((outputs.sum(1) - 1).abs() <= slack).all()):
        return "probabilities"
    with torch.no_grad():
        if ends_in_sigmoid(model, probes.rows):
            return "sigmoids"
    # Of a network that has learnt little, logits may lie there as well, but not so far apart.
    if float(outputs.min()) < 0.05 and float(outputs.max()) > 0.5:
        raise InputError(
            "all outputs lie in [0, 1] and those of an image do not sum to 1, as after a sigmoid: "
            "return the logits, which come before it"
        )
    return "logits"


def _check_answers(logits: Tensor, noise: Tensor, labels: Tensor | None) -> None:
    both = torch.cat([logits, noise])
    answers = logits.argmax(1).unique().tolist()
    check = "check the weights file, and mean and std (images are in [0, 1])"
    if _largest(both - both[:1]) <= _CONSTANT * _largest(both):
        raise InputError(
            "the logits do not depend on the image: they are the same for all images and for "
            f"noise, and the answer is class {answers[0]}: {check}"
        )
    classes = 0 if labels is None else len(labels.unique())
    if classes > 2 and len(answers) == 1:
        raise InputError(
            f"the model gives all {len(logits)} images, of {classes} classes, the same answer, "
            f"class {answers[0]}, and a verdict on it would mean nothing: {check}"
        )


def _gradient_fault(model: Adapted, images: Tensor) -> str | None:
    """What is wrong with the gradient at the images, if anything is.

    Of each image's logits one number is looked at, in which all classes have a part.
    """
    plain = _outputs(model, images, "images")
    # In full precision, as sums over halves overflow.
    weights = torch.randn(plain.shape[1], generator=_generator()).to(plain.device)
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
    if _largest(logits - plain) > _REPEATS * _range(plain):
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
    if not 1 / _FACTOR <= ratio <= _FACTOR or (model.straight_through and wrong > _ROUGH):
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
    chosen = torch.rand(images.shape, generator=_generator()).to(images) < _STEPPED
    there = (images + _STEP * slope.sign() * chosen).clamp(0, 1)
    uphill, _ = _slope(model, there, weights)
    mean = (slope + (slope if uphill is None else uphill)) / 2
    predicted = (mean.float() * (there - images).float()).flatten(1).sum(1)
    before, after = _outputs(model, images, "images"), _outputs(model, there, "images")
    return predicted, (after.float() - before.float()) @ weights


# In words and numbers


def _statistics(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all running means and variances, by name."""
    return {
        name: tensor.clone()
        for name, tensor in model.named_buffers()
        if name.rpartition(".")[2] in ("running_mean", "running_var")
    }


def _training(model: nn.Module) -> str:
    """In brackets, what stayed in training mode."""
    names = [name or "the model" for name, module in model.named_modules() if module.training]
    return f" ({list_names(names)} stayed in training mode)" if names else ""


def _largest(values: Tensor) -> float:
    return float(values.abs().max())


def _range(outputs: Tensor) -> float:
    return float(outputs.max() - outputs.min())
