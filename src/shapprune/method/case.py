"""What is examined and repaired, checked once and carried whole."""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from shapprune.data.augmentation import flip_allowed
from shapprune.errors import InputError
from shapprune.method.recovery import Recovery
from shapprune.model.adapted import Adapted
from shapprune.model.checks import check_images, check_module, kind
from shapprune.model.classifier import check_input, in_channels_last, in_float32
from shapprune.model.examination import examine
from shapprune.model.inference import searching
from shapprune.model.recognition import Recognition, recognise

_KNOWN = Recognition(1.0, False, None)  # what is taken for granted of a case made by hand


@dataclass(frozen=True, eq=False)
class Case:
    """A classifier and the defender's images.

    Attributes:
        model: fit for the search: of full precision, answering in logits with gradients.
        images: (n, C, H, W) in [0, 1], on its device and of its type.
        labels: int64 (n,).
        classes: that the model tells apart.
        real: whether the images were given; else they were recovered from the model.
        flip_allowed: whether mirrored images keep their meaning.
        recognition: how the model answers to the images.
        warnings: what does not seem to fit, or is examined in another form, one line each.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    classes: int
    real: bool
    flip_allowed: bool = False
    recognition: Recognition = _KNOWN
    warnings: tuple[str, ...] = ()


@searching()
def check_case(
    model: nn.Module,
    images: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    recovered: Recovery | None = None,
) -> Case:
    """The case of a model and images.

    Args:
        model: left as it was; a copy stands in for it where it has half precision or a forward
            that gradients do not pass.
        images, labels: see `Case`.
        recovered: stands in for them.

    Raises:
        InputError: whatever the stages could trip over.
    """
    real = recovered is None
    if recovered is not None:
        if not isinstance(recovered, Recovery):
            raise InputError(f"recovered must be of recover_images, got {kind(recovered)}")
        images, labels = recovered.images, recovered.labels
    check_module(model)
    model = in_float32(model, check_images(images))
    return _examined(Case(model, *check_input(model, images, labels), real=real))


def _examined(case: Case) -> Case:
    """The case of a model that can be searched, and what is known of how it answers."""
    model, images, labels = case.model, case.images, case.labels
    fit = examine(model, images, labels=labels if case.real else None)
    found = recognise(fit, images, labels, classes=case.classes)
    warnings = [found.warning] if case.real and found.warning else []
    if isinstance(fit, Adapted) and fit.straight_through:
        warnings.append(
            "the forward rounds: examined as if what it rounds had passed as it is to gradients"
        )
    fast = in_channels_last(fit, images)
    return replace(
        case,
        model=fast,
        flip_allowed=flip_allowed(fast, images),
        recognition=found,
        warnings=tuple(warnings),
    )
