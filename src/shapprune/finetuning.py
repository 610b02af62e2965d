"""Few-shot repair of the pruned network: distil what it could, unlearn the trigger."""

from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.augmentation import augment, flip_allowed, mix
from shapprune.errors import InputError
from shapprune.neurons import Neurons, evaluating, hooked, zero_neurons
from shapprune.stamps import Perturbation, Stamp

_TEMPERATURE = 2.0
_AMPLIFICATION = 4.0  # the attacker's trigger is stronger than the smallest that works


def fine_tune(
    original: nn.Module,
    pruned: nn.Module,
    images: Tensor,
    *,
    neurons: Neurons,
    removed: Sequence[int],
    triggers: Sequence[tuple[int, Stamp]] = (),
    radius: float | None = None,
    attack_share: float = 0.2,
    steps: int = 120,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    feature_weight: float = 1.0,
    generator: torch.Generator,
    progress: Callable[[float], None] | None = None,
) -> nn.Module:
    """A fine-tuned copy of the pruned network.

    The original network is the teacher, on the few images, augmented and mixed: the student's
    logits and the outputs of its neurons are drawn to the teacher's. Features say far more about
    an image than ten logits do, which is what keeps ten images from overfitting. Batch norms
    stay in eval mode, pruned neurons at exactly zero.

    With ``triggers`` the backdoor is unlearned meanwhile: on the stamped half of a batch the
    teacher still sees the clean images. Each image gets one of the triggers, up to four times as
    strong as inverted, or (``attack_share`` of them) a universal perturbation toward the target
    inside an L2 ball, renewed against the student in each step.

    Args:
        original, pruned: left as they are.
        images: clean, (n, C, H, W) in [0, 1].
        neurons, removed: see `Pruning`.
        triggers: (target class, trigger) pairs; none for the paper's plain recipe.
        radius: of the L2 ball, in units of images in [0, 1]; None for no attack.
        attack_share: share of the stamped images that the attack gets.
        steps, batch_size, learning_rate: of Adam, with a cosine schedule.
        feature_weight: weight of the features' term, summed over layers.
        generator: on the CPU.
        progress: called with the share of the work done.

    Raises:
        InputError: no images.
    """
    if len(images) == 0:
        raise InputError("fine-tuning needs images")
    student = deepcopy(pruned).eval()
    student.requires_grad_(True)
    flip = flip_allowed(original, images)
    keep = torch.ones(len(neurons), device=images.device)
    keep[list(removed)] = 0
    kept = neurons.split(keep)
    optimizer = torch.optim.Adam(student.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    attacks = {target: Perturbation(torch.zeros_like(images[0])) for target, _ in triggers}
    with evaluating(original):
        for step in range(steps):
            pairs = torch.randint(len(images), (2 * batch_size,), generator=generator)
            varied = augment(images[pairs], generator=generator, flip=flip)
            clean = mix(*varied.split(batch_size), generator=generator)
            with torch.no_grad():
                wanted, wanted_features = _features(original, neurons, clean)
            if radius is not None:
                for target, attack in attacks.items():
                    attacks[target] = _strengthen(student, clean[::2], target, attack, radius)
            inputs = clean.clone()
            for row in range(batch_size // 2 if triggers else 0):
                target, stamp = triggers[_draw(len(triggers), generator)]
                if radius is not None and _uniform(generator) < attack_share:
                    stamp = attacks[target]
                else:
                    stamp = stamp.amplified(_AMPLIFICATION ** _uniform(generator))
                inputs[row] = stamp.stamp(clean[row : row + 1])[0]
            optimizer.zero_grad()
            logits, features = _features(student, neurons, inputs)
            loss = _divergence(logits, wanted)
            for layer, feature, aim, mask in zip(
                neurons.layers, features, wanted_features, kept, strict=True
            ):
                shape = [1] * aim.ndim
                shape[layer.dim] = layer.size
                aim = aim * mask.to(aim.dtype).view(shape)
                scale = (aim**2).mean() + 1e-6
                loss = loss + feature_weight * ((feature - aim) ** 2).mean() / scale
            loss.backward()
            optimizer.step()
            schedule.step()
            zero_neurons(student, neurons, removed)
            if progress:
                progress((step + 1) / steps)
    return student.requires_grad_(False)


def _features(model: nn.Module, neurons: Neurons, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits, and the outputs of the layers that hold the neurons."""
    features: dict[int, Tensor] = {}

    def keep(index: int, output: Tensor) -> Tensor:
        features[index] = output
        return output

    with hooked([model.get_submodule(layer.name) for layer in neurons.layers], keep):
        logits = model(images)
    return logits, [features[i] for i in range(len(neurons.layers))]


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL divergence of the softened answers (Hinton et al. 2015)."""
    return (
        F.kl_div(
            F.log_softmax(student / _TEMPERATURE, 1),
            F.softmax(teacher / _TEMPERATURE, 1),
            reduction="batchmean",
        )
        * _TEMPERATURE**2
    )


def _strengthen(
    student: nn.Module, images: Tensor, target: int, attack: Perturbation, radius: float
) -> Perturbation:
    """Two steps of projected gradient ascent of the target's log-probability."""
    delta = attack.delta
    with evaluating(student):
        for _ in range(2):
            delta = delta.detach().requires_grad_()
            answer = F.log_softmax(student((images + delta).clamp(0, 1)), 1)[:, target].mean()
            (gradient,) = torch.autograd.grad(answer, delta)
            delta = delta + 0.3 * radius * gradient / gradient.norm().clamp(min=1e-12)
            delta = delta * (radius / delta.norm().clamp(min=radius))
    return Perturbation(delta.detach())


def _draw(n: int, generator: torch.Generator) -> int:
    return int(torch.randint(n, (), generator=generator))


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))
