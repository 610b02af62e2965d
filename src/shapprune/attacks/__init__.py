"""Attacks: poisoning functions, one paper a file, and the training that makes backdoored models."""

from shapprune.attacks.badnets import Poisoned, Target, all_to_all, poison, square_trigger
from shapprune.attacks.recipe import Backdoored, make_backdoored
from shapprune.attacks.training import train

__all__ = [
    "Backdoored",
    "Poisoned",
    "Target",
    "all_to_all",
    "make_backdoored",
    "poison",
    "square_trigger",
    "train",
]
