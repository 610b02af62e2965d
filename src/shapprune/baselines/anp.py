"""Adversarial neuron pruning, ANP (Wu and Wang, NeurIPS 2021).

Backdoor neurons answer most to a small change of the weights. A mask over the neurons is learned
under the worst such change; what it lets go of is pruned.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from shapprune.baselines.plain_finetuning import Progress
from shapprune.data.augmentation import augment, flip_allowed
from shapprune.model.classifier import check_input
from shapprune.model.neurons import Neurons, find_neurons
from shapprune.utils.rng import own_random_state


def anp(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    threshold: float = 0.2,
    iterations: int = 2000,
    batch_size: int = 128,
    seed: int = 0,
    progress: Progress | None = None,
) -> nn.Module:
    """A copy without the neurons whose learned mask is at the threshold or below.

    As in the authors' code, a pruned neuron loses its weights and keeps its bias: after a batch
    norm, its channel is the constant β.

    Args:
        model: maps images in [0, 1] to logits; left as it was. Neurons without a batch norm are
            masked by the weights of their layer; attention heads, which the paper has not, stay.
        images, labels: clean, (n, C, H, W) in [0, 1] and int64 (n,).
        threshold: fixed beforehand, as the paper's on CIFAR-10: nothing tells the defender a
            better one.
        iterations, batch_size, seed, progress: see `neuron_masks`.

    Raises:
        InputError: what does not fit, or no neurons.
    """
    images, labels, _ = check_input(model, images, labels)
    found = find_neurons(model, images)
    neurons = Neurons(tuple(layer for layer in found.layers if layer.projection is None))
    masks = neuron_masks(
        model,
        images,
        labels,
        neurons=neurons,
        iterations=iterations,
        batch_size=batch_size,
        seed=seed,
        progress=progress,
    )
    copy = deepcopy(model)
    with torch.no_grad():
        for layer, mask in zip(neurons.layers, neurons.split(masks), strict=True):
            copy.get_submodule(layer.name).get_parameter("weight")[mask <= threshold] = 0
    return copy


def neuron_masks(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    neurons: Neurons,
    iterations: int = 2000,
    batch_size: int = 128,
    epsilon: float = 0.4,
    alpha: float = 0.2,
    learning_rate: float = 0.2,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tensor:
    """Masks in [0, 1] that keep the clean loss low while the neurons are changed for the worse.

    In each iteration the weights (m + δ) w and biases (1 + ξ) b are moved one step of signed
    gradients to the worst corner, from a random start; then the mask m descends
    α · loss(m, 0, 0) + (1 - α) · loss(m, δ, ξ) by SGD with momentum 0.9. Batch norms are in
    training mode, as in the authors' code; the caller's keep their statistics.

    Args:
        iterations: of the mask.
        batch_size: images in an iteration, at most, drawn with replacement and augmented.
        epsilon: the largest change, relative to the weights.
        alpha: weight of the loss without changes.
        learning_rate: of the mask.
        seed: of all random draws.
        progress: called with the share of the work done.

    Returns:
        Float (n,).
    """
    generator = torch.Generator().manual_seed(seed)
    flip = flip_allowed(model, images)
    student = deepcopy(model).requires_grad_(False).train()
    size = min(batch_size, len(images))
    mask = torch.ones(len(neurons)).to(images).requires_grad_()
    optimizer = torch.optim.SGD([mask], learning_rate, momentum=0.9)
    own = dict(student.named_parameters())

    def loss(batch: Tensor, answer: Tensor, gain: Tensor, bias: Tensor | None) -> Tensor:
        changed = {}
        parts = neurons.split(gain), neurons.split(bias if bias is not None else gain)
        for layer, gains, biases in zip(neurons.layers, *parts, strict=True):
            weight = own[f"{layer.name}.weight"]
            changed[f"{layer.name}.weight"] = weight * gains.view(-1, *[1] * (weight.ndim - 1))
            if bias is not None and f"{layer.name}.bias" in own:
                changed[f"{layer.name}.bias"] = own[f"{layer.name}.bias"] * biases
        return F.cross_entropy(functional_call(student, changed, (batch,)), answer)

    with own_random_state(seed, images.device), torch.enable_grad():
        for iteration in range(iterations):
            rows = torch.randint(len(images), (size,), generator=generator)
            batch = augment(images[rows], generator=generator, flip=flip, colour=0.0)
            answer = labels[rows]
            noise = epsilon * (2 * torch.rand(2, len(neurons), generator=generator) - 1)
            noise = noise.to(images).requires_grad_()
            worse = loss(batch, answer, mask.detach() + noise[0], 1 + noise[1])
            (slope,) = torch.autograd.grad(worse, noise)
            # One step of ε from a random start in the ball, which the authors do not project back.
            noise = noise.detach() + epsilon * slope.sign()
            robust = loss(batch, answer, mask + noise[0], 1 + noise[1])
            natural = loss(batch, answer, mask, None)
            optimizer.zero_grad()
            (alpha * natural + (1 - alpha) * robust).backward()
            optimizer.step()
            with torch.no_grad():
                mask.clamp_(0, 1)
            if progress:
                progress((iteration + 1) / iterations)
    return mask.detach()
