"""From suspected classes to a repaired copy: the second half of the paper's Figure 1."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shapprune.estimation import Estimator, Mode, NeuronValues, estimate_shapley
from shapprune.finetuning import RATE, fine_tune
from shapprune.interpolation import way_back
from shapprune.neurons import Neurons, find_neurons
from shapprune.proxies import Proxies, Yardstick
from shapprune.pruning import Pruning, best_of, prune
from shapprune.stages import Clock, part_of
from shapprune.triggers import KINDS, InvertedTrigger, Kind, invert_triggers


@dataclass(frozen=True, eq=False)
class Repair:
    """A repaired copy of a model and how it came about.

    Attributes:
        model: the copy.
        targets: the classes whose triggers were removed.
        triggers: the inverted triggers that the repair worked with, refined for these classes.
        neurons: all prunable neurons.
        values: their Shapley values.
        pruning: the pruned copy before fine-tuning, and the pruning curve.
        unlearned: whether fine-tuning unlearned the triggers too.
        before, pruned, after: proxies of the original, the pruned and the repaired model.
    """

    model: nn.Module
    targets: tuple[int, ...]
    triggers: tuple[InvertedTrigger, ...]
    neurons: Neurons
    values: NeuronValues
    pruning: Pruning
    unlearned: bool
    before: Proxies
    pruned: Proxies
    after: Proxies


def refine_triggers(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    targets: Sequence[int],
    kinds: Sequence[Kind] = KINDS,
    seed: int,
    clock: Clock,
) -> tuple[InvertedTrigger, ...]:
    """Two triggers a target and kind, inverted with more care than those that a scan goes by.

    Args:
        targets: at least one class.
        kinds: of triggers, at least one.
        clock: gets the stage.
    """
    with clock.stage(f"refine the triggers of {_classes(targets)}") as report:
        refined = [
            invert_triggers(
                model,
                images,
                labels,
                targets=[*targets, *targets],
                kind=kind,
                per_step=32,
                gate=0.97,
                give_up=False,
                generator=torch.Generator().manual_seed(seed),
                progress=part_of(report, i, len(kinds)),
            )
            for i, kind in enumerate(kinds)
        ]
        clock.count(sum(inversion.passes for inversion in refined))
    return tuple(trigger for inversion in refined for trigger in inversion.triggers)


def mend(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    triggers: Sequence[InvertedTrigger],
    unlearn: bool = True,
    estimator: Estimator = "multilinear",
    mode: Mode | None = None,
    average_iterations: float = 50,
    count: int | None = None,
    trusted: bool = True,
    seed: int,
    clock: Clock,
) -> Repair:
    """Take triggers out of a model; see `shapprune.repair` for the rest.

    Args:
        triggers: from `refine_triggers`, at least one.
        trusted: whether the images are real and not recovered from the model.
        clock: gets the stages.
    """

    def generator() -> torch.Generator:
        """A stage's own: its draws do not depend on the stages before it."""
        return torch.Generator().manual_seed(seed)

    targets = tuple(dict.fromkeys(trigger.target for trigger in triggers))
    stamps = [(trigger.target, trigger.stamp) for trigger in triggers]
    of = _classes(targets)
    with clock.stage(f"estimate Shapley values for {of}") as report:
        neurons = find_neurons(model, images)
        values = estimate_shapley(
            model,
            images,
            labels,
            neurons=neurons,
            triggers=stamps,
            estimator=estimator,
            mode=mode,
            average_iterations=average_iterations,
            generator=generator(),
            progress=report,
        )
        clock.count(values.passes)
    with clock.stage(f"prune for {of}") as report:
        pruning = best_of(
            [
                prune(
                    model,
                    images,
                    labels,
                    neurons=neurons,
                    score=score,
                    triggers=stamps,
                    count=count,
                    trusted=trusted,
                    generator=generator(),
                    progress=part_of(report, i, len(values.scores)),
                )
                for i, score in enumerate(values.scores)
            ]
        )
    with clock.stage(f"fine-tune for {of}") as report:
        yardstick = Yardstick(
            model, images, labels, triggers=stamps, trusted=trusted, generator=generator()
        )
        tuned = fine_tune(
            model,
            pruning,
            images,
            labels,
            neurons=neurons,
            triggers=stamps if unlearn else (),
            trusted=trusted,
            learning_rate=2 * RATE if unlearn and yardstick.sink else RATE,
            hide=yardstick.sink or not trusted,
            generator=generator(),
            progress=report,
        )
        if unlearn and not yardstick.sink:  # for a sink, the way leads to the backdoor
            tuned = way_back(tuned, pruning, yardstick=yardstick)
    before, pruned, after = map(yardstick, (model, pruning.model, tuned))
    return Repair(
        tuned, targets, tuple(triggers), neurons, values, pruning, unlearn, before, pruned, after
    )


def _classes(targets: Sequence[int]) -> str:
    return f"class {', '.join(map(str, targets))}"
