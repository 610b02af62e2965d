"""Few-shot fine-tuning: a student distils what the network could, and unlearns the triggers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.data.augmentation import augment, bend, mix, warp
from shapprune.errors import InputError
from shapprune.method.case import Case
from shapprune.method.evaluation import believed
from shapprune.method.optimizer import LayerwiseAdam
from shapprune.method.settings import POOL, TUNING, PoolSettings, TuningSettings
from shapprune.method.triggers import Stamp, TargetMap, Trigger, check_map, check_stamps
from shapprune.model.checks import check_generator, check_module, check_number
from shapprune.model.cost import operations
from shapprune.model.inference import CHUNK, copy_of, evaluating, searching
from shapprune.model.masking import masked, zero_neurons
from shapprune.model.metrics import predict
from shapprune.model.neurons import PRODUCERS, Neurons, check_neurons, image_dimension


@dataclass(frozen=True, eq=False)
class Pool:
    """Images that a student learns on, and what the network said to each, computed once.

    Attributes:
        images: (p, C, H, W) in [0, 1].
        logits: (p, classes), the teacher's.
        reads: what each convolution and linear layer but the first reads, (p, …) a layer.
        dimensions: in which each of all layers reads its images; None: it does not read them one
            by one, and is left out of ``reads``.
    """

    images: Tensor
    logits: Tensor
    reads: tuple[Tensor, ...]
    dimensions: tuple[int | None, ...]


@searching()
def distillation_pool(
    case: Case,
    maps: Sequence[TargetMap] = (),
    *,
    settings: PoolSettings = POOL,
    generator: torch.Generator,
) -> Pool:
    """Thousands of images out of few: shifted, turned, bent and mixed with each other.

    The teacher is believed or not image by image, see `believed`: those that it sends to a target
    although they are made of an image of another class, mixed or not, are left out.

    Args:
        case: its model is the teacher.
        maps: of the backdoors.
        settings: how many, and how far they go from the given ones.
        generator: on the CPU.
    """
    check_generator(generator)
    images, labels, teacher = case.images, case.labels, case.model
    maps = [check_map(mapping, case.classes) for mapping in maps]
    with evaluating(teacher), torch.no_grad():
        dimensions = _dimensions(teacher, images[:1])
        _, one = _reads(teacher, images[:1], dimensions)
    bytes_each = sum(read.numel() * read.element_size() for read in one)
    size = max(settings.least, min(settings.images, settings.memory // max(1, bytes_each)))
    drawn = torch.randint(len(images), (2 * size,), generator=generator)
    pool = augment(images[drawn], generator=generator, flip=case.flip_allowed)
    for change, share in ((warp, settings.warped), (bend, settings.bent)):
        some = torch.rand(len(pool), 1, 1, 1, generator=generator) < share
        pool = torch.where(some.to(pool.device), change(pool, generator=generator), pool)
    pool = mix(*pool.split(size), generator=generator)
    if maps:
        trusted = believed(maps, labels[drawn[:size]], predict(teacher, pool))
        if bool(trusted.any()):
            pool = pool[trusted]
    logits, reads = [], []
    with evaluating(teacher), torch.no_grad():
        for part in pool.split(CHUNK):
            answer, read = _reads(teacher, part, dimensions)
            logits.append(answer)
            reads.append(read)
    stacked = tuple(map(torch.cat, zip(*reads, strict=True)))
    return Pool(pool, torch.cat(logits), stacked, dimensions)


@searching()
def fine_tune(
    model: nn.Module,
    pool: Pool,
    *,
    neurons: Neurons,
    pruned: Sequence[int] = (),
    stamps: Sequence[Stamp] = (),
    stamped: float = 0.25,
    settings: TuningSettings = TUNING,
    optimizer: type[torch.optim.Optimizer] = LayerwiseAdam,
    generator: torch.Generator,
    progress: Callable[[float], None] | None = None,
) -> nn.Module:
    """A fine-tuned copy of a network, without some of its neurons and without its backdoor.

    The student's logits and what its layers read are drawn to what the network itself had for the
    images of the pool. What layers read says far more about an image than ten logits do, which
    is what keeps ten images from overfitting (FitNets, Romero et al. 2015). Batch norms stay in
    eval mode; the pruned neurons put out exactly zero in the end.

    With ``stamps`` the backdoor is unlearned meanwhile: a share of each batch is stamped for the
    student, while the teacher saw it clean. Each image gets one of the triggers, up to four times
    as strong as inverted. Removed neurons then fade out over the first half of the steps, for a
    network without them hardly answers to the inverted triggers any more, and what does not answer
    cannot be unlearned; the attacker's trigger would still work.

    Args:
        model: left as it was.
        pool: of the same model, see `distillation_pool`.
        neurons: of the model.
        pruned: numbers of neurons.
        stamps: triggers; none for plain distillation.
        stamped: share of a batch in [0, 1].
        settings: of the optimizer and of the losses.
        optimizer: takes parameters and ``lr``.
        generator: on the CPU.
        progress: called with the share of the work done.

    Raises:
        InputError: an empty pool, or what does not fit.
    """
    if len(pool.images) == 0:
        raise InputError("fine-tuning needs images")
    check_module(model)
    check_neurons(neurons, model, pruned)
    check_stamps(stamps, tuple(pool.images.shape[1:]))
    check_number("stamped", stamped, 0.0, 1.0)
    check_generator(generator)
    student = copy_of(model).eval().requires_grad_(True)
    stack = StampStack.of(stamps, growth=settings.growth) if stamps else None
    count = round(settings.batch_size * stamped) if stack else 0
    keep = torch.ones(1, len(neurons), device=pool.images.device)
    steps = _steps(model, pool.images, settings)
    scales = [(reads**2).mean() + 1e-6 for reads in pool.reads]
    descent = optimizer(student.parameters(), lr=settings.learning_rate)  # type: ignore[call-arg]
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(descent, steps)
    with torch.enable_grad():
        for step in range(steps):
            drawn = torch.randint(len(pool.images), (settings.batch_size,), generator=generator)
            drawn = drawn.to(pool.images.device)
            inputs = pool.images[drawn]
            if stack:
                marked = stack.stamp(inputs[:count], settings.amplification, generator=generator)
                inputs = torch.cat([marked, inputs[count:]])
            gone = step / (settings.fade * steps) if stack else 1.0
            keep[:, list(pruned)] = max(0.0, 1 - gone)
            descent.zero_grad()
            with masked(student, neurons, keep):  # also the backward pass: checkpoints run it again
                logits, reads = _reads(student, inputs, pool.dimensions)
                loss = _divergence(logits, pool.logits[drawn], settings.temperature)
                for read, aim, scale in zip(reads, pool.reads, scales, strict=True):
                    error = ((read - aim[drawn]) ** 2).mean() / scale
                    loss = loss + settings.feature_weight * error
                loss.backward()
            descent.step()
            schedule.step()
            if progress:
                progress((step + 1) / steps)
    student.requires_grad_(False)
    zero_neurons(student, neurons, pruned)
    return student


@dataclass(frozen=True, eq=False)
class StampStack:
    """Triggers of both kinds as tensors, so that each image of a batch gets one of its own.

    Attributes:
        masks: (k, 1, H, W) in [0, 1]; zero for perturbations.
        patterns: (k, C, H, W) in [0, 1].
        deltas: (k, C, H, W); zero for patches.
    """

    masks: Tensor
    patterns: Tensor
    deltas: Tensor

    @classmethod
    def of(cls, stamps: Sequence[Stamp], *, growth: int = 0) -> "StampStack":
        """Each trigger as it is, and wider by up to ``growth`` pixels. An opaque square, larger
        than need be already, is only taken as it is."""
        rows: list[tuple[Tensor, Tensor, Tensor]] = []
        for stamp in stamps:
            opaque = isinstance(stamp, Trigger) and bool((stamp.mask * (1 - stamp.mask) == 0).all())
            for wider in range(growth + 1):
                if wider and not opaque:
                    stamp = stamp.dilated()
                if isinstance(stamp, Trigger):
                    rows.append((stamp.mask, stamp.pattern, torch.zeros_like(stamp.pattern)))
                else:
                    nothing = torch.zeros_like(stamp.delta)
                    rows.append((nothing[:1], nothing, stamp.delta))
        return cls(*map(torch.stack, zip(*rows, strict=True)))

    def stamp(self, images: Tensor, most: float, *, generator: torch.Generator) -> Tensor:
        """The images (n, C, H, W), each with a random trigger one to ``most`` times as strong."""
        which = torch.randint(len(self.masks), (len(images),), generator=generator)
        strength = (most ** torch.rand(len(images), generator=generator)).to(images)
        which, strength = which.to(images.device), strength.view(-1, 1, 1, 1)
        mask = (self.masks.to(images)[which] * strength).clamp(max=1)
        patched = (1 - mask) * images + mask * self.patterns.to(images)[which]
        return (patched + strength * self.deltas.to(images)[which]).clamp(0, 1)


def _steps(model: nn.Module, images: Tensor, settings: TuningSettings) -> int:
    """As many as the operations allow, within bounds."""
    affordable = settings.operations / (3 * settings.batch_size * operations(model, images))
    return max(settings.least, min(settings.most, round(affordable)))


def _reads(
    model: nn.Module, images: Tensor, dimensions: Sequence[int | None]
) -> tuple[Tensor, list[Tensor]]:
    """Logits (n, classes), and what each convolution and linear layer but the first reads, whatever
    activation is before: (n, …) each, also where images are windows or come after tokens."""
    logits, reads = _all_reads(model, images)
    count = len(images)
    by_image = [
        read.movedim(dim, 0).unflatten(0, (count, -1)) if dim or len(read) != count else read
        for read, dim in zip(reads, dimensions, strict=True)
        if dim is not None
    ]
    return logits, by_image


def _dimensions(model: nn.Module, image: Tensor) -> tuple[int | None, ...]:
    """In which dimension each layer but the first reads its images; None where in none."""
    (_, one), (_, two) = (_all_reads(model, image.repeat(n, 1, 1, 1)) for n in (1, 2))
    return tuple(map(image_dimension, one, two))


def _all_reads(model: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    reads: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        reads.append(inputs[0] if inputs else next(iter(named.values())))

    handles = [
        module.register_forward_pre_hook(keep, with_kwargs=True)
        for module in model.modules()
        if isinstance(module, PRODUCERS)
    ]
    try:
        return model(images), reads[1:]  # the first reads the image itself
    finally:
        for handle in handles:
            handle.remove()


def _divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence of the softened answers (Hinton et al. 2015)."""
    loss = F.kl_div(
        F.log_softmax(student / temperature, 1),
        F.softmax(teacher / temperature, 1),
        reduction="batchmean",
    )
    return loss * temperature**2
