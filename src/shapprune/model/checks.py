"""What a caller hands over, told by its kind before anything is run."""

from math import inf
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from shapprune.errors import InputError
from shapprune.utils.text import list_names

_Lazy: TypeAlias = UninitializedParameter | UninitializedBuffer


def check_module(model: object) -> None:
    """Refuse what is no module that can be run.

    Raises:
        InputError: it is no `nn.Module`, or has tensors without values, or replicas.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"the model must be a torch.nn.Module, got {no_module(model)}")
    lazy, empty = [], []
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if isinstance(tensor, _Lazy):
            lazy.append(name)
        elif tensor.is_meta:
            empty.append(name)
    if lazy:
        raise InputError(
            f"of the model, {list_names(lazy)} have no size yet, as in lazy modules: load the "
            "weights, or run the model once, before it is examined"
        )
    if empty:
        raise InputError(
            f"of the model, {list_names(empty)} are on the device meta and have no values: load "
            "the weights"
        )
    for name, module in model.named_modules():
        if isinstance(module, nn.DataParallel) and len(module.device_ids) > 1:
            raise InputError(
                f"{list_names([name]) if name else 'the model'} is a DataParallel over "
                f"{len(module.device_ids)} devices, and neurons are masked on one: give its .module"
            )


def check_differentiable(model: nn.Module) -> None:
    """Raise InputError if parameters take no part in gradients; a copy of the model's do."""
    names = [name for name, tensor in model.named_parameters() if tensor.is_inference()]
    if names:
        raise InputError(
            f"of the model, {list_names(names)} were made under torch.inference_mode() and take no "
            "part in gradients: build or load it outside of that"
        )


def no_module(value: object) -> str:
    """What is there in the place of a module, and what to do."""
    if isinstance(value, type):
        return f"the class {value.__name__}: call it to make one"
    if isinstance(value, dict):
        return (
            "a dictionary: if it is a state dict, load it into its network with load_state_dict, "
            "or give its file to load_classifier"
        )
    if callable(value):
        return f"a {type(value).__name__}: call it in the forward of a module"
    return f"a {type(value).__name__}"


def check_images(images: object, *, ranged: bool = True) -> Tensor:
    """Images that gradients can be asked of.

    Args:
        ranged: whether they must be in [0, 1]; else any finite number will do.

    Returns:
        The same without a graph, (n, C, H, W), n at least 1.

    Raises:
        InputError: they are of another kind.
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
        raise InputError(
            f"images must be a float tensor (n, C, H, W) in [0, 1], got {kind(images)}"
            f"{_advice(images)}"
        )
    images = images.detach()
    if len(images) == 0:
        raise InputError("expected at least one image, got none")
    if bool(images.isnan().any()):
        number = int(images.isnan().flatten(1).any(1).sum())
        raise InputError(f"images must be in [0, 1], got NaN in {number} of {len(images)}")
    low, high = float(images.min()), float(images.max())
    if not ranged and -inf < low <= high < inf:
        low, high = 0.0, 1.0
    if not 0 <= low <= high <= 1:
        raise InputError(
            f"images must be in [0, 1], got {low:g} to {high:g}: "
            + (
                "divide them by 255"
                if low >= 0 and 16 < high <= 255
                else "normalisation belongs into the model (see Classifier)"
            )
        )
    # What was made under inference_mode can be read, but no gradient can be asked of it.
    return images.clone() if images.is_inference() else images


def check_labels(labels: object, count: int, classes: int | None = None) -> Tensor:
    """Labels (count,) as int64.

    Args:
        classes: they must be below it; None where it is not known.

    Raises:
        InputError: they are of another kind, or not as many as images.
    """
    whole = isinstance(labels, Tensor) and labels.dtype in (
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
    )
    if not isinstance(labels, Tensor) or not whole or labels.ndim != 1:
        raise InputError(f"labels must be an int64 tensor (n,), got {kind(labels)}")
    if len(labels) != count or not count:
        raise InputError(f"{count} images and {len(labels)} labels: expected as many, > 0")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (classes is not None and high >= classes):
        most = "" if classes is None else f" .. {classes - 1}"
        raise InputError(f"labels must be in 0{most}, got {low} to {high}")
    labels = labels.detach().long()
    return labels.clone() if labels.is_inference() else labels


def check_generator(generator: object) -> None:
    """Raise InputError unless it is a generator on the CPU."""
    if not isinstance(generator, torch.Generator) or generator.device.type != "cpu":
        raise InputError(
            "generator must be a torch.Generator on the CPU, as torch.Generator().manual_seed(0), "
            f"got {kind(generator)}"
        )


def check_number(name: str, value: object, least: float, most: float = inf) -> None:
    """Raise InputError unless the value is a number in [least, most]; whole, if least is an int."""
    wanted = "a whole number" if isinstance(least, int) else "a number"
    fits = isinstance(value, int if isinstance(least, int) else (int, float))
    if not fits or isinstance(value, bool) or not least <= value <= most:  # type: ignore[operator]
        bounds = f"from {least}" + (f" to {most}" if most < inf else "")
        raise InputError(f"{name} must be {wanted} {bounds}, got {value!r}")


def kind(value: object) -> str:
    """What a value is, in an error about it."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)}"
    return type(value).__name__


def _advice(images: object) -> str:
    if isinstance(images, Tensor):
        if images.ndim == 3:
            return ": a batch of one image is image[None]"
        return ": divide them by 255" if images.dtype == torch.uint8 else ""
    if type(images).__module__.partition(".")[0] == "numpy":
        return ": use torch.from_numpy, and divide by 255 what is uint8"
    return ""
