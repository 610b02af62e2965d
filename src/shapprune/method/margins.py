"""The largest margin that any input reaches: evidence that needs no images.

A backdoor teaches a network to be far surer of its target than of any class that it learned from
images. So the target's logit can exceed all others by more than another class's can. Wang, Xiang,
Miller and Kesidis, "MM-BD: Post-Training Detection of Backdoor Attacks with Arbitrary Backdoor
Pattern Types Using a Maximum Margin Statistic", IEEE S&P 2024.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shapprune.errors import InputError
from shapprune.method.settings import MARGINS, MarginSettings
from shapprune.model.inference import CHUNK, evaluating


@dataclass(frozen=True, eq=False)
class Margins:
    """What was found for every class.

    Attributes:
        values: the largest margin of each class, its logit less the largest other one.
        inputs: what reaches it, (classes, C, H, W) in [0, 1].
        passes: image passes; the way back to the image costs as much as the way forward.
    """

    values: tuple[float, ...]
    inputs: Tensor
    passes: int


def maximum_margins(
    model: nn.Module,
    *,
    shape: Sequence[int],
    classes: int,
    settings: MarginSettings = MARGINS,
    generator: torch.Generator,
    progress: Callable[[float], None] | None = None,
) -> Margins:
    """For each class the input in [0, 1] of the largest margin, by Adam from uniform noise.

    Args:
        model: maps images in [0, 1] to logits (n, classes); left as it was.
        shape: (C, H, W) of its images.
        classes: that it tells apart, at least two.
        generator: on the CPU.
        progress: called with the share of the work done.

    Raises:
        InputError: fewer than two classes.

    >>> linear = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    >>> _ = linear[1].weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    >>> found = maximum_margins(
    ...     linear, shape=(1, 1, 2), classes=2, generator=torch.Generator().manual_seed(0)
    ... )
    >>> [round(value, 3) for value in found.values]
    [3.0, 1.0]
    """
    if classes < 2:
        raise InputError(f"a margin needs at least two classes, got {classes}")
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    starts = settings.starts if classes < settings.many else 1
    each = max(1, settings.rows // starts)
    values, inputs = [], []
    with evaluating(model), torch.enable_grad():
        for first in range(0, classes, each):
            wanted = torch.arange(first, min(first + each, classes)).repeat_interleave(starts)
            noise = torch.rand(len(wanted), *shape, generator=generator).to(like)
            best, reached = _climb(model, noise, wanted.to(like.device), settings)
            chosen = best.view(-1, starts).argmax(1)
            rows = torch.arange(len(chosen), device=chosen.device) * starts + chosen
            values += best[rows].tolist()
            inputs.append(reached[rows])
            if progress:
                progress(min(first + each, classes) / classes)
    passes = 2 * classes * starts * settings.steps
    return Margins(tuple(values), torch.cat(inputs), passes)


def check_reached(values: Sequence[float], settings: MarginSettings = MARGINS) -> None:
    """Refuse margins (classes,) of which half or more are none: the others would be told as
    multiples of a median that means nothing.

    Outputs that saturate have no gradient where the climb begins, and no class gets away from it.

    Raises:
        InputError: so many classes were not reached.
    """
    least = settings.reached * max(values)
    missed = sum(value <= max(least, 0.0) for value in values)
    if 2 * missed >= len(values):
        raise InputError(
            f"no input was found to which the model answers {missed} of its {len(values)} classes, "
            "and where so many are missing no class can stand out: if its outputs saturate (tanh, "
            "a clamp, percentages), return the logits, which come before; classes that it never "
            "learned, leave out"
        )


def _climb(
    model: nn.Module, images: Tensor, wanted: Tensor, settings: MarginSettings
) -> tuple[Tensor, Tensor]:
    """The largest margins (n,) on the way up from images, and where they were reached."""
    images = images.clone().requires_grad_()
    optimizer = torch.optim.Adam([images], lr=settings.learning_rate)
    best = torch.full((len(images),), -torch.inf, device=images.device)
    reached = images.detach().clone()
    for _ in range(settings.steps):
        optimizer.zero_grad()
        found = []
        for part, answer in zip(images.split(CHUNK), wanted.split(CHUNK), strict=True):
            margin = margins_of(model(part), answer)
            (-margin.sum()).backward()
            found.append(margin.detach())
        now = torch.cat(found)
        better = now > best
        best = torch.where(better, now, best)
        reached[better] = images.detach()[better]
        optimizer.step()
        with torch.no_grad():
            images.clamp_(0, 1)
    return best.float(), reached


def margins_of(logits: Tensor, labels: Tensor) -> Tensor:
    """The margin (n,) of each row's label: its logit less the largest other one.

    >>> margins_of(torch.tensor([[1.0, 5.0, 2.0]]), torch.tensor([1]))
    tensor([3.])
    """
    own = labels[:, None]
    others = logits.scatter(1, own, -torch.inf).amax(1)
    return logits.gather(1, own)[:, 0] - others
