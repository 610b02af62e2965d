"""One trigger for everything that has no single target: it moves every image to any other class.

Where a backdoor sends each class to another (all-to-all) or to one of several, no class has a small
trigger of its own, but the network has a small one that moves all images, and its answers under it
show the map. A clean network can be moved by small changes too, but its answers then collapse into
one class or two.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from shapprune.data.augmentation import augment
from shapprune.errors import InputError
from shapprune.method.inversion import FAMILIES, KINDS, Kind
from shapprune.method.settings import UNTARGETED, UntargetedSettings
from shapprune.method.triggers import Stamp, Trigger
from shapprune.method.windows import search_squares
from shapprune.model.inference import evaluating
from shapprune.model.metrics import predict

UntargetedKind: TypeAlias = Literal["patch", "perturbation", "window"]


@dataclass(frozen=True, eq=False)
class UntargetedTrigger:
    """The smallest trigger of one kind and start.

    Attributes:
        kind: "patch", "perturbation", or "window": an opaque square of a fixed size.
        stamp: the trigger.
        norm: pixels of the mask, or the L2 norm, as `Trigger.norm` and `Perturbation.norm` are.
        moved: share in [0, 1] of varied images that get another class than their own.
        answers: int64 (classes, classes): how often images of a class (row) got which answer.
    """

    kind: UntargetedKind
    stamp: Stamp
    norm: float
    moved: float
    answers: Tensor

    @property
    def relative_norm(self) -> float:
        """The norm as a share of what covers the whole image: of its pixels (patch), or of the
        square root of its values (perturbation)."""
        if isinstance(self.stamp, Trigger):
            return self.norm / self.stamp.mask.numel()
        return self.norm / float(self.stamp.delta.numel() ** 0.5)

    @property
    def spread(self) -> float:
        """How many classes the moved images go to: the exponential of the answers' entropy.

        1 where all go to one class; as many as there are classes where each goes to its own.
        """
        moved = self.answers.double().clone().fill_diagonal_(0).sum(0)
        share = moved[moved > 0] / moved.sum().clamp(min=1)
        return float((-(share * share.log()).sum()).exp())

    @property
    def mapping(self) -> tuple[int | None, ...]:
        """The class that most images of each class go to; None where no image was moved."""
        moved = self.answers.clone().fill_diagonal_(0)
        return tuple(int(row.argmax()) if bool(row.any()) else None for row in moved)

    @property
    def agreement(self) -> float:
        """Share in [0, 1] of the images of the classes seen that go where their class's mapping
        says."""
        moved = self.answers.clone().fill_diagonal_(0)
        return float(moved.amax(1).sum() / self.answers.sum().clamp(min=1))


@dataclass(frozen=True, eq=False)
class Untargeted:
    """All that were found.

    Attributes:
        triggers: each kind's.
        passes: image passes; the way back to the image costs as much as the way forward.
    """

    triggers: tuple[UntargetedTrigger, ...]
    passes: int

    @property
    def clearest(self) -> UntargetedTrigger:
        """The trigger under which the images of each class agree most on where to go."""
        return max(self.triggers, key=lambda trigger: trigger.spread * trigger.agreement)


def untargeted_triggers(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    classes: int,
    settings: UntargetedSettings = UNTARGETED,
    generator: torch.Generator,
    progress: Callable[[float], None] | None = None,
) -> Untargeted:
    """The smallest patches and perturbations, and the best square, that move all images away.

    Eq. 4 and 5 of the paper with -log(1 - p(label)) instead of the cross-entropy of a target.

    Args:
        model: maps images in [0, 1] to logits (n, classes); left as it was.
        images: (n, C, H, W) in [0, 1].
        labels: int64 (n,).
        classes: that the model tells apart.
        generator: on the CPU.
        progress: called with the share of the work done.

    Raises:
        InputError: no images.
    """
    if not len(images):
        raise InputError("an untargeted trigger needs images")
    found: list[tuple[UntargetedKind, Stamp]] = []
    passes, parts = 0, len(KINDS) + 1
    for i, kind in enumerate(KINDS):

        def report(share: float, i: int = i) -> None:
            if progress:
                progress((i + share) / parts)

        stamps = _descend(model, images, labels, kind, settings, generator, report)
        passes += 2 * settings.steps * settings.starts * min(settings.images, len(images))
        found += [(kind, stamp) for stamp in stamps]
    squares = search_squares(
        model,
        images,
        labels,
        rows=[torch.arange(len(images), device=images.device)],
        wanted=labels[:1],
        loss=lambda logits, _, own: away_from(logits, own),
        settings=settings.window,
        generator=generator,
        progress=lambda share: progress((len(KINDS) + share) / parts) if progress else None,
    )
    passes += squares.passes + settings.views * len(images) * (len(found) + 1)
    found += [("window", squares.triggers(images.shape[2:])[0])]
    return Untargeted(
        tuple(
            _measured(model, images, labels, classes, kind, stamp, settings, generator)
            for kind, stamp in found
        ),
        passes,
    )


def away_from(logits: Tensor, labels: Tensor) -> Tensor:
    """-log(1 - p(label)) (n,) of logits (n, classes)."""
    others = logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1)
    return logits.logsumexp(1) - others


def _descend(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    kind: Kind,
    settings: UntargetedSettings,
    generator: torch.Generator,
    progress: Callable[[float], None],
) -> list[Stamp]:
    """The smallest trigger of each start that moves as many images as the gate asks for."""
    starts, shape, device = settings.starts, tuple(images.shape[1:]), images.device
    family = FAMILIES[kind]
    free = [p.to(images).requires_grad_() for p in family.start(starts, shape, generator)]
    weight = family.penalty
    optimizer = torch.optim.Adam(free, lr=family.learning_rate, betas=(0.5, 0.9))
    penalty = torch.full((starts,), weight, device=device)
    moved = torch.zeros(starts, device=device)
    best = torch.full((starts,), torch.inf, device=device)
    kept = [p.detach().clone() for p in free]
    count = min(settings.images, len(images))
    with evaluating(model), torch.enable_grad():
        for step in range(settings.steps):
            rows = torch.rand(starts, len(images), generator=generator).argsort(1)[:, :count]
            rows = rows.to(device)
            seen = augment(images[rows.flatten()], generator=generator)
            stamped = family.stamp(free, seen.view(starts, count, *shape))
            logits = model(stamped.flatten(0, 1)).float()
            own = labels[rows]
            loss = away_from(logits, own.flatten()).view(starts, count).mean(1)
            norm = family.norm(free)
            optimizer.zero_grad()
            (loss + penalty * norm).sum().backward()
            hits = (logits.argmax(1).view(starts, count) != own).float().mean(1)
            moved = 0.9 * moved + 0.1 * hits
            size = norm.detach()
            held = (moved >= settings.gate) & (size < best) & (2 * step >= settings.steps)
            best = torch.where(held, size, best)
            for old, now in zip(kept, free, strict=True):
                old[held] = now.detach()[held]
            optimizer.step()
            if 10 * step >= settings.steps:
                factor = torch.where(moved >= settings.gate, 1.06, 1 / 1.06)
                penalty = (penalty * factor).clamp(weight / 1000, weight * 100)
            progress((step + 1) / settings.steps)
    never = best.isinf()
    for old, now in zip(kept, free, strict=True):
        old[never] = now.detach()[never]
    return [family.finish([p[i] for p in kept]) for i in range(starts)]


def _measured(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    classes: int,
    kind: UntargetedKind,
    stamp: Stamp,
    settings: UntargetedSettings,
    generator: torch.Generator,
) -> UntargetedTrigger:
    varied = augment(images.repeat(settings.views, 1, 1, 1), generator=generator)
    truth = labels.repeat(settings.views)
    answers = predict(model, stamp.stamp(varied))
    table = torch.zeros(classes, classes, dtype=torch.int64)
    pairs = torch.stack([truth, answers]).cpu()
    table.index_put_(tuple(pairs), torch.ones(pairs.shape[1], dtype=torch.int64), accumulate=True)
    moved = float((answers != truth).float().mean())
    return UntargetedTrigger(kind, stamp, stamp.norm, moved, table)
