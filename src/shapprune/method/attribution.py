"""Shapley values of a network's neurons, for the backdoor and for the accuracy (Eq. 1 to 3)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from shapprune.data.augmentation import augment, flip_allowed
from shapprune.errors import InputError
from shapprune.method.settings import LEAST_PRESENT
from shapprune.method.triggers import NOT_ATTACKED, Stamp, Target, check_stamps, wanted_answers
from shapprune.model.checks import check_generator, check_number
from shapprune.model.classifier import check_examples
from shapprune.model.game import Metric, NeuronGame
from shapprune.model.inference import searching
from shapprune.model.neurons import Neurons
from shapprune.shapley import ShapleyValues, algorithm1, multilinear
from shapprune.utils.progress import part_of

Estimator: TypeAlias = Literal["multilinear", "algorithm1"]


@dataclass(frozen=True, eq=False)
class NeuronValues:
    """What each neuron contributes.

    Attributes:
        estimator: which one.
        asr: values for the ASR of the inverted triggers.
        accuracy: values for ACC, or None where the estimator does without.
        margin: values for the target on maximum-margin inputs, or None where there are none.
        scores: float (n,) each, what neurons are pruned by, largest first. More than one is left
            to pruning to choose among.
        passes: image passes; a backward pass counts as two.
    """

    estimator: Estimator
    asr: ShapleyValues
    accuracy: ShapleyValues | None
    margin: ShapleyValues | None
    scores: tuple[Tensor, ...]
    passes: int


@searching()
def estimate_shapley(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    neurons: Neurons,
    triggers: Sequence[tuple[Target, Stamp]],
    extremes: tuple[Tensor, Tensor] | None = None,
    estimator: Estimator = "multilinear",
    samples: int = 1024,
    average_iterations: float = 50,
    flip: bool | None = None,
    generator: torch.Generator,
    progress: Callable[[float], None] | None = None,
) -> NeuronValues:
    """The Shapley value of every neuron for the ASR metric (Eq. 1 to 3).

    Args:
        model: left as it was.
        images, labels: clean, (n, C, H, W) and (n,).
        neurons: see `find_neurons`.
        triggers: (target, trigger) pairs; the game is played on images stamped by all.
        extremes: maximum-margin inputs (m, C, H, W) and the classes int64 (m,) that they are of.
            They need no trigger: the same game on them gives another score of "multilinear".
        estimator: "multilinear" (gradients): scores are values less the positive part of those for
            the accuracy; or "algorithm1" (the paper's): those for the ASR alone.
        samples: gradients that "multilinear" draws for each of the two games.
        average_iterations: of "algorithm1".
        flip: whether mirrored images keep their meaning; None to ask the model.
        generator: on the CPU.
        progress: called with the share of the work done.

    Raises:
        InputError: no triggers, no image of another class than a target, or what does not fit.
    """
    check_ways(estimator, average_iterations)
    check_generator(generator)
    check_number("samples", samples, 1)
    images, labels, _ = check_examples(model, images, labels)
    stamped, answers = stamped_images(images, labels, triggers)
    if estimator == "algorithm1":
        game = NeuronGame(model, neurons, stamped, answers)
        asr = algorithm1(
            game, average_iterations=average_iterations, generator=generator, progress=progress
        )
        return NeuronValues(estimator, asr, None, None, (asr.values,), game.passes)
    # A backdoor saturates the probability, and the logarithm still has a gradient there.
    metric: Metric = "log-probability"
    parts = 3 if extremes else 2

    def values(game: NeuronGame, part: int) -> ShapleyValues:
        report = part_of(progress, part, parts)
        return multilinear(
            game, budget=samples, min_q=LEAST_PRESENT, generator=generator, progress=report
        )

    backdoor = NeuronGame(model, neurons, stamped, answers, metric=metric)
    flip = flip_allowed(model, images) if flip is None else flip
    varied = torch.cat([images, *(augment(images, generator=generator, flip=flip) for _ in "abc")])
    clean = NeuronGame(model, neurons, varied, labels.repeat(4), metric=metric)
    asr, accuracy = values(backdoor, 0), values(clean, 1)
    passes = backdoor.passes + clean.passes
    cost, margin = accuracy.values.clamp(min=0), None
    scores = [asr.values - cost]
    if extremes:
        surest = NeuronGame(model, neurons, *extremes, metric=metric)
        margin = values(surest, 2)
        scores.append(margin.values - cost)
        passes += surest.passes
    return NeuronValues(estimator, asr, accuracy, margin, tuple(scores), passes)


def check_ways(estimator: object, average_iterations: object) -> None:
    """Raise InputError unless they are such as `estimate_shapley` takes."""
    if estimator not in get_args(Estimator):
        raise InputError(f"estimator must be one of {get_args(Estimator)}, got {estimator!r}")
    check_number("average_iterations", average_iterations, 0.0)


def stamped_images(
    images: Tensor, labels: Tensor, triggers: Sequence[tuple[Target, Stamp]]
) -> tuple[Tensor, Tensor]:
    """The images that each trigger attacks, under it, and the answers that it wants: (m, C, H, W)
    and (m,)."""
    if not triggers:
        raise InputError("expected at least one trigger")
    stamped, answers = [], []
    for pair in triggers:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise InputError(
                "expected pairs of a target and a trigger, as (t.mapping, t.stamp) of an inverted "
                f"one, got a {type(pair).__name__}"
            )
        target, trigger = pair
        check_stamps([trigger], tuple(images.shape[1:]))
        wanted = wanted_answers(target, labels)
        attacked = wanted != NOT_ATTACKED
        stamped.append(trigger.stamp(images[attacked]))
        answers.append(wanted[attacked])
    if not all(map(len, stamped)):
        raise InputError("no image of another class than the target: give images of more classes")
    return torch.cat(stamped), torch.cat(answers)
