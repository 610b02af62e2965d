"""Every defence by its name, ours beside the others, as the experiments call them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from shapprune.baselines import DEFENCES as OTHERS
from shapprune.baselines import Defence
from shapprune.errors import InputError
from shapprune.finetuning import fine_tune
from shapprune.game import NeuronGame
from shapprune.models import check_input
from shapprune.neurons import find_neurons, remove_neurons
from shapprune.pipeline import repair
from shapprune.pruning import Pruning
from shapprune.shapley import algorithm1

_COUNTS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256)
_MOST = 0.15  # of the neurons
_FAILS = 0.01  # ASR on the defender's images


def ours(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> nn.Module:
    """Our default: gradients as estimator, unlearning while fine-tuning."""
    return repair(model, images, labels, seed=seed, progress=_share(progress)).model


def ours_plain(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> nn.Module:
    """The paper's form: Algorithm 1, pruning, and fine-tuning on clean images."""
    found = repair(
        model,
        images,
        labels,
        unlearn=False,
        estimator="algorithm1",
        seed=seed,
        progress=_share(progress),
    )
    return found.model


def ours_with_trigger(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    target: int,
    stamp: Callable[[Tensor], Tensor],
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> nn.Module:
    """ "ShapPruning/o" of Table 1: the attacker's trigger is given, for comparison only.

    Algorithm 1 ranks the neurons on stamped images; the smallest number is pruned that leaves an
    ASR of at most 1 % on them, of 15 % of the neurons at most; then fine-tuning on clean images.

    Args:
        target: the attacker's class.
        stamp: puts the attacker's trigger on a batch.
        model, images, labels, seed, progress: as all defences have them.

    Raises:
        InputError: what does not fit, or no image of another class than the target.
    """
    images, labels, _ = check_input(model, images, labels)
    others = images[labels != target]
    if len(others) == 0:
        raise InputError("no image of another class than the target: give images of more classes")
    neurons = find_neurons(model, images)
    answers = torch.full((len(others),), target, device=images.device)
    game = NeuronGame(model, neurons, stamp(others), answers)
    generator = torch.Generator().manual_seed(seed)
    values = algorithm1(game, generator=generator, progress=progress).values
    order = values.argsort(descending=True)
    limit = max(1, int(_MOST * len(neurons)))
    counts = [count for count in _COUNTS if count <= limit]
    present = torch.ones(len(counts), len(neurons), dtype=torch.bool, device=images.device)
    for row, count in enumerate(counts):
        present[row, order[:count].to(images.device)] = False
    rates = game(present).tolist()
    enough = [count for count, rate in zip(counts, rates, strict=True) if rate <= _FAILS]
    best = enough[0] if enough else counts[rates.index(min(rates))]
    removed = tuple(order[:best].tolist())
    pruned = remove_neurons(model, neurons, removed)
    pruning = Pruning(pruned, values, removed, (), bool(enough))
    return fine_tune(model, pruning, images, labels, neurons=neurons, generator=generator)


def _share(progress: Callable[[float], None] | None) -> Callable[[str, float], None] | None:
    """What the stages report, which begins anew with each."""
    return (lambda _stage, share: progress(share)) if progress else None


DEFENCES: dict[str, Defence] = {**OTHERS, "ours-plain": ours_plain, "ours": ours}
