"""Channel Lipschitzness based pruning, CLP (Zheng et al., ECCV 2022): no data, no training.

A channel that answers to a trigger is more sensitive than others of its layer. Its Lipschitz
constant is bounded by the largest singular value of its filter, times what the batch norm after it
multiplies it by.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shapprune.baselines.plain_finetuning import Progress
from shapprune.errors import InputError
from shapprune.model.classifier import check_input
from shapprune.model.inference import evaluating

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """How sensitive the channels of a convolution are.

    Attributes:
        norm: the name of the batch norm that follows the convolution.
        constants: float (channels,), the bounds of their Lipschitz constants.
    """

    norm: str
    constants: Tensor

    def outliers(self, u: float) -> Tensor:
        """The channels above the layer's mean by more than u standard deviations.

        >>> Sensitivity("", torch.tensor([1.0, 2.0, 1.0, 2.0, 9.0])).outliers(1.5)
        tensor([4])
        """
        bound = self.constants.mean() + u * self.constants.std()
        return (self.constants > bound).nonzero().flatten()


def clp(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    u: float = 3.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> nn.Module:
    """A copy without the channels that are far more sensitive than others of their layer.

    They put out exactly 0 after the batch norm, as in the authors' code.

    Args:
        model: convolutions followed by batch norms; left as it was.
        images, labels: only their size is used.
        u: how many standard deviations above the mean are too many; the paper's 3.
        seed, progress: every defence takes them; nothing is drawn here.

    Raises:
        InputError: no convolution is followed by a batch norm with statistics.
    """
    images, _, _ = check_input(model, images, labels)
    copy = deepcopy(model)
    with torch.no_grad():
        for layer in channel_sensitivity(model, images):
            for parameter in copy.get_submodule(layer.norm).parameters(recurse=False):
                parameter[layer.outliers(u)] = 0
    if progress:
        progress(1.0)
    return copy


@torch.no_grad()
def channel_sensitivity(model: nn.Module, images: Tensor) -> tuple[Sensitivity, ...]:
    """The Lipschitz bounds of the channels of every convolution that a batch norm follows.

    σ_max of the filter as a matrix (inputs, kernel), times |γ| / σ of the batch norm.

    Args:
        model: left as it was.
        images: (n, C, H, W); one image is used, to see which norm reads which convolution.

    Raises:
        InputError: there is none.
    """
    names = {module: name for name, module in model.named_modules()}
    sources: dict[tuple[int, int], nn.Module] = {}
    alive: list[Tensor] = []  # so that ids stay unique
    pairs: dict[nn.Module, nn.Module] = {}

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, _CONVOLUTIONS):
            sources[id(output), output._version] = module
            alive.append(output)
        elif conv := sources.get((id(inputs[0]), inputs[0]._version)):
            pairs[module] = conv

    watched = [module for module in names if isinstance(module, (*_CONVOLUTIONS, *_NORMS))]
    handles = [module.register_forward_hook(record) for module in watched]
    try:
        with evaluating(model):
            model(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    found = []
    for norm, conv in pairs.items():
        weight, gain, variance = conv.weight, norm.weight, norm.running_var
        if isinstance(weight, Tensor) and isinstance(gain, Tensor) and isinstance(variance, Tensor):
            largest = torch.linalg.matrix_norm(weight.flatten(2), ord=2)
            scale = gain.abs() / variance.clamp(min=1e-12).sqrt()
            found.append(Sensitivity(names[norm], largest * scale))
    if not found:
        raise InputError(
            "CLP weighs convolutions by the batch norms that follow them, and the model has none "
            "that keeps statistics: use another defence"
        )
    return tuple(found)
