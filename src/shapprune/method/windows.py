"""The best patch in a small window: how far an opaque square sends other images to a class.

A network that was taught a small trigger obeys it more surely than it recognises any object. So
the square is sought that raises the margin of a class on images of the others, at every place of a
coarse grid, with half-hearted places given up early (successive halving, as in K-Arm, Shen et al.
2021). No penalty weighs the size, since the window bounds it. What counts is the margin and not the
share of images: that can be all of them for several classes, whose margins still differ.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.method.settings import WINDOWS, WindowSettings
from shapprune.method.stamping import draw_images, images_of_others, measure_stamps
from shapprune.method.triggers import Trigger
from shapprune.model.inference import CHUNK, evaluating

Loss: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Windows:
    """The best square of each class that was looked at.

    Attributes:
        classes: those that were looked at.
        margins: of the class on images of the others under its square, the mean, one a class.
        shares: of these images that it sends to the class, in [0, 1].
        triggers: the squares.
        passes: image passes; the way back to the image costs as much as the way forward.
    """

    classes: tuple[int, ...]
    margins: tuple[float, ...]
    shares: tuple[float, ...]
    triggers: tuple[Trigger, ...]
    passes: int


@dataclass(frozen=True, eq=False)
class Squares:
    """Squares that are sought, one a row.

    Attributes:
        group: the search that each belongs to (r,): it competes with those of other places.
        wanted: the class of each (r,); what a search without a target has there is not used.
        corner: row and column of its first pixel (r, 2).
        pattern: (r, C, k, k) in [0, 1].
        passes: image passes so far.
    """

    group: Tensor
    wanted: Tensor
    corner: Tensor
    pattern: Tensor
    passes: int = 0

    def __getitem__(self, rows: Tensor) -> "Squares":
        return Squares(
            self.group[rows],
            self.wanted[rows],
            self.corner[rows],
            self.pattern[rows],
            self.passes,
        )

    def best(self, values: Tensor, keep: int) -> "Squares":
        """Those of the ``keep`` largest values (r,) of each group, group by group."""
        rows = []
        for group in self.group.unique():
            mine = (self.group == group).nonzero().flatten()
            rows.append(mine[values[mine].topk(min(keep, len(mine))).indices])
        return self[torch.cat(rows)]

    def stamp(self, images: Tensor) -> Tensor:
        """Images (r, m, C, H, W), each row's under its square."""
        mask, canvas = self._on_canvas(images.shape[3:])
        return images * (1 - mask.unsqueeze(1)) + canvas.unsqueeze(1)

    def triggers(self, size: Sequence[int]) -> list[Trigger]:
        """As triggers for images of a size (H, W)."""
        return [Trigger(m, p) for m, p in zip(*self._on_canvas(size), strict=True)]

    def _on_canvas(self, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Masks (r, 1, H, W) and patterns (r, C, H, W), 0 outside."""
        rows, channels, side, _ = self.pattern.shape
        reach = torch.arange(side, device=self.pattern.device)
        each = torch.arange(rows, device=self.pattern.device)[:, None, None]
        down = (self.corner[:, :1] + reach)[:, :, None]
        across = (self.corner[:, 1:] + reach)[:, None, :]
        mask = self.pattern.new_zeros(rows, *size)
        mask[each, down, across] = 1
        canvas = self.pattern.new_zeros(rows, *size, channels)
        canvas = canvas.index_put((each, down, across), self.pattern.permute(0, 2, 3, 1))
        return mask.unsqueeze(1), canvas.permute(0, 3, 1, 2)


def best_windows(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    classes: Sequence[int],
    settings: WindowSettings = WINDOWS,
    generator: torch.Generator,
    progress: Callable[[float], None] | None = None,
) -> Windows:
    """For each class the square that sends the images of the other classes to it most surely.

    Args:
        model: maps images in [0, 1] to logits; left as it was.
        images: (n, C, H, W) in [0, 1].
        labels: int64 (n,).
        classes: to look at.
        generator: on the CPU.
        progress: called with the share of the work done.

    Raises:
        InputError: no image of another class than one of these.
    """
    others = images_of_others(labels, classes)

    def loss(logits: Tensor, wanted: Tensor, _labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, wanted, reduction="none")

    squares = search_squares(
        model,
        images,
        labels,
        rows=others,
        wanted=torch.tensor(classes, device=images.device),
        loss=loss,
        settings=settings,
        generator=generator,
        progress=progress,
    )
    triggers = tuple(squares.triggers(images.shape[2:]))
    effect = measure_stamps(
        model,
        images,
        rows=others,
        classes=classes,
        stamps=triggers,
        views=settings.views,
        generator=generator,
    )
    return Windows(
        tuple(classes), effect.margins, effect.shares, triggers, squares.passes + effect.passes
    )


def search_squares(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    rows: Sequence[Tensor],
    wanted: Tensor,
    loss: Loss,
    settings: WindowSettings,
    generator: torch.Generator,
    progress: Callable[[float], None] | None,
) -> Squares:
    """The best square of several searches, one each.

    Args:
        rows: of each search, the images that its square is put on.
        wanted: of each search, the class that its loss is told (s,).
        loss: (m,) of logits (m, classes), wanted classes (m,) and labels (m,), the negative
            logarithm of a probability.
    """
    height, width = images.shape[2:]
    side = min(max(settings.smallest, round(settings.side * min(height, width))), height, width)
    corners = _grid(height - side, width - side, settings.places).to(images.device)
    group = torch.arange(len(rows), device=images.device).repeat_interleave(len(corners))
    drawn = torch.rand(len(group), images.shape[1], side, side, generator=generator)
    squares = Squares(group, wanted[group], corners.repeat(len(rows), 1), drawn.to(images))
    rounds = len(settings.steps)
    for i in range(rounds):
        surely = torch.zeros(len(squares.group), device=images.device)
        for step in range(settings.steps[i]):
            size = settings.first if 2 * step < settings.steps[i] else settings.last
            squares, sure = _step(
                model, images, labels, rows, squares, loss, settings.images[i], size, generator
            )
            surely = 0.8 * surely + 0.2 * sure
            if progress:
                progress((i + (step + 1) / settings.steps[i]) / rounds)
        last = i + 1 == rounds
        keep = 1 if last else max(1, round(settings.kept[i + 1] * len(corners)))
        squares = squares.best(surely, keep)
    return squares


def _step(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    rows: Sequence[Tensor],
    squares: Squares,
    loss: Loss,
    per_step: int,
    size: float,
    generator: torch.Generator,
) -> tuple[Squares, Tensor]:
    """The squares after a step of sign gradient descent, and how surely each worked before it."""
    drawn, batch = draw_images(images, rows, squares.group, per_step, generator)
    patterns, surely = [], []
    with evaluating(model), torch.enable_grad():
        for part in torch.arange(len(drawn), device=images.device).split(max(1, CHUNK // per_step)):
            some = squares[part]
            free = some.pattern.clone().requires_grad_()
            logits = model(replace(some, pattern=free).stamp(batch[part]).flatten(0, 1))
            wanted = some.wanted.repeat_interleave(per_step)
            losses = loss(logits, wanted, labels[drawn[part]].flatten())
            (slope,) = torch.autograd.grad(losses.sum(), free)
            patterns.append((some.pattern - size * slope.sign()).clamp(0, 1))
            surely.append((-losses.detach()).exp().view(-1, per_step).mean(1).float())
    passes = squares.passes + 2 * drawn.numel()
    return replace(squares, pattern=torch.cat(patterns), passes=passes), torch.cat(surely)


def _grid(down: int, across: int, places: int) -> Tensor:
    """First pixels (n, 2) of squares spread over the image, its borders included."""
    rows, columns = (
        torch.linspace(0, far, min(places, far + 1)).round().long() for far in (down, across)
    )
    return torch.cartesian_prod(rows, columns)
