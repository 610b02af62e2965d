"""The models of the experiments, trained once for each recipe and kept in a folder, or loaded."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load
from torch import Tensor, nn

from shapprune.attacks import BadNets, choose_attack, load_trigger, trigger_bytes
from shapprune.checkpoints.loading import load_classifier
from shapprune.checkpoints.state_dict import weights_bytes
from shapprune.errors import InputError
from shapprune.method.triggers import Perturbation, Stamp
from shapprune.model.cost import counting
from shapprune.utils.files import write_whole
from shapprune.utils.text import describe
from shapprune_bench.tables.recipes import Recipe, fresh_network, make


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and what only the scorer may know.

    Attributes:
        model: in eval mode.
        stamp: the attacker's.
        facts: "accuracy" and "asr" on the test images, "seconds" of the training, and what was
            done, as JSON holds it; empty of a checkpoint.
        weights: ten digits of their file's SHA-256: a recipe makes others on another machine.
    """

    model: nn.Module
    stamp: Callable[[Tensor], Tensor]
    facts: dict[str, object]
    weights: str


def subject(
    recipe: Recipe, *, root: Path, cache: Path, device: torch.device | str = "cpu"
) -> Subject:
    """The recipe's model: its checkpoint, or from the cache, or trained and put there first.

    Several processes may ask at once: one trains, and the others wait for it.

    Args:
        root: the folder that the data are in.
        cache: folder of trained models, made if need be.
        device: where to train, and where the model shall be.

    Raises:
        InputError: see `make` and `load_classifier`, or the cache cannot be written to.
    """
    if recipe.checkpoint:
        return _checkpoint(recipe, recipe.checkpoint, root, device)
    stem = stem_of(recipe)
    facts_file = cache / f"{stem}.json"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f".{stem}.lock"):  # the system's to take back, however we end
            if not facts_file.exists():
                _train(recipe, root, cache / stem, device)
    except OSError as error:
        raise InputError(f"cannot write into {cache}: {error.strerror or error}") from error
    network = fresh_network(recipe)
    weights = (cache / f"{stem}.safetensors").read_bytes()
    network.load_state_dict(load(weights))
    trigger = load_trigger(cache / f"{stem}.trigger.npz")
    facts = json.loads(facts_file.read_text(encoding="utf-8"))
    network.eval().requires_grad_(False).to(device)
    return Subject(network, trigger.stamp, facts, hashlib.sha256(weights).hexdigest()[:10])


def is_trained(recipe: Recipe, *, cache: Path) -> bool:
    """Whether the recipe's model is in the cache, or needs no training."""
    return bool(recipe.checkpoint) or (cache / f"{stem_of(recipe)}.json").exists()


def stem_of(recipe: Recipe) -> str:
    """The name of the recipe's files in the cache, without their endings."""
    digest = hashlib.sha256(json.dumps(recipe.facts(), sort_keys=True).encode()).hexdigest()
    return f"{recipe.profile}-{digest[:16]}"


def _checkpoint(recipe: Recipe, name: str, root: Path, device: torch.device | str) -> Subject:
    package, colon, path = name.partition(":")
    file = Path(str(files(package) / path)) if colon else root / name
    own = recipe.network.partition(":")[0].endswith(".py")
    arch = str(root / recipe.network) if own else recipe.network
    network = load_classifier(file, arch=arch, num_classes=recipe.num_classes)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's lack it
    network.requires_grad_(False).to(device)
    weights = hashlib.sha256(file.read_bytes()).hexdigest()[:10]
    return Subject(network, _trigger_of(recipe, root).stamp, {}, weights)


def _trigger_of(recipe: Recipe, root: Path) -> Stamp:
    """The attacker's trigger of a checkpoint."""
    if recipe.picture:
        file = root / recipe.picture
        try:
            pixels = np.array(Image.open(file).convert("RGB"))
        except OSError as error:
            raise InputError(f"cannot read {file}: {describe(error)}") from error
        return Perturbation(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)
    attack = choose_attack(recipe.attack, recipe.options)
    if not isinstance(attack, BadNets):
        raise InputError(f"the trigger of {recipe.name} is not known: its recipe has no picture")
    return attack.trigger(recipe.input_size, torch.Generator().manual_seed(recipe.seed))


def _train(recipe: Recipe, root: Path, stem: Path, device: torch.device | str) -> None:
    network = None
    if recipe.base:
        network = subject(recipe.base, root=root, cache=stem.parent, device=device).model
    start = perf_counter()
    blank = torch.zeros(1, *recipe.input_size)
    with counting(fresh_network(recipe), blank) as passes:
        made = make(recipe, root=root, device=device, network=network)
    facts = {
        **made.recipe,
        "accuracy": made.accuracy,
        "asr": made.asr,
        "seconds": perf_counter() - start,
        "passes": passes.count,
        "torch": torch.__version__,
    }
    write_whole(stem.with_name(f"{stem.name}.safetensors"), weights_bytes(made.model))
    write_whole(stem.with_name(f"{stem.name}.trigger.npz"), trigger_bytes(made.trigger))
    # Last: its presence means the others'.
    write_whole(stem.with_name(f"{stem.name}.json"), (json.dumps(facts, indent=1) + "\n").encode())
