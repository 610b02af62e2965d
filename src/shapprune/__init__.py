"""Tells whether an image classifier carries a backdoor, and takes the backdoor out.

>>> import torch, shapprune
>>> from shapprune import demo
>>> model = shapprune.load_classifier(demo.WEIGHTS, arch=demo.ARCH, num_classes=10)
>>> callable(model) and callable(shapprune.repair)
True
"""

from shapprune.compact import Compact, make_compact
from shapprune.compact_files import load_compact, save_compact
from shapprune.data import LabeledImages, load_images
from shapprune.detection import Detection, combine, detect
from shapprune.errors import InputError
from shapprune.game import NeuronGame
from shapprune.loading import load_classifier
from shapprune.method.attribution import NeuronValues, estimate_shapley
from shapprune.method.case import Case, check_case
from shapprune.method.evaluation import Evaluator, Proxies
from shapprune.method.finetuning import distillation_pool, fine_tune
from shapprune.method.pruning import Pruning, prune
from shapprune.method.triggers import Perturbation, Trigger, all_to_all
from shapprune.metrics import accuracy, attack_success_rate
from shapprune.models import Classifier
from shapprune.neurons import Neurons, find_neurons
from shapprune.pipeline import RepairResult, ScanResult, repair, scan
from shapprune.recovery import Recovery, recover_images
from shapprune.triggers import Inversion, InvertedTrigger, invert_triggers
from shapprune.weights import save_weights

__all__ = [
    "Case",
    "Classifier",
    "Compact",
    "Detection",
    "Evaluator",
    "InputError",
    "Inversion",
    "InvertedTrigger",
    "LabeledImages",
    "NeuronGame",
    "NeuronValues",
    "Neurons",
    "Perturbation",
    "Proxies",
    "Pruning",
    "Recovery",
    "RepairResult",
    "ScanResult",
    "Trigger",
    "accuracy",
    "all_to_all",
    "attack_success_rate",
    "check_case",
    "combine",
    "detect",
    "distillation_pool",
    "estimate_shapley",
    "find_neurons",
    "fine_tune",
    "invert_triggers",
    "load_classifier",
    "load_compact",
    "load_images",
    "make_compact",
    "prune",
    "recover_images",
    "repair",
    "save_compact",
    "save_weights",
    "scan",
]
