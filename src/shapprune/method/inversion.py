"""Trigger inversion: the smallest change of the images that has wanted answers (Eq. 4 and 5)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.data.augmentation import augment, flip_allowed
from shapprune.errors import InputError
from shapprune.method.triggers import (
    NOT_ATTACKED,
    Perturbation,
    Stamp,
    Target,
    TargetMap,
    Trigger,
    all_to_one,
    check_map,
    targets_of,
    wanted_answers,
)
from shapprune.model.checks import check_differentiable, check_generator, check_number
from shapprune.model.classifier import check_examples
from shapprune.model.inference import CHUNK, evaluating, searching
from shapprune.model.metrics import predict

Kind: TypeAlias = Literal["patch", "perturbation"]
KINDS: tuple[Kind, ...] = ("patch", "perturbation")

_FIRST_CUT, _SECOND_CUT = 0.4, 0.7  # shares of the steps after which hopeless classes stop


@dataclass(frozen=True, eq=False)
class InvertedTrigger:
    """The smallest trigger found for one map of classes.

    Attributes:
        mapping: the class that images of each class are sent to, None where they are left alone.
        stamp: the trigger.
        norm: its size: pixels of the mask (patch) or L2 norm (perturbation).
        asr: share of stamped, augmented images that it sends where the map says, averaged over
            the last steps.
        steps: optimisation steps spent on it; fewer where it was given up early.
    """

    mapping: TargetMap
    stamp: Stamp
    norm: float
    asr: float
    steps: int

    @property
    def target(self) -> int:
        """The one class that images are sent to.

        Raises:
            ValueError: they are sent to several.
        """
        (only,) = targets_of([self.mapping])
        return only


@dataclass(frozen=True, eq=False)
class Inversion:
    """Inverted triggers, one a class, and what they cost.

    Attributes:
        kind: "patch" (Eq. 4) or "perturbation".
        triggers: in the order of the targets asked for.
        passes: image passes; the way back to the image costs as much as the way forward.
    """

    kind: Kind
    triggers: tuple[InvertedTrigger, ...]
    passes: int

    @property
    def norms(self) -> tuple[float, ...]:
        return tuple(trigger.norm for trigger in self.triggers)


class Family(ABC):
    """A kind of trigger as free parameters, one row a class."""

    learning_rate: float
    penalty: float  # λ of Eq. 5 at the start

    @abstractmethod
    def start(self, rows: int, shape: tuple[int, ...], generator: torch.Generator) -> list[Tensor]:
        """Fresh parameters for images of a shape (C, H, W)."""

    @abstractmethod
    def stamp(self, parameters: Sequence[Tensor], images: Tensor) -> Tensor:
        """Images (rows, k, C, H, W), stamped, row by row."""

    @abstractmethod
    def norm(self, parameters: Sequence[Tensor]) -> Tensor:
        """Sizes (rows,)."""

    @abstractmethod
    def finish(self, parameters: Sequence[Tensor]) -> Stamp:
        """The trigger of one row's parameters."""


class _Patch(Family):
    """Mask and pattern of Eq. 4, each (tanh + 1) / 2 of a free tensor."""

    learning_rate, penalty = 0.1, 1e-3

    def start(self, rows: int, shape: tuple[int, ...], generator: torch.Generator) -> list[Tensor]:
        mask = 0.1 * torch.randn(rows, 1, *shape[1:], generator=generator) - 1
        return [mask, 0.1 * torch.randn(rows, *shape, generator=generator)]

    def stamp(self, parameters: Sequence[Tensor], images: Tensor) -> Tensor:
        mask, pattern = ((p.tanh() + 1).unsqueeze(1) / 2 for p in parameters)
        return (1 - mask) * images + mask * pattern

    def norm(self, parameters: Sequence[Tensor]) -> Tensor:
        return ((parameters[0].tanh() + 1) / 2).sum((1, 2, 3))

    def finish(self, parameters: Sequence[Tensor]) -> Trigger:
        mask, pattern = ((p.tanh() + 1) / 2 for p in parameters)
        return Trigger(mask, pattern)


class _Perturbation(Family):
    """A pattern added to the image. The clipping to [0, 1] lets gradients through."""

    learning_rate, penalty = 0.02, 0.1

    def start(self, rows: int, shape: tuple[int, ...], generator: torch.Generator) -> list[Tensor]:
        return [0.01 * torch.randn(rows, *shape, generator=generator)]

    def stamp(self, parameters: Sequence[Tensor], images: Tensor) -> Tensor:
        moved = images + parameters[0].unsqueeze(1)
        return moved + (moved.clamp(0, 1) - moved).detach()

    def norm(self, parameters: Sequence[Tensor]) -> Tensor:
        return (parameters[0] ** 2).sum((1, 2, 3)).sqrt()

    def finish(self, parameters: Sequence[Tensor]) -> Perturbation:
        return Perturbation(parameters[0])


FAMILIES: dict[Kind, Family] = {"patch": _Patch(), "perturbation": _Perturbation()}


@searching()
def invert_triggers(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    targets: Sequence[Target],
    kind: Kind = "patch",
    steps: int = 200,
    per_step: int = 8,
    gate: float = 0.95,
    give_up: bool = True,
    flip: bool | None = None,
    generator: torch.Generator,
    progress: Callable[[float], None] | None = None,
) -> Inversion:
    """For each target, the smallest trigger that sends the images of the other classes to it.

    Minimises CE(c, f(stamped)) + λ · norm (Eq. 5) by Adam for all targets in one batch; of a map,
    c is the class that an image's own class is sent to. λ adapts:
    it grows while the trigger reaches the gate, and shrinks while it does not. The images are
    augmented before they are stamped, anew in each step: a trigger for ten images alone misses
    others. Of the second half of the steps, the smallest trigger that holds the gate is kept.

    Classes whose triggers are above the median norm stop early, as in K-Arm (Shen et al. 2021):
    the detection looks at small norms, and theirs only need to be known as large.

    Args:
        model: maps images in [0, 1] to logits (n, classes); left as it was.
        images: (n, C, H, W) in [0, 1].
        labels: int64 (n,).
        targets: the classes, or maps of classes; one may be named several times, for several
            triggers.
        kind: "patch" is Eq. 4 with the L1 norm of the mask; "perturbation" adds a pattern to the
            whole image, with its L2 norm, which is how invisible triggers look.
        steps: optimisation steps.
        per_step: images a class and step.
        gate: the ASR that a trigger must reach.
        give_up: whether hopeless classes stop early.
        flip: whether mirrored images keep their meaning; None to ask the model.
        generator: on the CPU.
        progress: called with the share of the work done.

    Raises:
        InputError: no images of another class than a target, no such target, or a map of another
            length.
    """
    if kind not in FAMILIES:
        raise InputError(f"kind must be one of {KINDS}, got {kind!r}")
    if not targets:
        raise InputError("expected at least one target class")
    for name, value in (("steps", steps), ("per_step", per_step)):
        check_number(name, value, 1)
    check_generator(generator)
    images, labels, _ = check_examples(model, images, labels)
    check_differentiable(model)
    device, shape = images.device, tuple(images.shape[1:])
    family = FAMILIES[kind]
    maps = _maps(model, images, targets)
    flip = flip_allowed(model, images) if flip is None else flip
    wanted = torch.stack([wanted_answers(mapping, labels) for mapping in maps])
    gates = gate * _reachable(model, images, labels, maps, flip, generator).to(device)
    others = [(row != NOT_ATTACKED).nonzero().flatten() for row in wanted]
    if not all(len(rows) for rows in others):
        raise InputError("trigger inversion needs images of at least two classes")
    parameters = [
        p.to(device).requires_grad_() for p in family.start(len(targets), shape, generator)
    ]
    optimizer = torch.optim.Adam(parameters, lr=family.learning_rate, betas=(0.5, 0.9))
    penalty = torch.full((len(targets),), family.penalty, device=device)
    asr = torch.zeros(len(targets), device=device)
    best_norm = torch.full((len(targets),), torch.inf, device=device)
    best = [p.detach().clone() for p in parameters]
    active = torch.ones(len(targets), dtype=torch.bool)
    spent = [0] * len(targets)
    chunk = max(1, CHUNK // per_step)

    with evaluating(model), torch.enable_grad():
        for step in range(steps):
            rows = active.nonzero().flatten()
            drawn = torch.cat(
                [
                    others[row][torch.randint(len(others[row]), (per_step,), generator=generator)]
                    for row in rows.tolist()
                ]
            )
            batch = augment(images[drawn], generator=generator, flip=flip)
            batch = batch.view(len(rows), per_step, *shape)
            rows = rows.to(device)
            aims = wanted[rows.repeat_interleave(per_step), drawn].view(len(rows), per_step)
            optimizer.zero_grad()
            for part, some, aim in zip(
                rows.split(chunk), batch.split(chunk), aims.split(chunk), strict=True
            ):
                values = [p[part] for p in parameters]
                logits = model(family.stamp(values, some).flatten(0, 1)).float()
                answer = aim.flatten()
                loss = F.cross_entropy(logits, answer, reduction="none").view(len(part), per_step)
                (loss.mean(1) + penalty[part] * family.norm(values)).sum().backward()
                hits = (logits.argmax(1) == answer).float().view(len(part), per_step).mean(1)
                asr[part] = 0.9 * asr[part] + 0.1 * hits
            norm = family.norm([p.detach() for p in parameters])
            held = active.to(device) & (asr >= gates) & (norm < best_norm) & (2 * step >= steps)
            best_norm = torch.where(held, norm, best_norm)
            for kept, now in zip(best, parameters, strict=True):
                kept[held] = now.detach()[held]
            for row in rows.tolist():
                spent[row] += 1
            frozen = [p.detach().clone() for p in parameters]
            optimizer.step()
            with torch.no_grad():  # Adam's momentum would move the classes that have stopped
                for p, old in zip(parameters, frozen, strict=True):
                    p[~active] = old[~active]
            if step >= steps // 10:
                factor = torch.where(asr >= gates, 1.06, 1 / 1.06)
                penalty = (penalty * factor).clamp(family.penalty / 1000, family.penalty * 100)
            if give_up and step + 1 in (int(steps * _FIRST_CUT), int(steps * _SECOND_CUT)):
                active = active & _hopeful(norm).cpu()
            if progress:
                progress((step + 1) / steps)

    # A class that never held the gate has no small trigger: its last one is what is known.
    never = best_norm.isinf()
    norm = family.norm([p.detach() for p in parameters])
    for kept, now in zip(best, parameters, strict=True):
        kept[never] = now.detach()[never]
    norms = torch.where(never, norm, best_norm).tolist()
    triggers = [
        InvertedTrigger(m, family.finish([b[i] for b in best]), norms[i], float(asr[i]), spent[i])
        for i, m in enumerate(maps)
    ]
    return Inversion(kind, tuple(triggers), 2 * per_step * sum(spent))


def _maps(model: nn.Module, images: Tensor, targets: Sequence[Target]) -> list[TargetMap]:
    """Each target as a map over the model's classes."""
    with evaluating(model), torch.no_grad():
        classes = model(images[:1]).shape[1]
    return [
        all_to_one(target, classes) if isinstance(target, int) else check_map(target, classes)
        for target in targets
    ]


def _reachable(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    maps: Sequence[TargetMap],
    flip: bool,
    generator: torch.Generator,
) -> Tensor:
    """The share of augmented images that a trigger could send to their wanted answers, a map each.

    Where images of each class go to another, the trigger moves what the model sees: those that it
    mistakes go elsewhere.
    """
    share = 1.0
    if any(len(targets_of([mapping])) > 1 for mapping in maps):
        varied = augment(images.repeat(8, 1, 1, 1), generator=generator, flip=flip)
        share = float((predict(model, varied) == labels.repeat(8)).float().mean())
    return torch.tensor([share if len(targets_of([m])) > 1 else 1.0 for m in maps])


def _hopeful(norm: Tensor) -> Tensor:
    """The classes whose trigger may end below the median, with a margin."""
    hopeful: Tensor = norm <= 1.2 * median(norm.tolist())
    return hopeful
