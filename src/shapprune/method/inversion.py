"""Trigger inversion: the smallest change of the images that has wanted answers (Eq. 4 and 5)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.data.augmentation import augment, flip_allowed
from shapprune.errors import InputError
from shapprune.method.families import PATCH, PERTURBATION, Family
from shapprune.method.settings import CUTS
from shapprune.method.triggers import (
    NOT_ATTACKED,
    Stamp,
    Target,
    TargetMap,
    as_map,
    targets_of,
    wanted_answers,
)
from shapprune.model.checks import check_differentiable, check_generator, check_number
from shapprune.model.classifier import check_examples
from shapprune.model.inference import CHUNK, evaluating, searching
from shapprune.model.metrics import predict

Kind: TypeAlias = Literal["patch", "perturbation"]
KINDS: tuple[Kind, ...] = ("patch", "perturbation")


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
        """The triggers' sizes."""
        return tuple(trigger.norm for trigger in self.triggers)


FAMILIES: dict[Kind, Family] = {"patch": PATCH, "perturbation": PERTURBATION}


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
    _check_ways(kind, targets, steps, per_step, generator)
    images, labels, _ = check_examples(model, images, labels)
    check_differentiable(model)
    shape, maps = tuple(images.shape[1:]), _maps(model, images, targets)
    flip = flip_allowed(model, images) if flip is None else flip
    wanted = torch.stack([wanted_answers(mapping, labels) for mapping in maps])
    gates = gate * _reachable(model, images, labels, maps, flip, generator).to(images.device)
    others = [(row != NOT_ATTACKED).nonzero().flatten() for row in wanted]
    if not all(len(rows) for rows in others):
        raise InputError("trigger inversion needs images of at least two classes")
    search = _Search(FAMILIES[kind], len(maps), shape, images.device, generator)
    active = torch.ones(len(maps), dtype=torch.bool)
    spent = torch.zeros(len(maps), dtype=torch.int64)

    with evaluating(model), torch.enable_grad():
        for step in range(steps):
            rows = active.nonzero().flatten()
            drawn = torch.cat([_draw(others[row], per_step, generator) for row in rows.tolist()])
            batch = augment(images[drawn], generator=generator, flip=flip)
            rows = rows.to(images.device)
            answers = wanted[rows.repeat_interleave(per_step), drawn]
            search.differentiate(
                model,
                rows,
                batch.view(len(rows), per_step, *shape),
                answers.view(len(rows), per_step),
            )
            spent += active
            if 2 * step >= steps:
                search.keep_best(active.to(images.device) & (search.asr >= gates))
            norms = search.norms()
            search.step(active)
            if step >= steps // 10:
                search.adapt_penalty(gates)
            if give_up and step + 1 in [int(steps * share) for share in CUTS]:
                active = active & _hopeful(norms).cpu()
            if progress:
                progress((step + 1) / steps)

    triggers = [
        InvertedTrigger(mapping, stamp, norm, asr, passes)
        for mapping, (stamp, norm, asr), passes in zip(
            maps, search.found(), spent.tolist(), strict=True
        )
    ]
    return Inversion(kind, tuple(triggers), 2 * per_step * int(spent.sum()))


def _check_ways(
    kind: object, targets: Sequence[Target], steps: int, per_step: int, generator: object
) -> None:
    if kind not in FAMILIES:
        raise InputError(f"kind must be one of {KINDS}, got {kind!r}")
    if not targets:
        raise InputError("expected at least one target class")
    for name, value in (("steps", steps), ("per_step", per_step)):
        check_number(name, value, 1)
    check_generator(generator)


class _Search:
    """The triggers of one family while they are optimised, a row each, and the best ones so far.

    Attributes:
        asr: (rows,), running means over the steps.
    """

    def __init__(
        self,
        family: Family,
        rows: int,
        shape: tuple[int, ...],
        device: torch.device,
        generator: torch.Generator,
    ) -> None:
        self._family = family
        self._parameters = [
            p.to(device).requires_grad_() for p in family.start(rows, shape, generator)
        ]
        self._optimizer = torch.optim.Adam(
            self._parameters, lr=family.learning_rate, betas=(0.5, 0.9)
        )
        self._penalty = torch.full((rows,), family.penalty, device=device)
        self.asr = torch.zeros(rows, device=device)
        self._best_norms = torch.full((rows,), torch.inf, device=device)
        self._best = [p.detach().clone() for p in self._parameters]

    def differentiate(self, model: nn.Module, rows: Tensor, images: Tensor, aims: Tensor) -> None:
        """The gradients of Eq. 5 for some rows' images (rows, k, C, H, W) and wanted answers
        (rows, k)."""
        self._optimizer.zero_grad()
        chunk, shape = max(1, CHUNK // images.shape[1]), aims.shape[1:]
        for part, some, aim in zip(
            rows.split(chunk), images.split(chunk), aims.split(chunk), strict=True
        ):
            values = [p[part] for p in self._parameters]
            logits = model(self._family.stamp(values, some).flatten(0, 1)).float()
            answer = aim.flatten()
            loss = F.cross_entropy(logits, answer, reduction="none").view(len(part), *shape)
            (loss.mean(1) + self._penalty[part] * self._family.norm(values)).sum().backward()
            hits = (logits.argmax(1) == answer).float().view(len(part), *shape).mean(1)
            self.asr[part] = 0.9 * self.asr[part] + 0.1 * hits

    def norms(self) -> Tensor:
        """Sizes (rows,) of the triggers as they are now."""
        return self._family.norm([p.detach() for p in self._parameters])

    def keep_best(self, rows: Tensor) -> None:
        """Remember the triggers of the rows (a mask) that are smaller than before."""
        self._keep(rows & (self.norms() < self._best_norms))

    def _keep(self, rows: Tensor) -> None:
        self._best_norms = torch.where(rows, self.norms(), self._best_norms)
        for kept, now in zip(self._best, self._parameters, strict=True):
            kept[rows] = now.detach()[rows]

    def step(self, active: Tensor) -> None:
        """Move the active rows (a mask on the CPU)."""
        frozen = [p.detach().clone() for p in self._parameters]
        self._optimizer.step()
        with torch.no_grad():  # Adam's momentum would move the classes that have stopped
            for p, old in zip(self._parameters, frozen, strict=True):
                p[~active] = old[~active]

    def adapt_penalty(self, gates: Tensor) -> None:
        """λ grows while the gate is held, and shrinks while it is not."""
        first, factor = self._family.penalty, torch.where(self.asr >= gates, 1.06, 1 / 1.06)
        self._penalty = (self._penalty * factor).clamp(first / 1000, first * 100)

    def found(self) -> Iterator[tuple[Stamp, float, float]]:
        """Each row's best trigger, its norm and the last ASR."""
        # A class that never held the gate has no small trigger: its last one is what is known.
        self._keep(self._best_norms.isinf())
        for i, (norm, asr) in enumerate(
            zip(self._best_norms.tolist(), self.asr.tolist(), strict=True)
        ):
            yield self._family.finish([best[i] for best in self._best]), norm, asr


def _draw(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return images[torch.randint(len(images), (count,), generator=generator)]


def _maps(model: nn.Module, images: Tensor, targets: Sequence[Target]) -> list[TargetMap]:
    """Each target as a map over the model's classes."""
    with evaluating(model), torch.no_grad():
        classes = model(images[:1]).shape[1]
    return [as_map(target, classes) for target in targets]


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
