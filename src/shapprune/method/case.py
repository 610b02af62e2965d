"""What is examined and repaired, checked once and carried whole."""

from dataclasses import dataclass

from torch import Tensor, nn

from shapprune.data.augmentation import flip_allowed
from shapprune.method.recovery import Recovery
from shapprune.model.classifier import check_input, in_channels_last
from shapprune.model.examination import examine
from shapprune.model.inference import in_full_precision


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
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    classes: int
    real: bool
    flip_allowed: bool


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
        images, labels = recovered.images, recovered.labels
    model = in_full_precision(model)
    images, labels, classes = check_input(model, images, labels)
    model = in_channels_last(examine(model, images, labels=labels if real else None), images)
    return Case(model, images, labels, classes, real, flip_allowed(model, images))
