"""Tells whether an image classifier carries a backdoor, and takes the backdoor out.

>>> import torch, shapprune
>>> from shapprune import demo
>>> model = shapprune.load_classifier(demo.WEIGHTS, arch=demo.ARCH, num_classes=10)
>>> callable(model) and callable(shapprune.repair)
True
"""

from importlib import import_module

# Named again below: a name's module is imported when it is first asked for, as torch takes seconds
# in which the command line must already answer to Ctrl-C.
TYPE_CHECKING = False  # what type checkers take for true; `typing` would cost as long as Python
if TYPE_CHECKING:
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
    from shapprune.model.game import NeuronGame
    from shapprune.model.metrics import accuracy, attack_success_rate
    from shapprune.model.neurons import Neurons, find_neurons
    from shapprune.pipeline import RepairResult, ScanResult, repair, scan

__all__ = [
    "Case",
    "Classifier",
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
    "load_images",
    "prune",
    "recover_images",
    "repair",
    "save_weights",
    "scan",
]

_HOMES = {
    "checkpoints.loading": ("load_classifier",),
    "checkpoints.state_dict": ("save_weights",),
    "data.dataset": ("LabeledImages",),
    "data.loading": ("load_images",),
    "errors": ("InputError", "InputWarning"),
    "method.attribution": ("NeuronValues", "estimate_shapley"),
    "method.case": ("Case", "check_case"),
    "method.evaluation": ("Evaluator", "Proxies"),
    "method.finetuning": ("distillation_pool", "fine_tune"),
    "method.inversion": ("Inversion", "InvertedTrigger", "invert_triggers"),
    "method.outliers": ("Detection", "combine", "detect"),
    "method.pruning": ("Pruning", "prune"),
    "method.recovery": ("Recovery", "recover_images"),
    "method.triggers": ("Perturbation", "Trigger", "all_to_all"),
    "model.classifier": ("Classifier",),
    "model.game": ("NeuronGame",),
    "model.metrics": ("accuracy", "attack_success_rate"),
    "model.neurons": ("Neurons", "find_neurons"),
    "pipeline": ("RepairResult", "ScanResult", "repair", "scan"),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            found: object = getattr(import_module(f"{__name__}.{home}"), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
