"""Tells whether an image classifier carries a backdoor, and takes the backdoor out.

>>> import torch, shapprune
>>> from shapprune import demo
>>> model = shapprune.load_classifier(demo.WEIGHTS, arch=demo.ARCH, num_classes=10)
>>> callable(model) and callable(shapprune.repair)
True
"""

from shapprune.checkpoints.compact_files import load_compact, save_compact
from shapprune.checkpoints.loading import load_classifier
from shapprune.checkpoints.state_dict import save_weights
from shapprune.data.dataset import LabeledImages
from shapprune.data.loading import load_images
from shapprune.errors import InputError, InputWarning
from shapprune.method.attribution import NeuronValues, estimate_shapley
from shapprune.method.case import Case, check_case
from shapprune.method.evaluation import Evaluator, Proxies
from shapprune.method.finetuning import distillation_pool, fine_tune
from shapprune.method.inversion import Inversion, InvertedTrigger, invert_triggers
from shapprune.method.outliers import Detection, combine, detect
from shapprune.method.pruning import Pruning, prune
from shapprune.method.recovery import Recovery, recover_images
from shapprune.method.triggers import Perturbation, Trigger, all_to_all
from shapprune.model.classifier import Classifier
from shapprune.model.compact import Compact, make_compact
from shapprune.model.game import NeuronGame
from shapprune.model.metrics import accuracy, attack_success_rate
from shapprune.model.neurons import Neurons, find_neurons
from shapprune.pipeline import RepairResult, ScanResult, repair, scan

__all__ = [
    "Case",
    "Classifier",
    "Compact",
    "Detection",
    "Evaluator",
    "InputError",
    "InputWarning",
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
