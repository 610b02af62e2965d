"""Shapley values of a network's neurons, for the backdoor and for the accuracy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from shapprune.augmentation import augment, flip_allowed
from shapprune.errors import InputError
from shapprune.game import Metric, NeuronGame
from shapprune.neurons import Neurons
from shapprune.shapley import ShapleyValues, algorithm1, multilinear
from shapprune.stamps import Stamp

Estimator: TypeAlias = Literal["multilinear", "algorithm1"]

# Few neurons are pruned: what counts is nearer to the whole network than Shapley values reach.
_LOWEST = 0.8


@dataclass(frozen=True, eq=False)
class NeuronValues:
    """What each neuron contributes.

    Attributes:
        estimator: which one.
        asr: values for the ASR of the inverted triggers.
        accuracy: values for ACC, or None where the estimator does without.
        score: float (n,), what neurons are pruned by, largest first: the ASR value less the
            positive part of the accuracy value (the paper's mixture mode as one number).
        passes: image passes; a backward pass counts as two.
    """

    estimator: Estimator
    asr: ShapleyValues
    accuracy: ShapleyValues | None
    score: Tensor
    passes: int


def estimate_shapley(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    neurons: Neurons,
    triggers: Sequence[tuple[int, Stamp]],
    estimator: Estimator = "multilinear",
    samples: int = 1024,
    average_iterations: float = 50,
    generator: torch.Generator,
    progress: Callable[[float], None] | None = None,
) -> NeuronValues:
    """The Shapley value of every neuron for the ASR metric (Eq. 1 to 3).

    Args:
        model: left as it was.
        images, labels: clean, (n, C, H, W) and (n,).
        neurons: see `find_neurons`.
        triggers: (target class, trigger) pairs; the game is played on images stamped by all.
        estimator: "multilinear" (gradients, with the accuracy term) or "algorithm1" (the
            paper's, of the ASR alone).
        samples: gradients that "multilinear" draws for each of the two games.
        average_iterations: of "algorithm1".
        generator: on the CPU.
        progress: called with the share of the work done.

    Raises:
        InputError: no triggers, or no image of another class than a target.
    """
    if estimator not in get_args(Estimator):
        raise InputError(f"estimator must be one of {get_args(Estimator)}, got {estimator!r}")
    stamped, answers = stamped_images(images, labels, triggers)
    # A backdoor saturates the probability, and the logarithm still has a gradient there.
    metric: Metric = "success" if estimator == "algorithm1" else "log-probability"
    backdoor = NeuronGame(model, neurons, stamped, answers, metric=metric)
    if estimator == "algorithm1":
        asr = algorithm1(
            backdoor, average_iterations=average_iterations, generator=generator, progress=progress
        )
        return NeuronValues(estimator, asr, None, asr.values, backdoor.passes)
    flip = flip_allowed(model, images)
    varied = torch.cat([images, *(augment(images, generator=generator, flip=flip) for _ in "abc")])
    clean = NeuronGame(model, neurons, varied, labels.repeat(4), metric=metric)
    asr = multilinear(backdoor, budget=samples, lowest=_LOWEST, generator=generator)
    if progress:
        progress(0.5)
    accuracy = multilinear(clean, budget=samples, lowest=_LOWEST, generator=generator)
    if progress:
        progress(1.0)
    score = asr.values - accuracy.values.clamp(min=0)
    return NeuronValues(estimator, asr, accuracy, score, backdoor.passes + clean.passes)


def stamped_images(
    images: Tensor, labels: Tensor, triggers: Sequence[tuple[int, Stamp]]
) -> tuple[Tensor, Tensor]:
    """The images of other classes under each trigger, and the targets: (m, C, H, W) and (m,)."""
    if not triggers:
        raise InputError("expected at least one trigger")
    stamped = [trigger.stamp(images[labels != target]) for target, trigger in triggers]
    answers = [torch.full_like(labels[labels != target], target) for target, _ in triggers]
    if not all(map(len, stamped)):
        raise InputError("no image of another class than the target: give images of more classes")
    return torch.cat(stamped), torch.cat(answers)
