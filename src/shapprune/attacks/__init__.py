"""Attacks, one paper a file, and the training that makes backdoored models."""

from shapprune.attacks.additive import Additive
from shapprune.attacks.badnets import BadNets, square_trigger
from shapprune.attacks.blended import Blended
from shapprune.attacks.input_aware import InputAware
from shapprune.attacks.labels import Target, all_to_all, choose_target, from_one, several
from shapprune.attacks.patterns import PatternPatch
from shapprune.attacks.physical_key import PhysicalKey
from shapprune.attacks.poisoning import Attacked, Plan, Poisoned, poison
from shapprune.attacks.quantisation import Quantisation
from shapprune.attacks.random_place import RandomPlace
from shapprune.attacks.recipe import ATTACKS, Attack, Backdoored, choose_attack, make_backdoored
from shapprune.attacks.reflection import Reflection
from shapprune.attacks.sig import Sig
from shapprune.attacks.training import Learning, train
from shapprune.attacks.triggers import (
    AttackTrigger,
    Dithering,
    GeneratedTrigger,
    RandomPlaces,
    Warp,
    load_trigger,
    trigger_bytes,
)
from shapprune.attacks.trojan import Trojan
from shapprune.attacks.wanet import WaNet

__all__ = [
    "ATTACKS",
    "Additive",
    "Attack",
    "AttackTrigger",
    "Attacked",
    "Backdoored",
    "BadNets",
    "Blended",
    "Dithering",
    "GeneratedTrigger",
    "InputAware",
    "Learning",
    "PatternPatch",
    "PhysicalKey",
    "Plan",
    "Poisoned",
    "Quantisation",
    "RandomPlace",
    "RandomPlaces",
    "Reflection",
    "Sig",
    "Target",
    "Trojan",
    "WaNet",
    "Warp",
    "all_to_all",
    "choose_attack",
    "choose_target",
    "from_one",
    "load_trigger",
    "make_backdoored",
    "poison",
    "several",
    "square_trigger",
    "train",
    "trigger_bytes",
]
