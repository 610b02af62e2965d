"""Other papers' methods, one a file, to compare with."""

from typing import Protocol

from torch import Tensor, nn

from shapprune.baselines.anp import anp
from shapprune.baselines.clp import clp
from shapprune.baselines.deepinspect import deepinspect
from shapprune.baselines.fine_pruning import fine_pruning
from shapprune.baselines.gangsweep import gangsweep
from shapprune.baselines.ibau import ibau
from shapprune.baselines.model_inversion import invert_model
from shapprune.baselines.neural_cleanse import neural_cleanse
from shapprune.baselines.plain_finetuning import Progress, plain_fine_tune


class Defence(Protocol):
    """What the defences have in common."""

    def __call__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> nn.Module:
        """A repaired copy of the model, by clean images and their labels."""
        ...


DEFENCES: dict[str, Defence] = {
    "fine-tuning": plain_fine_tune,
    "fine-pruning": fine_pruning,
    "neural-cleanse": neural_cleanse,
    "gangsweep": gangsweep,
    "deepinspect": deepinspect,
    "anp": anp,
    "clp": clp,
    "i-bau": ibau,
}

__all__ = ["DEFENCES", "Defence", "invert_model"]
