"""A network with its normalisation, and what is checked before it is used."""

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shapprune.errors import InputError
from shapprune.model.checks import check_images, check_labels, check_module, no_module
from shapprune.model.inference import copy_of, in_full_precision, left_as_it_was
from shapprune.utils.text import describe


class Classifier(nn.Module):
    """A network with its normalisation inside: images in [0, 1] in, logits out.

    Args:
        network: maps normalised images (n, C, H, W) to logits (n, classes).
        mean, std: one number, or one a channel, applied as (x - mean) / std to images in [0, 1];
            None leaves the images as they are.

    Raises:
        InputError: a std that is not positive, a mean outside [0, 1], or lengths that disagree.

    >>> model = Classifier(nn.Flatten(), mean=0.5, std=0.25)
    >>> model(torch.ones(1, 1, 1, 2))
    tensor([[2., 2.]])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise InputError(f"the network must be a torch.nn.Module, got {no_module(network)}")
        self.network = network
        # Not persistent: they are the user's options, not part of the weights.
        self.register_buffer("mean", _a_channel("mean", mean, 0.0), persistent=False)
        self.register_buffer("std", _a_channel("std", std, 1.0), persistent=False)
        channels = {self.mean.shape[1], self.std.shape[1]} - {1}
        if len(channels) > 1:
            raise InputError(
                f"mean has {self.mean.shape[1]} numbers and std {self.std.shape[1]}: "
                "give one number, or one a channel"
            )
        if not bool((self.std > 0).all()):
            raise InputError(f"std must be positive, got {std}")
        if not bool(((self.mean >= 0) & (self.mean <= 1)).all()):
            raise InputError(f"mean must be for images in [0, 1], got {mean}: divide by 255?")

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes) of images (n, C, H, W) in [0, 1]."""
        normalised = (images - self.mean) / self.std
        logits: Tensor = self.network(normalised.to(images.dtype))  # half stays half
        return logits


def check_classifier(model: nn.Module, *, images: Tensor, num_classes: int | None = None) -> int:
    """Run one image through the model, in eval mode, and check what comes out.

    The model is left as it was, training modes and statistics included, and so are the images.

    Args:
        images: (n, C, H, W) in [0, 1], n at least 1; the first is used.
        num_classes: classes that it must tell apart; None for any number.

    Returns:
        The number of classes.

    Raises:
        InputError: the model fails on the image, or does not return finite logits
            (1, num_classes).
    """
    shape = tuple(images.shape[1:])
    if isinstance(model, Classifier):
        # Broadcasting would turn a grey image into three channels without a word.
        channels = max(model.mean.shape[1], model.std.shape[1])
        if channels not in (1, shape[0]):
            raise InputError(
                f"mean and std are for {channels} channels, but the images have {shape[0]}"
            )
    if len(several := _inputs(model)) > 1:
        raise InputError(
            f"the model takes several inputs ({', '.join(several)}): expected one that takes a "
            "batch of images and nothing else; wrap it in a module that fills in the rest"
        )
    like = next((p for p in model.parameters() if p.is_floating_point()), images)
    with left_as_it_was(model):
        try:
            with torch.no_grad():
                logits: object = model(images[:1].to(like.device, like.dtype, copy=True))
        except Exception as error:
            raise InputError(
                f"the model fails on an image of shape {shape}, which may be the wrong input size"
                f"{_channels(shape, model)}: {describe(error)}"
            ) from error
    expected = f"expected float logits of shape (1, {num_classes or 'classes'})"
    if not isinstance(logits, Tensor):
        raise InputError(
            f"the model returns a {type(logits).__name__}: {expected}; wrap it in a module whose "
            "forward returns the logits alone, as output[0] or output.logits"
        )
    if num_classes and logits.ndim == 2 and logits.shape[1] != num_classes:
        raise InputError(
            f"the model tells {logits.shape[1]} classes apart, but num_classes is {num_classes}"
        )
    fits = logits.ndim == 2 and len(logits) == 1 and logits.shape[1] > 1
    if not (fits and logits.is_floating_point()):
        raise InputError(
            f"the model returns {logits.dtype} of shape {tuple(logits.shape)} for one image: "
            f"{expected}"
        )
    if not bool(logits.isfinite().all()):
        raise InputError(
            "the model returns NaN or infinite logits for the first image: "
            "check mean, std and the weights"
        )
    return logits.shape[1]


def in_float32(model: nn.Module, images: Tensor) -> nn.Module:
    """The model in the precision that it is examined in, see `in_full_precision`.

    Args:
        images: (n, C, H, W) in [0, 1], n at least 1; the first is used.

    Raises:
        InputError: it runs in its own precision alone, or cannot be copied.
    """
    whole = in_full_precision(model)
    if whole is model:
        return model
    try:
        check_classifier(whole, images=images)
    except InputError as error:
        check_classifier(model, images=images)  # what does not come of the precision is told here
        raise InputError(
            "the model works in its own precision, but not as a float32 copy, in which it is "
            "examined: its forward must cast to the type of its weights, and not to a fixed one "
            f"({describe(error.__cause__ or error)})"
        ) from error
    return whole


def check_input(model: nn.Module, images: object, labels: object) -> tuple[Tensor, Tensor, int]:
    """What the pipeline needs of its input, checked once.

    Returns:
        The images and labels on the model's device and of its type, and the number of classes.

    Raises:
        InputError: whatever the stages could trip over.
    """
    check_module(model)
    images = check_images(images)
    labels = check_labels(labels, len(images))
    like = next((p for p in model.parameters() if p.is_floating_point()), images)
    images, labels = images.to(like), labels.to(like.device)
    classes = check_classifier(model, images=images)
    if classes < 3:
        raise InputError(
            f"the model tells {classes} classes apart, and a class is judged by how far it stands "
            "out from the others, which takes at least 3: it cannot be examined, which does not "
            "mean that it is clean; ask who trained it, or train it anew on data of your own"
        )
    check_labels(labels, len(images), classes)
    if len(labels.unique()) < 2:
        raise InputError("expected images of at least two classes, got one")
    return images, labels, classes


def check_batch(model: nn.Module, images: object) -> tuple[Tensor, int]:
    """What a stage that is called alone needs of its images.

    Returns:
        The images on the model's device and of its type, and the number of classes.

    Raises:
        InputError: of another kind than `check_input` takes, but for the range of the images and
            the least number of classes.
    """
    check_module(model)
    images = check_images(images, ranged=False)
    like = next((p for p in model.parameters() if p.is_floating_point()), images)
    images = images.to(like)
    return images, check_classifier(model, images=images)


def check_examples(model: nn.Module, images: object, labels: object) -> tuple[Tensor, Tensor, int]:
    """As `check_batch`, of images with labels: int64 (n,), on the device of the model."""
    images = check_images(images, ranged=False)
    labels = check_labels(labels, len(images))
    images, classes = check_batch(model, images)
    return images, check_labels(labels, len(images), classes).to(images.device), classes


def _channels(shape: tuple[int, ...], model: nn.Module) -> str:
    """Advice where the channels of an image seem to come last, or too few."""
    taken = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if shape[-1] in (1, 3, 4) and shape[0] not in (1, 3, 4):
        return ", as (n, H, W, C) is: try images.permute(0, 3, 1, 2)"
    if len(shape) == 3 and shape[0] == 1 and taken == 3:
        size = f"3 {shape[1]} {shape[2]}"
        return f" (grey images, to a network that takes colour: input size {size}, --input-size)"
    return ""


def _inputs(model: nn.Module) -> list[str]:
    """What its forward must be given by position; for a `Classifier`, the network's."""
    network = model.network if isinstance(model, Classifier) else model
    try:
        parameters = inspect.signature(network.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in positional and p.default is p.empty]


def in_channels_last(model: nn.Module, images: Tensor) -> nn.Module:
    """A copy whose convolutions keep channels last in memory: up to twice as fast on CPUs.

    The model itself where that fails, as in networks that flatten with `view`.
    """
    try:
        copy = copy_of(model)
        copy.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's lack it
        check_classifier(copy, images=images)
    except Exception:  # it may be any network
        return model
    return copy


def _a_channel(name: str, value: float | Sequence[float] | None, default: float) -> Tensor:
    """One number, or one a channel, as (1, C, 1, 1)."""
    try:
        numbers = torch.as_tensor(default if value is None else value, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be one number or one a channel, got {value!r}") from error
    if numbers.ndim > 1 or numbers.numel() == 0 or not bool(numbers.isfinite().all()):
        raise InputError(f"{name} must be one finite number or one a channel, got {value}")
    return numbers.detach().clone().reshape(1, -1, 1, 1)
