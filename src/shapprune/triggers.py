"""Trigger inversion: the smallest change of the images that reaches a class (Eq. 4 and 5)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.augmentation import augment, flip_allowed
from shapprune.errors import InputError
from shapprune.neurons import CHUNK, evaluating
from shapprune.stamps import Perturbation, Stamp, Trigger

Kind: TypeAlias = Literal["patch", "perturbation"]
KINDS: tuple[Kind, ...] = ("patch", "perturbation")

_FIRST_CUT, _SECOND_CUT = 0.4, 0.7  # shares of the steps after which hopeless classes stop


@dataclass(frozen=True, eq=False)
class InvertedTrigger:
    """The smallest trigger found for one class.

    Attributes:
        target: the class.
        stamp: the trigger.
        norm: its size: pixels of the mask (patch) or L2 norm (perturbation).
        asr: share of stamped, augmented images that it sends to the class, averaged over the
            last steps.
        steps: optimisation steps spent on the class; fewer where it was given up early.
    """

    target: int
    stamp: Stamp
    norm: float
    asr: float
    steps: int


@dataclass(frozen=True, eq=False)
class Inversion:
    """Inverted triggers, one a class, and what they cost.

    Attributes:
        kind: "patch" (Eq. 4) or "perturbation".
        triggers: in the order of the classes asked for.
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


def invert_triggers(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    targets: Sequence[int],
    kind: Kind = "patch",
    steps: int = 200,
    per_step: int = 8,
    gate: float = 0.95,
    give_up: bool = True,
    generator: torch.Generator,
    progress: Callable[[float], None] | None = None,
) -> Inversion:
    """For each class, the smallest trigger that sends the images of the other classes to it.

    Minimises CE(c, f(stamped)) + λ · norm (Eq. 5) by Adam for all classes in one batch. λ adapts:
    it grows while the trigger reaches the gate, and shrinks while it does not. The images are
    augmented before they are stamped, anew in each step: a trigger for ten images alone misses
    others. Of the second half of the steps, the smallest trigger that holds the gate is kept.

    Classes whose triggers are above the median norm stop early, as in K-Arm (Shen et al. 2021):
    the detection looks at small norms, and theirs only need to be known as large.

    Args:
        model: maps images in [0, 1] to logits (n, classes); left as it was.
        images: (n, C, H, W) in [0, 1].
        labels: int64 (n,).
        targets: the classes; one may be named several times, for several triggers.
        kind: "patch" is Eq. 4 with the L1 norm of the mask; "perturbation" adds a pattern to the
            whole image, with its L2 norm, which is how invisible triggers look.
        steps: optimisation steps.
        per_step: images a class and step.
        gate: the ASR that a trigger must reach.
        give_up: whether hopeless classes stop early.
        generator: on the CPU.
        progress: called with the share of the work done.

    Raises:
        InputError: no images of another class than a target.
    """
    device, shape = images.device, tuple(images.shape[1:])
    family = FAMILIES[kind]
    others = [(labels != target).nonzero().flatten() for target in targets]
    if not all(len(rows) for rows in others):
        raise InputError("trigger inversion needs images of at least two classes")
    flip = flip_allowed(model, images)
    wanted = torch.tensor(targets, device=device)
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
            optimizer.zero_grad()
            for part, some in zip(rows.to(device).split(chunk), batch.split(chunk), strict=True):
                values = [p[part] for p in parameters]
                logits = model(family.stamp(values, some).flatten(0, 1)).float()
                answer = wanted[part].repeat_interleave(per_step)
                loss = F.cross_entropy(logits, answer, reduction="none").view(len(part), per_step)
                (loss.mean(1) + penalty[part] * family.norm(values)).sum().backward()
                hits = (logits.argmax(1) == answer).float().view(len(part), per_step).mean(1)
                asr[part] = 0.9 * asr[part] + 0.1 * hits
            norm = family.norm([p.detach() for p in parameters])
            held = active.to(device) & (asr >= gate) & (norm < best_norm) & (2 * step >= steps)
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
                factor = torch.where(asr >= gate, 1.06, 1 / 1.06)
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
        InvertedTrigger(t, family.finish([b[i] for b in best]), norms[i], float(asr[i]), spent[i])
        for i, t in enumerate(targets)
    ]
    return Inversion(kind, tuple(triggers), 2 * per_step * sum(spent))


def _hopeful(norm: Tensor) -> Tensor:
    """The classes whose trigger may end below the median, with a margin."""
    hopeful: Tensor = norm <= 1.2 * median(norm.tolist())
    return hopeful
