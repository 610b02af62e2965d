"""Other papers' methods, one a file, to compare with."""

from shapprune.baselines.model_inversion import invert_model

__all__ = ["invert_model"]
