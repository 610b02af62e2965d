"""By which numbers tensors of a checkpoint are taken for copies of the weights.

Bounds on what a file may hold stand with what reads it: they judge no model.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ResemblanceSettings:
    """Of copies that only their numbers show.

    Attributes:
        least: numbers of a tensor that can be told from another by its direction.
        sample: numbers that are compared.
        cosine: above it, two tensors are alike: gradients and their moments have cosines near 0
            with the weights, averages near 1.
    """

    least: int = 64
    sample: int = 4096
    cosine: float = 0.5


RESEMBLANCE = ResemblanceSettings()
