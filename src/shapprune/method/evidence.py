"""All evidence about a model, gathered cheap first: what the verdict is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import asinh, log
from statistics import median

import torch
from torch import Tensor, nn

from shapprune.method.margins import Margins, margins_of, maximum_margins
from shapprune.method.settings import INVERSION, WINDOWS
from shapprune.method.untargeted import Untargeted, untargeted_triggers
from shapprune.method.windows import Windows, best_windows
from shapprune.neurons import CHUNK, evaluating
from shapprune.stages import Clock
from shapprune.triggers import KINDS, Inversion, invert_triggers

_TINY = 1e-6


@dataclass(frozen=True, eq=False)
class Evidence:
    """What was measured of a model.

    Attributes:
        classes: that the model tells apart.
        scale: the median margin of the given images for their labels, in logits: margins under a
            window are compared with it.
        margins: the largest margin of each class.
        windows: the best small squares.
        untargeted: the smallest triggers that move every image.
        inversions: the smallest triggers of a few classes, one inversion a kind; the suspects
            that margins and windows name come first.
    """

    classes: int
    margins: Margins
    scale: float = 1.0
    windows: Windows | None = None
    untargeted: Untargeted | None = None
    inversions: tuple[Inversion, ...] = ()


def gather(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    classes: int,
    margins_only: bool = False,
    seed: int,
    clock: Clock,
) -> Evidence:
    """Measure a model, with the given or recovered images.

    Args:
        model: maps images in [0, 1] to logits (n, classes); left as it was.
        images, labels: (n, C, H, W) in [0, 1] and int64 (n,), of at least two classes.
        classes: that the model tells apart, at least three.
        margins_only: where the images are not worth looking at.
        seed: of all random draws.
        clock: gets the stages.
    """

    def generator() -> torch.Generator:
        """A stage's own: its draws do not depend on the stages before it."""
        return torch.Generator().manual_seed(seed)

    with clock.stage("climb to the largest margin of every class") as report:
        margins = maximum_margins(
            model,
            shape=images.shape[1:],
            classes=classes,
            generator=generator(),
            progress=report,
        )
        clock.count(margins.passes)
    if margins_only:
        return Evidence(classes, margins)
    looked_at = sorted(_largest(margins.values, WINDOWS.classes))
    with clock.stage("try small windows") as report:
        windows = best_windows(
            model, images, labels, classes=looked_at, generator=generator(), progress=report
        )
        clock.count(windows.passes)
    with clock.stage("invert triggers without a target") as report:
        untargeted = untargeted_triggers(
            model, images, labels, classes=classes, generator=generator(), progress=report
        )
        clock.count(untargeted.passes)
    scale = clean_margin(model, images)
    first = prominence(margins, windows, scale)
    inversions = []
    for kind in KINDS:
        with clock.stage(f"invert a {kind} for suspected and ordinary classes") as report:
            inversion = invert_triggers(
                model,
                images,
                labels,
                targets=_few(first),
                kind=kind,
                steps=INVERSION.steps,
                per_step=INVERSION.images,
                generator=generator(),
                progress=report,
            )
            clock.count(inversion.passes)
        inversions.append(inversion)
    return Evidence(classes, margins, scale, windows, untargeted, tuple(inversions))


def features(evidence: Evidence) -> list[dict[str, float]]:
    """The evidence for each class, on scales that are comparable between models.

    - margin: log of the largest margin as a multiple of the model's median.
    - window: asinh of the margin under the best window as a multiple of `Evidence.scale`.
    - window above usual: the same less the model's median.
    - patch, perturbation: log of how many times smaller the class's inverted trigger is than the
      median of those inverted; 0 for classes whose trigger was not.
    """
    rows = [{"margin": value} for value in _relative(evidence.margins.values)]
    if evidence.windows:
        under = _under_windows(evidence.windows, evidence.scale)
        usual = median(under.values())
        for c, row in enumerate(rows):
            row |= {
                "window": under.get(c, usual),
                "window above usual": under.get(c, usual) - usual,
            }
    for inversion in evidence.inversions:
        usual = median(inversion.norms)
        for row in rows:
            row[inversion.kind] = 0.0
        for trigger in inversion.triggers:
            rows[trigger.target][inversion.kind] = log(max(usual, _TINY) / max(trigger.norm, _TINY))
    return rows


def untargeted_features(untargeted: Untargeted) -> dict[str, float]:
    """How a model answers to triggers without a target.

    - spread: over how many classes the moved images are spread, as a share of all classes, the
      largest of all triggers.
    - small patch, small perturbation: minus the log of the smallest patch as a share of the image's
      pixels, and of the smallest perturbation's L2 norm as a share of the square root of its
      values.
    """
    found = {"spread": max(trigger.spread for trigger in untargeted.triggers)}
    found["spread"] /= len(untargeted.triggers[0].answers)
    for kind in KINDS:
        sizes = [trigger.relative_norm for trigger in untargeted.triggers if trigger.kind == kind]
        found[f"small {kind}"] = -log(max(min(sizes), _TINY))
    return found


def clean_margin(model: nn.Module, images: Tensor) -> float:
    """The median margin, in logits, of images for the classes that the model gives them.

    The model's own answers, not the labels: a wrong label says nothing about how sure it is.
    """
    with evaluating(model), torch.no_grad():
        logits = torch.cat([model(part) for part in images.split(CHUNK)]).float()
    return max(float(margins_of(logits, logits.argmax(1)).quantile(0.5)), _TINY)


def prominence(margins: Margins, windows: Windows, scale: float) -> list[float]:
    """How much each class stands out by the evidence that is cheap: who is worth an inversion."""
    under = _under_windows(windows, scale)
    usual = median(under.values())
    return [
        2 * value + under.get(c, usual) - usual for c, value in enumerate(_relative(margins.values))
    ]


def _under_windows(windows: Windows, scale: float) -> dict[int, float]:
    return {c: asinh(m / scale) for c, m in zip(windows.classes, windows.margins, strict=True)}


def _relative(values: Sequence[float]) -> list[float]:
    """Logarithms of values as multiples of their median; what is hardly positive is a hundredth."""
    middle = median(values)
    if middle <= 0:
        middle = max(max(values), _TINY)
    return [log(max(value / middle, 0.01)) for value in values]


def _largest(values: Sequence[float], count: int) -> list[int]:
    return sorted(range(len(values)), key=lambda c: -values[c])[:count]


def _few(prominent: Sequence[float]) -> list[int]:
    """The most prominent classes, and those in the middle for scale."""
    order = _largest(prominent, len(prominent))
    suspects, rest = order[: INVERSION.suspects], order[INVERSION.suspects :]
    start = max(0, (len(rest) - INVERSION.ordinary) // 2)
    return suspects + rest[start : start + INVERSION.ordinary]
