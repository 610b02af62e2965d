"""What a stranger's forward returns, in the shape that a classifier's output has."""

import torch
from torch import Tensor, nn

from shapprune.errors import InputError
from shapprune.model.inference import CHUNK
from shapprune.utils.text import describe


def outputs_of(model: nn.Module, images: Tensor, what: str, *, copy: bool = True) -> Tensor:
    """What the model returns for a copy of the images, without a gradient."""
    with torch.no_grad():
        parts = [
            _rows_of(model, part.clone() if copy else part, what) for part in images.split(CHUNK)
        ]
    return torch.cat(parts)


def _rows_of(model: nn.Module, images: Tensor, what: str) -> Tensor:
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


def fixed_draws() -> torch.Generator:
    """The same ones for every model, whatever the seed of the run."""
    return torch.Generator().manual_seed(0)


def largest(values: Tensor) -> float:
    """The largest magnitude."""
    return float(values.abs().max())


def spread(outputs: Tensor) -> float:
    """From the smallest to the largest."""
    return float(outputs.max() - outputs.min())
