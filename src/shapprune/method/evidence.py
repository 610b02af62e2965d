"""All evidence about a model, cheap first, and the features that the verdict is made of."""

from dataclasses import dataclass
from math import asinh, log

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shapprune.method.inversion import KINDS
from shapprune.method.margins import Margins, check_reached, margins_of, maximum_margins
from shapprune.method.perturbations import Perturbations, best_perturbations
from shapprune.method.settings import SPREAD_FLOOR, WINDOWS
from shapprune.method.signatures import signatures
from shapprune.method.untargeted import Untargeted, untargeted_triggers
from shapprune.method.windows import Windows, best_windows
from shapprune.model.inference import CHUNK, evaluating
from shapprune.model.metrics import predict
from shapprune.utils.progress import Clock

_TINY = 1e-6


@dataclass(frozen=True, eq=False)
class Evidence:
    """What was measured of a model.

    Attributes:
        classes: that the model tells apart.
        margins: the largest margin of each class.
        scale: the median margin of the images for the classes that the model gives them, in
            logits: other margins are told as multiples of it.
        windows: the best small squares; None where the images are not worth looking at.
        perturbations: the best perturbations of bounded size; None likewise.
        untargeted: triggers that move every image; None likewise.
        signatures: the mean weight of each class in the last layer; None where it has none.
    """

    classes: int
    margins: Margins
    scale: float = 1.0
    windows: Windows | None = None
    perturbations: Perturbations | None = None
    untargeted: Untargeted | None = None
    signatures: tuple[float, ...] | None = None

    @property
    def whole(self) -> bool:
        """Whether every kind of evidence was looked for, and not the margins alone."""
        return None not in (self.windows, self.perturbations, self.untargeted)


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

    Raises:
        InputError: see `check_reached`.
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
    check_reached(margins.values)
    rows = signatures(model, images, classes=classes)
    if margins_only:
        return Evidence(classes, margins, signatures=rows)
    order = sorted(range(classes), key=lambda c: -margins.values[c])
    looked_at = sorted(order[: WINDOWS.classes])
    with clock.stage("try small windows") as report:
        windows = best_windows(
            model, images, labels, classes=looked_at, generator=generator(), progress=report
        )
        clock.count(windows.passes)
    with clock.stage("try small perturbations") as report:
        perturbations = best_perturbations(
            model, images, labels, classes=looked_at, generator=generator(), progress=report
        )
        clock.count(perturbations.passes)
    with clock.stage("try triggers without a target") as report:
        # From where the model sees them: what it mistakes without a trigger was not moved by one.
        untargeted = untargeted_triggers(
            model,
            images,
            predict(model, images),
            classes=classes,
            generator=generator(),
            progress=report,
        )
        clock.count(untargeted.passes)
    scale = clean_margin(model, images)
    return Evidence(classes, margins, scale, windows, perturbations, untargeted, rows)


def features(evidence: Evidence) -> list[dict[str, float]]:
    """The evidence for each class, on scales that are comparable between models.

    - margin, margin signature, window, perturbation: how far the class stands out from the
      others, see `standing`: of the logarithms of the largest margins, of the signatures, and of
      the asinh of the margins under the best window and perturbation as multiples of
      `Evidence.scale`. Margin and signature have their odds together: both need no images.
    - window reach, perturbation reach: the last two themselves.

    A class that was not looked at has the median of those that were.
    """
    largest = np.array(evidence.margins.values)
    columns = {"margin": standing(np.log(np.maximum(largest / np.median(largest), 0.01)))}
    row_means = np.array(evidence.signatures or [0.0] * evidence.classes)
    columns["margin signature"] = standing(row_means)
    for name, found in (("window", evidence.windows), ("perturbation", evidence.perturbations)):
        if found:
            reach = [asinh(margin / evidence.scale) for margin in found.margins]
            every = np.full(evidence.classes, np.median(reach))
            every[list(found.classes)] = reach
            columns |= {name: standing(every), f"{name} reach": every}
    return [{k: float(v[c]) for k, v in columns.items()} for c in range(evidence.classes)]


def standing(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each value (n,) is above the median of the others.

    In units of how far the upper half of the others spreads around it (root mean square) and a
    floor: what is natural for some classes of a network is so for the next few as well.

    >>> float(standing(np.array([0.0, 0.0, 0.0, 1.0]))[3])
    5.0
    """
    found = np.empty(len(values))
    for c, value in enumerate(values):
        others = np.sort(np.delete(values, c))
        middle = np.median(others)
        spread = np.sqrt(np.mean((others[len(others) // 2 :] - middle) ** 2))
        found[c] = (value - middle) / (SPREAD_FLOOR + spread)
    return found


def untargeted_features(untargeted: Untargeted) -> dict[str, float]:
    """How a model answers to triggers without a target.

    - spread: over how many classes the images are spread that were moved, as a share of all
      classes, times the share that was moved; the largest of the patches and perturbations.
    - window spread: the same of the square.
    - small patch, small perturbation: minus the log of the smallest relative norm, see
      `UntargetedTrigger.relative_norm`.
    """
    spread: dict[str, list[float]] = {}
    sizes: dict[str, list[float]] = {}
    for trigger in untargeted.triggers:
        share = trigger.spread / len(trigger.answers) * trigger.moved
        spread.setdefault(trigger.kind, []).append(share)
        sizes.setdefault(trigger.kind, []).append(trigger.relative_norm)
    return {
        "spread": max(share for kind in KINDS for share in spread[kind]),
        "window spread": max(spread["window"]),
        **{f"small {kind}": -log(max(min(sizes[kind]), _TINY)) for kind in KINDS},
    }


def clean_margin(model: nn.Module, images: Tensor) -> float:
    """The median margin, in logits, of images for the classes that the model gives them.

    The model's own answers, not the labels: a wrong label says nothing about how sure it is.
    """
    with evaluating(model), torch.no_grad():
        logits = torch.cat([model(part) for part in images.split(CHUNK)]).float()
    return max(float(margins_of(logits, logits.argmax(1)).quantile(0.5)), _TINY)
