"""Evidence made by hand, for tests of what is made of it."""

from collections.abc import Sequence

import torch

from shapprune.method.evidence import Evidence
from shapprune.method.margins import Margins
from shapprune.method.perturbations import Perturbations
from shapprune.method.triggers import Perturbation, Stamp, Trigger
from shapprune.method.untargeted import Untargeted, UntargetedKind, UntargetedTrigger
from shapprune.method.windows import Windows

SHAPE = (1, 4, 4)


def evidence(
    margins: Sequence[float],
    *,
    windows: Sequence[float] | None = None,
    perturbations: Sequence[float] | None = None,
    answers: torch.Tensor | None = None,
    moved: float = 1.0,
) -> Evidence:
    """Of a model with as many classes as margins; a scale of 1; answers to untargeted triggers."""
    n = len(margins)
    patch = Trigger(torch.eye(4)[None], torch.ones(SHAPE))
    added = Perturbation(torch.ones(SHAPE))
    answers = torch.zeros(n, n, dtype=torch.int64) if answers is None else answers
    stamps: list[tuple[UntargetedKind, Stamp]] = [
        ("patch", patch),
        ("perturbation", added),
        ("window", patch),
    ]
    every, shares = tuple(range(n)), (0.0,) * n
    return Evidence(
        n,
        Margins(tuple(margins), torch.zeros(n, *SHAPE), 10),
        1.0,
        Windows(every, tuple(windows or [-1.0] * n), shares, (patch,) * n, 10),
        Perturbations(every, tuple(perturbations or [-1.0] * n), shares, (added,) * n, 10),
        Untargeted(tuple(UntargetedTrigger(k, s, s.norm, moved, answers) for k, s in stamps), 10),
    )


def next_class(n: int, count: int = 4) -> torch.Tensor:
    """The answers of an all-to-all backdoor."""
    return count * torch.eye(n, dtype=torch.int64).roll(1, 1)
