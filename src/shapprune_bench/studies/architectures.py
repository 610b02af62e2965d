"""Finds, masks and removes neurons in networks of timm and torchvision: one of each family.

Weights are random; norms, scales and statistics too, since a fresh network's zeros and ones would
hide what goes wrong. A network passes if masks and removed neurons give the same logits (to 1e-5 of
the largest logit) while another image in the batch keeps all its neurons, for a random 5 % of the
neurons; if these logits are finite and differ from the whole network's; if names and shapes of the
state dict stay; and if the network itself is left as it was. Float32 rounding grows in deep random
networks: where float32 does not agree to 1e-5, float64 must.
"""

import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from time import perf_counter

import torch
from torch import Tensor, nn

from shapprune.errors import InputError
from shapprune.model.inference import evaluating
from shapprune.model.masking import masked, remove_neurons
from shapprune.model.neurons import Neurons, find_neurons
from shapprune.running.runner import Result
from shapprune.utils.rng import own_random_state
from shapprune.utils.text import describe
from shapprune_bench.options import Options
from shapprune_bench.page import Table, pages
from shapprune_bench.session import Study
from shapprune_bench.studies.families import TIMM, TORCHVISION

_SHARE, _TOLERANCE, _CLASSES, _SEED = 0.05, 1e-5, 10, 0


@dataclass(frozen=True)
class Network:
    """A network by the library that has it, and its name there."""

    library: str
    network: str

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.library}_{self.network}"

    def facts(self) -> dict[str, object]:
        """As JSON has it."""
        return {"kind": "architectures", "library": self.library, "network": self.network}


def build(task: Network) -> tuple[nn.Module, int]:
    """The network and the side of the smallest images of a few sizes that it takes.

    Raises:
        ValueError: it gives no logits of the classes; or what the network itself raises.
    """
    network: nn.Module
    if task.library == "torchvision":
        import torchvision  # one library will do for its own networks

        network = torchvision.models.get_model(task.network, weights=None, num_classes=_CLASSES)
        native = 299 if task.network == "inception_v3" else 224
    else:
        import timm

        native = timm.get_pretrained_cfg(task.network).input_size[-1]
        network = timm.create_model(task.network, num_classes=_CLASSES)
    network.eval()
    for side in (64, 96, 128, native):
        try:
            with torch.no_grad():
                if network(torch.zeros(2, 3, side, side)).shape == (2, _CLASSES):
                    return network, side
        except (RuntimeError, ValueError, AssertionError, IndexError, TypeError):
            if side == native:
                raise
    raise ValueError("logits of another shape")


@torch.no_grad()
def randomise(network: nn.Module) -> None:
    """Take constants out of the way: norms at one and zero, scales at 1e-6, statistics."""
    for parameter in network.parameters():
        if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
            parameter.copy_(torch.rand_like(parameter) * 0.4 + (0.8 if parameter.mean() else -0.2))
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)


def agreement(
    network: nn.Module, images: Tensor, neurons: Neurons, removed: Sequence[int]
) -> tuple[float, float, bool]:
    """How far masks and removal differ, and what removal changes; whether all logits are finite.

    Both are the largest difference, as a share of the largest logit.
    """
    keep = torch.ones(2, len(neurons), dtype=images.dtype)
    keep[0, removed] = 0
    with torch.no_grad(), evaluating(network):
        whole = network(images)
        with masked(network, neurons, keep):
            both = network(images)
        gone = remove_neurons(network, neurons, removed)(images)
    wanted = torch.stack([gone[0], whole[1]])
    size = float(wanted.abs().max())
    finite = bool(torch.stack([gone, whole, both]).isfinite().all())
    return (
        float((both - wanted).abs().max()) / size,
        float((gone - whole).abs().max()) / size,
        finite,
    )


def measure(task: Network) -> dict[str, object]:
    """Whether the network passes, and if not, the reason."""
    warnings.simplefilter("ignore")  # in a process of its own
    try:
        with own_random_state(_SEED, torch.device("cpu")):
            network, side = build(task)
            randomise(network)
        facts = try_out(network, side)
    except Exception as error:  # a stranger's network can raise anything
        facts = {"reason": describe(error)}
    return {**facts, "libraries": {task.library: version(task.library)}}


def try_out(network: nn.Module, side: int) -> dict[str, object]:
    """What becomes of a network with random weights, on images (2, 3, side, side)."""
    start = perf_counter()
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(_SEED))
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    neurons = find_neurons(network, images)
    count = max(1, round(_SHARE * len(neurons)))
    order = torch.randperm(len(neurons), generator=torch.Generator().manual_seed(_SEED))
    removed = order[:count].tolist()
    difference, effect, finite = agreement(network, images, neurons, removed)
    facts: dict[str, object] = {
        "side": side,
        "neurons": len(neurons),
        "heads": sum(layer.size for layer in neurons.layers if layer.projection),
        "removed": count,
        "float32": difference,
        "effect": effect,
    }
    if difference > _TOLERANCE:
        double = deepcopy(network).double()
        difference, _, _ = agreement(double, images.double(), neurons, removed)
        facts["float64"] = difference
    after = network.state_dict()
    pruned = remove_neurons(network, neurons, removed).state_dict()
    hooks = [h for m in network.modules() for h in (*m._forward_hooks, *m._forward_pre_hooks)]
    shapes = [{k: v.shape for k, v in state.items()} for state in (pruned, before)]
    left = not hooks and all(torch.equal(before[k], after[k]) for k in before)
    reasons = {
        f"masked and removed differ by {difference:.1e}": difference > _TOLERANCE,
        "removal changes nothing": effect < 1e-7,
        "logits of the pruned network are not finite": not finite,
        "names or shapes changed": shapes[0] != shapes[1],
        "the network was changed": not left,
    }
    reason = "; ".join(why for why, holds in reasons.items() if holds) or None
    return {**facts, "reason": reason, "fx": _traces(network), "seconds": perf_counter() - start}


def _traces(network: nn.Module) -> bool:
    """Whether torch.fx could have traced it, for comparison with the dry run."""
    try:
        torch.fx.symbolic_trace(network)
    except Exception:  # it may be any network's code
        return False
    return True


def study(options: Options) -> Study[Network]:
    """All networks, or those that ``--rows`` names, as in timm:resnet18.

    Raises:
        InputError: it names another, or a library is not installed.
    """
    known = {f"torchvision:{name}": Network("torchvision", name) for name in TORCHVISION.split()}
    known |= {f"timm:{name}": Network("timm", name) for name in TIMM.split()}
    tasks = [known[name] for name in options.chosen(list(known), "architectures")]
    for library in sorted({task.library for task in tasks}):
        if find_spec(library) is None:
            raise InputError(f"architectures needs {library}: pip install 'shapprune[{library}]'")
    return Study("networks", tasks, measure, lambda r: str(r["reason"] or "passed"), report)


def report(done: Sequence[tuple[Network, Result]]) -> dict[str, bytes]:
    """README.md: how many pass, and a row a network."""
    runs = sorted(done, key=lambda pair: pair[0].name)
    rows = []
    for task, run in runs:
        sizes = [str(run.get(key) or "") for key in ("side", "neurons", "heads")]
        errors = [f"{run[key]:.0e}" if key in run else "" for key in ("float32", "float64")]
        spec = f"{task.library}:{task.network}"
        rows.append([spec, *sizes, *errors, str(run["reason"] or "yes")])
    passed, traced = (
        sum(bool(test(run)) for _, run in runs)
        for test in (lambda run: run["reason"] is None, lambda run: run.get("fx"))
    )
    heads = sum(bool(run.get("heads")) for _, run in runs)
    note = (
        f"{passed} of {len(runs)} pass; attention heads in {heads}; torch.fx traces {traced}, the "
        f"dry run finds neurons in {sum(bool(run.get('neurons')) for _, run in runs)}. Random "
        "weights, side × side pixels, a random 5 % of the neurons removed. Differences are of "
        "masked and folded logits, to the largest; what passing means is said in "
        "`shapprune_bench.studies.architectures`. Made by `shapprune bench architectures`."
    )
    head = ["family", "side", "neurons", "heads", "difference, float32", "float64", "passed"]
    made = pages([Table("Families", note, head, rows)], "Neurons in networks of every family")
    return {"README.md": made["report.md"]}
