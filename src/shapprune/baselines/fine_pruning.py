"""Fine-Pruning (Liu, Dolan-Gavitt and Garg, RAID 2018): prune what sleeps on clean images.

The channels of the last convolution are pruned from the least active on, as long as the accuracy
holds, and the rest is fine-tuned. When to stop is told by the defender's images, never by a test
set, and the network that is kept is the last one within the bound, not the first one beyond it.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from shapprune.baselines.plain_finetuning import Progress, train_on
from shapprune.model.classifier import check_input
from shapprune.model.inference import CHUNK, evaluating
from shapprune.model.masking import hooked, masked, remove_neurons, zero_neurons
from shapprune.model.metrics import accuracy
from shapprune.model.neurons import Neurons, find_neurons
from shapprune.utils.progress import part_of


def fine_pruning(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    drop: float = 0.1,
    epochs: int = 100,
    batch_size: int = 256,
    seed: int = 0,
    progress: Progress | None = None,
) -> nn.Module:
    """A copy with the channels pruned that the clean images do not need, then fine-tuned.

    Pruned channels stay at zero while fine-tuning, and in the end.

    Args:
        model: maps images in [0, 1] to logits; left as it was.
        images, labels: clean, (n, C, H, W) in [0, 1] and int64 (n,).
        drop: the share of the accuracy on these images that pruning may cost, BackdoorBench's.
        epochs, batch_size, seed, progress: see `plain_fine_tune`.

    Raises:
        InputError: what does not fit, or no neurons.
    """
    images, labels, _ = check_input(model, images, labels)
    neurons = find_neurons(model, images)
    order = dormant_first(model, images, neurons=neurons)
    least = (1 - drop) * accuracy(model, images, labels)
    kept = 0
    for count in range(1, len(order)):
        pruned = remove_neurons(model, neurons, order[:count])
        if accuracy(pruned, images, labels) < least:
            break
        kept = count
        if progress:
            part_of(progress, 0, 2)(count / len(order))
    copy, removed = deepcopy(model), order[:kept]
    keep = torch.ones(1, len(neurons), device=images.device)
    keep[:, removed] = 0
    with masked(copy, neurons, keep):
        train_on(
            copy,
            images,
            labels,
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            progress=part_of(progress, 1, 2),
        )
    zero_neurons(copy, neurons, removed)
    return copy


@torch.no_grad()
def dormant_first(model: nn.Module, images: Tensor, *, neurons: Neurons) -> list[int]:
    """The neurons of the last convolution, the least active on these images first.

    Activity is the mean of the positive part of what a neuron puts out after its normalisation:
    what passes a ReLU. A network without convolutions has its last hidden layer looked at.
    """
    activity: list[Tensor] = [torch.zeros(layer.size) for layer in neurons.layers]
    spatial: set[int] = set()

    def note(index: int, output: Tensor) -> Tensor:
        dim, size = neurons.layers[index].dim, neurons.layers[index].size
        rest = [d for d in range(output.ndim) if d != dim]
        features = output.clamp(min=0).sum(rest).view(size, -1)  # several of an attention head
        activity[index] = activity[index].to(output) + features.mean(1)
        if dim == 1 and output.ndim > 2:
            spatial.add(index)
        return output

    with evaluating(model), hooked(model, neurons, note):
        for part in images.split(CHUNK):
            model(part)
    last = max(spatial, default=len(activity) - 1)
    first = sum(layer.size for layer in neurons.layers[:last])
    return [first + channel for channel in activity[last].argsort(stable=True).tolist()]
