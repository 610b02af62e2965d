"""What `scan` and `repair` check and warn of before they search."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeAlias
from warnings import warn

from torch import Tensor, nn

from shapprune.errors import InputError, InputWarning
from shapprune.method.case import Case, check_case
from shapprune.method.recovery import Recovery
from shapprune.method.triggers import Target, TargetMap, as_map
from shapprune.model.checks import check_number
from shapprune.model.inference import copy_of
from shapprune.model.neurons import Neurons, find_neurons

# What a repair may be told to take out: "y+1" sends each class to the next, "first" is what the
# scan names, and where it names nothing the class of the highest score.
Forced: TypeAlias = Target | Literal["y+1", "first"]


def enter(
    model: nn.Module,
    images: Tensor | None,
    labels: Tensor | None,
    recovered: Recovery | None,
    seed: int,
) -> Case:
    """The case, with its warnings given to who called `scan` or `repair`.

    Raises:
        InputError: see `check_case`; or the seed.
    """
    check_number("seed", seed, -(2**63), 2**63 - 1)
    case = check_case(model, images, labels, recovered=recovered)
    for warning in case.warnings:
        warn(warning, InputWarning, stacklevel=4)
    return case


def forced_maps(
    targets: Sequence[Forced], classes: int
) -> tuple[TargetMap | Literal["first"], ...]:
    """The maps that a repair is told to take out; "first" is told by the scan alone.

    Raises:
        InputError: they are no list of such as `repair` takes.
    """
    if not isinstance(targets, Sequence) or isinstance(targets, str):
        raise InputError(f"force_targets must be a list, got {targets!r}")
    return tuple(t if t == "first" else as_map(t, classes) for t in targets)


def find_prunable(case: Case, *, pruned: int | None, forced: bool) -> tuple[Case, Neurons | None]:
    """The case and the model's neurons; None, and a warning that says why, if it has none or
    cannot be copied, and so cannot be repaired.

    Args:
        case: of a model that may have no neurons, or that cannot be copied.
        pruned: how many neurons are to be pruned; None: not said.
        forced: whether a repair was asked for, whatever the verdict.

    Raises:
        InputError: it cannot, and the user asked for a repair of a certain kind.
    """
    try:
        neurons = find_neurons(copy_of(case.model), case.images)
        if pruned is not None:
            check_number("pruned", pruned, 0, len(neurons))
    except InputError as fault:
        if forced or pruned is not None:
            raise
        warning = f"scanned, but not to be repaired: {fault}"
        warn(warning, InputWarning, stacklevel=4)
        return replace(case, warnings=(*case.warnings, warning)), None
    return case, neurons
