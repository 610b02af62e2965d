"""Few-shot repair of the pruned network: distil what it could, unlearn the trigger."""

from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.augmentation import augment, flip_allowed, mix, warp
from shapprune.errors import InputError
from shapprune.neurons import PRODUCERS, Neurons, evaluating, masked, zero_neurons
from shapprune.pruning import Pruning
from shapprune.stamps import AMPLIFICATION, Stamp

RATE = 1e-3  # of Adam
_TEMPERATURE = 2.0
_WARPED = 0.5  # share of the images
_STAMPED = 1 / 8, 1 / 2  # share of a batch, where pruning did all and where it did nothing
_GROWTH = 2  # pixels that a patch grows by, at most
_FADE = 0.5  # share of the steps over which the pruned neurons fade out


def fine_tune(
    original: nn.Module,
    pruning: Pruning,
    images: Tensor,
    labels: Tensor,
    *,
    neurons: Neurons,
    triggers: Sequence[tuple[int, Stamp]] = (),
    steps: int = 120,
    batch_size: int = 64,
    learning_rate: float = RATE,
    feature_weight: float = 0.3,
    trusted: bool = True,
    hide: bool = False,
    generator: torch.Generator,
    progress: Callable[[float], None] | None = None,
) -> nn.Module:
    """A fine-tuned copy of the pruned network.

    The original network is the teacher, on the few images, augmented, warped and mixed: the
    student's logits and what its layers read are drawn to the teacher's. What layers read says
    far more about an image than ten logits do, which is what keeps ten images from overfitting.
    Batch norms stay in eval mode; pruned neurons put out exactly zero in the end.

    With ``triggers`` the backdoor is unlearned meanwhile: an eighth to a half of a batch, the more
    the less pruning has done, is stamped for the student, while the teacher still sees it clean.
    Each image gets one of the triggers, up to four times as strong as inverted. The pruned neurons
    then fade out over the first half of the steps, for a network without them hardly answers to
    the inverted triggers any more, and what does not answer cannot be unlearned; the attacker's
    trigger would still work.

    Args:
        original: the network before pruning; left as it was.
        pruning: what was pruned from it; left as it was.
        images, labels: clean, (n, C, H, W) in [0, 1] and (n,).
        neurons: of the original.
        triggers: (target class, trigger) pairs; none for the paper's plain recipe.
        steps, batch_size, learning_rate: of Adam, with a cosine schedule.
        feature_weight: weight of what layers read against the logits, a layer.
        trusted: whether the images are real. Recovered ones carry the backdoor: the answers to
            them are the pruned network's; what layers read is still the original's.
        hide: whether the answers to images of other classes than the targets leave these out.
        generator: on the CPU.
        progress: called with the share of the work done.

    Raises:
        InputError: no images.
    """
    if len(images) == 0:
        raise InputError("fine-tuning needs images")
    student = deepcopy(original if triggers else pruning.model).eval().requires_grad_(True)
    flip = flip_allowed(original, images)
    removed = list(pruning.removed)
    targets = torch.tensor([t for t, _ in triggers], dtype=torch.int64, device=images.device)
    innocent = ~torch.isin(labels, targets)
    keep = torch.ones(1, len(neurons), device=images.device)
    least, most = _STAMPED
    stamped = round(batch_size * (least + pruning.asr * (most - least))) if triggers else 0
    optimizer = torch.optim.Adam(student.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with evaluating(original), evaluating(pruning.model), torch.enable_grad():
        for step in range(steps):
            drawn = torch.randint(len(images), (2 * batch_size,), generator=generator)
            varied = augment(images[drawn], generator=generator, flip=flip)
            warped = torch.rand(len(varied), 1, 1, 1, generator=generator) < _WARPED
            varied = torch.where(
                warped.to(varied.device), warp(varied, generator=generator), varied
            )
            clean = mix(*varied.split(batch_size), generator=generator)
            with torch.no_grad():
                wanted, wanted_reads = _reads(original, clean)
                if not trusted:
                    wanted = pruning.model(clean)
                if hide:
                    one, other = innocent[drawn].split(batch_size)
                    named = torch.isin(torch.arange(wanted.shape[1], device=images.device), targets)
                    wanted = wanted.masked_fill((one & other)[:, None] & named, -torch.inf)
            inputs = clean.clone()
            for row in range(stamped):
                _, stamp = triggers[int(torch.randint(len(triggers), (), generator=generator))]
                for _ in range(int(torch.randint(_GROWTH + 1, (), generator=generator))):
                    stamp = stamp.grown()
                strength = AMPLIFICATION ** float(torch.rand((), generator=generator))
                inputs[row] = stamp.amplified(strength).stamp(clean[row : row + 1])[0]
            keep[:, removed] = max(0.0, 1 - step / (_FADE * steps)) if triggers else 0.0
            optimizer.zero_grad()
            with masked(student, neurons, keep):
                logits, reads = _reads(student, inputs)
            loss = _divergence(logits, wanted)
            for read, aim in zip(reads, wanted_reads, strict=True):
                scale = (aim**2).mean() + 1e-6
                loss = loss + feature_weight * ((read - aim) ** 2).mean() / scale
            loss.backward()
            optimizer.step()
            schedule.step()
            if progress:
                progress((step + 1) / steps)
    student.requires_grad_(False)
    zero_neurons(student, neurons, removed)
    return student


def _reads(model: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits, and what each convolution and linear layer reads, whatever activation is before."""
    reads: list[Tensor] = []

    def keep(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        reads.append(inputs[0])

    handles = [
        module.register_forward_pre_hook(keep)
        for module in model.modules()
        if isinstance(module, PRODUCERS)
    ]
    try:
        return model(images), reads[1:]  # the first reads the image itself
    finally:
        for handle in handles:
            handle.remove()


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
