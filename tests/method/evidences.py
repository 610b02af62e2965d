"""Evidence made by hand, for tests of what is made of it."""

from collections.abc import Sequence

import torch

from shapprune.method.evidence import Evidence
from shapprune.method.margins import Margins
from shapprune.method.untargeted import Untargeted, UntargetedTrigger
from shapprune.method.windows import Windows
from shapprune.stamps import Perturbation, Trigger
from shapprune.triggers import Inversion, InvertedTrigger

SHAPE = (1, 4, 4)


def evidence(
    margins: Sequence[float],
    *,
    windows: Sequence[float] | None = None,
    answers: torch.Tensor | None = None,
    patches: dict[int, float] | None = None,
) -> Evidence:
    """Of a model with as many classes as margins; a scale of 1; answers to an untargeted patch."""
    n = len(margins)
    patch = Trigger(torch.eye(4)[None], torch.ones(SHAPE))
    answers = torch.zeros(n, n, dtype=torch.int64) if answers is None else answers
    untargeted = Untargeted(
        (
            UntargetedTrigger("patch", patch, patch.norm, 1.0, answers),
            UntargetedTrigger("perturbation", Perturbation(torch.ones(SHAPE)), 4.0, 1.0, answers),
        ),
        10,
    )
    inversions = (
        [
            Inversion(
                "patch",
                tuple(InvertedTrigger(c, patch, norm, 1.0, 1) for c, norm in patches.items()),
                10,
            )
        ]
        if patches
        else []
    )
    under = Windows(tuple(range(n)), tuple(windows or [-1.0] * n), (0.0,) * n, (patch,) * n, 10)
    return Evidence(
        n,
        Margins(tuple(margins), torch.zeros(n, *SHAPE), 10),
        1.0,
        under,
        untargeted,
        tuple(inversions),
    )


def next_class(n: int, count: int = 4) -> torch.Tensor:
    """The answers of an all-to-all backdoor."""
    return count * torch.eye(n, dtype=torch.int64).roll(1, 1)
