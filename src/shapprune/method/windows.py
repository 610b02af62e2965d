"""The best patch in a small window: how far an opaque square sends other images to a class.

A network that was taught a small trigger obeys it more surely than it recognises any object. So
the square is sought that raises the margin of a class on images of the others, at every place of a
coarse grid, with half-hearted places given up early (successive halving, as in K-Arm, Shen et al.
2021). No penalty weighs the size, since the window bounds it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.augmentation import augment
from shapprune.errors import InputError
from shapprune.method.margins import margins_of
from shapprune.method.settings import WINDOWS, WindowSettings
from shapprune.neurons import CHUNK, evaluating
from shapprune.stamps import Trigger


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
class _Squares:
    """Squares that are sought, one a row.

    Attributes:
        wanted: the class of each (r,).
        corner: row and column of its first pixel (r, 2).
        pattern: (r, C, k, k) in [0, 1].
    """

    wanted: Tensor
    corner: Tensor
    pattern: Tensor

    def __getitem__(self, rows: Tensor) -> "_Squares":
        return _Squares(self.wanted[rows], self.corner[rows], self.pattern[rows])

    def stamp(self, images: Tensor, pattern: Tensor) -> Tensor:
        """Images (r, m, C, H, W), each row's under its square."""
        mask, canvas = self.on_canvas(images.shape[3:], pattern)
        return images * (1 - mask.unsqueeze(1)) + canvas.unsqueeze(1)

    def on_canvas(self, size: Sequence[int], pattern: Tensor) -> tuple[Tensor, Tensor]:
        """Masks (r, 1, H, W) and patterns (r, C, H, W), 0 outside."""
        rows, channels, side, _ = pattern.shape
        reach = torch.arange(side, device=pattern.device)
        each = torch.arange(rows, device=pattern.device)[:, None, None]
        down = (self.corner[:, :1] + reach)[:, :, None]
        across = (self.corner[:, 1:] + reach)[:, None, :]
        mask = pattern.new_zeros(rows, *size)
        mask[each, down, across] = 1
        canvas = pattern.new_zeros(rows, *size, channels)
        canvas = canvas.index_put((each, down, across), pattern.permute(0, 2, 3, 1))
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
    others = [(labels != c).nonzero().flatten() for c in classes]
    if not all(map(len, others)):
        raise InputError("windows need images of at least two classes")
    device, (channels, height, width) = images.device, images.shape[1:]
    side = min(max(settings.smallest, round(settings.side * min(height, width))), height, width)
    corners = _grid(height - side, width - side, settings.places).to(device)
    index = torch.arange(len(classes)).repeat_interleave(len(corners))
    squares = _Squares(
        torch.tensor(classes, device=device)[index.to(device)],
        corners.repeat(len(classes), 1),
        torch.rand(len(index), channels, side, side, generator=generator).to(images),
    )
    passes, rounds = 0, len(settings.steps)
    sure = torch.zeros(len(index))
    for i in range(rounds):
        if i:
            keep = max(1, round(settings.kept[i] * len(corners)))
            rows = _best_places(index, sure, len(classes), keep)
            index, squares = index[rows], squares[rows.to(device)]

        def report(share: float, i: int = i) -> None:
            if progress:
                progress((i + share) / rounds)

        squares, sure = _descend(
            model,
            images,
            [others[j] for j in index.tolist()],
            squares,
            steps=settings.steps[i],
            per_step=settings.images[i],
            settings=settings,
            generator=generator,
            progress=report,
        )
        passes += 2 * settings.steps[i] * settings.images[i] * len(index)
    margins = torch.full((len(index),), -torch.inf)
    shares = torch.zeros(len(index))
    with evaluating(model), torch.no_grad():
        for row, j in enumerate(index.tolist()):
            some = images[others[j]].repeat(max(1, settings.views // len(others[j])), 1, 1, 1)
            one = squares[torch.tensor([row], device=device)]
            seen = augment(some, generator=generator).unsqueeze(0)
            stamped = one.stamp(seen, one.pattern)[0]
            margin = torch.cat(
                [
                    margins_of(model(part), one.wanted.expand(len(part)))
                    for part in stamped.split(CHUNK)
                ]
            )
            margins[row], shares[row] = margin.mean(), (margin > 0).float().mean()
            passes += len(stamped)
    rows = _best_places(index, margins, len(classes), 1)
    masks, patterns = squares[rows.to(device)].on_canvas(
        (height, width), squares.pattern[rows.to(device)]
    )
    return Windows(
        tuple(classes),
        tuple(margins[rows].tolist()),
        tuple(shares[rows].tolist()),
        tuple(Trigger(m, p) for m, p in zip(masks, patterns, strict=True)),
        passes,
    )


def _descend(
    model: nn.Module,
    images: Tensor,
    others: Sequence[Tensor],
    squares: _Squares,
    *,
    steps: int,
    per_step: int,
    settings: WindowSettings,
    generator: torch.Generator,
    progress: Callable[[float], None],
) -> tuple[_Squares, Tensor]:
    """The squares after some steps, and how surely each works: its class's mean probability."""
    count = torch.tensor([len(rows) for rows in others])
    table = nn.utils.rnn.pad_sequence(list(others), batch_first=True)
    pattern = squares.pattern
    sure = torch.zeros(len(others))
    chunk = max(1, CHUNK // per_step)
    with evaluating(model), torch.enable_grad():
        for step in range(steps):
            pick = (torch.rand(len(others), per_step, generator=generator) * count[:, None]).long()
            drawn = table.gather(1, pick.to(table.device))
            batch = augment(images[drawn.flatten()], generator=generator)
            batch = batch.view(*drawn.shape, *images.shape[1:])
            moved, size = [], settings.first if 2 * step < steps else settings.last
            for rows in torch.arange(len(others), device=images.device).split(chunk):
                some = squares[rows]
                free = pattern[rows].clone().requires_grad_()
                logits = model(some.stamp(batch[rows], free).flatten(0, 1))
                answer = some.wanted.repeat_interleave(per_step)
                loss = F.cross_entropy(logits, answer, reduction="none")
                (slope,) = torch.autograd.grad(loss.sum(), free)
                moved.append((free.detach() - size * slope.sign()).clamp(0, 1))
                hit = (-loss.detach()).exp().view(-1, per_step).mean(1).float().cpu()
                where = rows.cpu()
                sure[where] = 0.8 * sure[where] + 0.2 * hit
            pattern = torch.cat(moved)
            progress((step + 1) / steps)
    return _Squares(squares.wanted, squares.corner, pattern), sure


def _best_places(index: Tensor, values: Tensor, classes: int, keep: int) -> Tensor:
    """The rows of the ``keep`` largest values of each class, class by class."""
    rows = []
    for j in range(classes):
        mine = (index == j).nonzero().flatten()
        rows.append(mine[values[mine].topk(min(keep, len(mine))).indices])
    return torch.cat(rows)


def _grid(down: int, across: int, places: int) -> Tensor:
    """First pixels (n, 2) of squares spread over the image, its borders included."""
    rows, columns = (
        torch.linspace(0, far, min(places, far + 1)).round().long() for far in (down, across)
    )
    return torch.cartesian_prod(rows, columns)
