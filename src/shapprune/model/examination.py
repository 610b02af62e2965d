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
from shapprune.model.checks import check_differentiable
from shapprune.model.gradients import gradient_fault
from shapprune.model.inference import CHUNK, evaluating, left_as_it_was
from shapprune.model.outputs import fixed_draws, largest, outputs_of, spread
from shapprune.model.recognition import better_way
from shapprune.model.settings import EXAMINATION
from shapprune.utils.text import list_names


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
    check_differentiable(model)
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
    noise = outputs_of(model, probes.noise, "noise")
    _check_finite(found, noise)
    adapted = Adapted(model, clones=writes)
    together = outputs_of(adapted, probes.rows, "images")
    _check_repeats(model, together, outputs_of(adapted, probes.rows, "images"), statistics)
    _check_alone(adapted, probes, together)
    adapted.outputs = _kind_of(torch.cat([found, noise]), adapted, probes)
    if adapted.outputs != "logits":
        found, noise = (outputs_of(adapted, x, "images") for x in (images, probes.noise))
    _check_answers(adapted, images, found, noise, labels)
    fault = gradient_fault(adapted, probes.rows)
    if fault:
        adapted.straight_through = True
        if gradient_fault(adapted, probes.rows):
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
        count = min(EXAMINATION.images, len(images))
        some = torch.linspace(0, len(images) - 1, count).round().long()
        shape = (EXAMINATION.noise, *images.shape[1:])
        noise = torch.rand(shape, generator=fixed_draws()).to(images)
        return cls(images[some.to(images.device)], noise)

    @property
    def rows(self) -> Tensor:
        return torch.cat([self.images, self.noise])


# What is asked, in this order. Each check has its own error.


def _first_pass(model: nn.Module, images: Tensor) -> tuple[Tensor, bool]:
    """The outputs (n, classes), and whether the forward wrote into what it was given."""
    writes, parts = False, []
    for part in images.split(CHUNK):
        given = part.clone()
        version = given._version
        parts.append(outputs_of(model, given, "images", copy=False))
        # Writing the values that are there, as a ReLU in place does, breaks gradients as well.
        writes |= given._version != version or not torch.equal(given, part)
    return torch.cat(parts), writes


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
    if largest(one - other) > EXAMINATION.repeats * spread(one):
        raise InputError(
            f"two passes of the same images give different logits{_training(model)}: take what is "
            "random (dropout, noise, augmentation) out of the forward in eval mode"
        )


def _check_alone(model: nn.Module, probes: _Probes, together: Tensor) -> None:
    """Images alone, the last of them noise, against the same ones in a batch."""
    for row in [*range(min(EXAMINATION.alone - 1, len(probes.images))), len(together) - 1]:
        alone = outputs_of(model, probes.rows[row : row + 1], "one image")
        if largest(alone[0] - together[row]) > EXAMINATION.alone_differs * spread(together):
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
    slack = max(EXAMINATION.sums, 4 * torch.finfo(outputs.dtype).eps)
    if bool(((outputs.sum(1) - 1).abs() <= slack).all()):
        return "probabilities"
    with torch.no_grad():
        if ends_in_sigmoid(model, probes.rows):
            return "sigmoids"
    # Of a network that has learnt little, logits may lie there as well, but not so far apart.
    low, high = EXAMINATION.sigmoid_low, EXAMINATION.sigmoid_high
    if float(outputs.min()) < low and float(outputs.max()) > high:
        raise InputError(
            "all outputs lie in [0, 1] and those of an image do not sum to 1, as after a sigmoid: "
            "return the logits, which come before it"
        )
    return "logits"


def _check_answers(
    model: nn.Module, images: Tensor, logits: Tensor, noise: Tensor, labels: Tensor | None
) -> None:
    both = torch.cat([logits, noise])
    answers = logits.argmax(1).unique().tolist()
    fault = None
    if largest(both - both[:1]) <= EXAMINATION.constant * largest(both):
        fault = (
            "the logits do not depend on the image: they are the same for all images and for "
            f"noise, and the answer is class {answers[0]}"
        )
    elif labels is not None and len(labels.unique()) > 2 and len(answers) == 1:
        fault = (
            f"the model gives all {len(logits)} images, of {len(labels.unique())} classes, the "
            f"same answer, class {answers[0]}, and a verdict on it would mean nothing"
        )
    if fault:
        cause = None
        if labels is not None:
            cause = better_way(model, images, labels, classes=logits.shape[1])
        check = "check the weights file, and mean and std (images are in [0, 1])"
        raise InputError(f"{fault}: {cause or check}")


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
