"""A smaller network: pruned channels taken away for good, where nothing else needs them."""

import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils.flop_counter import FlopCounterMode

from shapprune.model.classifier import check_batch
from shapprune.model.inference import CHUNK, copy_of, evaluating, searching
from shapprune.model.neurons import Neurons, check_neurons
from shapprune.utils.text import describe

# What tensors lose: by name and dimension, the indices.
Cuts: TypeAlias = Mapping[str, Mapping[int, frozenset[int]]]

_TOLERANCE = 1e-4  # of logits, to the largest one where that is above 1
_PROBES = 4  # images that tell whether channels count: half of them noise
_DRAWS = 2  # of what channels might say instead
_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True)
class Left:
    """A pruned neuron whose channel stays, as zeros, and why."""

    layer: str
    channel: int
    why: str


@dataclass(frozen=True, eq=False)
class Compact:
    """A network without the channels of pruned neurons.

    Attributes:
        model: the smaller copy; the given model itself where no channel could go.
        cuts: what its tensors lost.
        taken: pruned neurons whose channels are gone, (layer, channel).
        left: those whose channels stay.
        parameters: before and after.
        operations: multiply-accumulates of convolutions and matrix products for one image,
            before and after.
        difference: the largest of logits on the images, to the largest logit where that is
            above 1.
    """

    model: nn.Module
    cuts: Cuts
    taken: tuple[tuple[str, int], ...]
    left: tuple[Left, ...]
    parameters: tuple[int, int]
    operations: tuple[int, int]
    difference: float


@dataclass(frozen=True)
class _Slice:
    """Indices of a tensor in one dimension. ``owner`` makes the channels, or reads them."""

    owner: str
    tensor: str
    dim: int
    indices: frozenset[int]
    reads: bool


class Stays(Exception):
    """Why a channel cannot go."""


@searching()
def make_compact(
    model: nn.Module, images: Tensor, *, neurons: Neurons, removed: Sequence[int]
) -> Compact:
    """Take the channels of removed neurons away, with all that depends on them.

    torch-pruning's dependency graph (Fang et al. 2023) tells what goes with a channel: the layers
    that read it, and those that write to the same place, as the two ends of a shortcut do. Such a
    group goes if its channels do not count: whatever those of its layers that are not zero said,
    the logits would stay. So a channel after a shortcut stays unless all that is added there is
    pruned. What is left must agree with the given model to 1e-4 on the images, else the group
    that is to blame stays; attention heads always do.

    Args:
        model: in which the removed neurons put out zero, as `remove_neurons` makes it; left as
            it was.
        images: (n, C, H, W) in [0, 1], at least one, for the comparison.
        neurons: of the model.
        removed: numbers of neurons.
    """
    images, _ = check_batch(model, images)
    check_neurons(neurons, model, removed)
    places = [neurons.locate(neuron) for neuron in removed]
    heads = {layer.name for layer in neurons.layers if layer.projection}
    work = copy_of(model).requires_grad_(False).eval()
    probes = images[: _PROBES // 2]
    noise = torch.rand(probes.shape, generator=torch.Generator().manual_seed(0))
    probes = torch.cat([probes, noise.to(probes)])
    wanted, wanted_of_probes = _logits(work, images), _logits(work, probes)
    groups: dict[tuple[str, int], Sequence[_Slice]] = {}
    left: dict[tuple[str, int], str] = {}
    try:
        group_of = _dependencies(work, images[:1])
    except Stays as stays:
        left = dict.fromkeys(places, str(stays))
    for layer, channel in places if not left else ():
        try:
            if layer in heads:
                raise Stays("attention heads stay")
            group = group_of(layer, channel)
            if culprit := _counting(work, group, probes, wanted_of_probes):
                raise Stays(f"{culprit} writes there too, and counts")
            groups[layer, channel] = group
        except Stays as stays:
            left[layer, channel] = str(stays)

    def attempt(chosen: Sequence[tuple[str, int]]) -> tuple[nn.Module, Cuts, float]:
        cuts = _union([part for place in chosen for part in groups[place]])
        try:
            smaller = take_away(work, cuts)
            difference = _difference(_logits(smaller, images), wanted)
        except Stays:
            raise
        except Exception as error:  # its forward may hold widths as numbers
            raise Stays(f"without it the network fails: {describe(error)}") from error
        if not difference <= _TOLERANCE:
            raise Stays(f"without it logits differ by {difference:.1g}")
        return smaller, cuts, difference

    (smaller, cuts, difference), taken = attempt([]), list[tuple[str, int]]()
    queue = [list(groups)] if groups else []
    while queue:  # all at once, or by halves, down to those that are to blame
        some = queue.pop(0)
        try:
            (smaller, cuts, difference), taken = attempt([*taken, *some]), [*taken, *some]
        except Stays as stays:
            if len(some) == 1:
                left[some[0]] = str(stays)
            else:
                queue += [some[: len(some) // 2], some[len(some) // 2 :]]
    for name, parameter in model.named_parameters():
        smaller.get_parameter(name).requires_grad_(parameter.requires_grad)
    result = smaller if taken else model
    return Compact(
        result,
        cuts,
        tuple(taken),
        tuple(Left(*place, why) for place, why in left.items()),
        (_size(model), _size(result)),
        (operations(model, images), operations(result, images)),
        difference,
    )


def take_away(model: nn.Module, cuts: Cuts) -> nn.Module:
    """A copy of the model whose tensors lack what ``cuts`` says, its layers' widths adapted.

    Raises:
        Stays: nothing would be left of a tensor.
    """
    copy = copy_of(model)
    for name, parts in cuts.items():
        path, _, leaf = name.rpartition(".")
        owner = copy.get_submodule(path)
        old = getattr(owner, leaf)
        tensor = old.detach()
        for dim, indices in parts.items():
            keep = [i for i in range(tensor.shape[dim]) if i not in indices]
            if not keep:
                raise Stays("it is the last channel of its layer")
            tensor = tensor.index_select(dim, torch.tensor(keep, device=tensor.device))
        if leaf in owner._parameters:
            tensor = nn.Parameter(tensor, requires_grad=old.requires_grad)
        setattr(owner, leaf, tensor)
        _tell_width(owner)
    return copy


def _tell_width(module: nn.Module) -> None:
    """Set the numbers that a layer keeps of its tensors' shapes."""
    weight = module._parameters.get("weight")
    if isinstance(module, _ConvNd):
        assert weight is not None
        module.groups = len(weight) if module.groups > 1 else 1  # others than depthwise stay
        module.out_channels, module.in_channels = len(weight), weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, _NormBase):
        kept = module.running_mean if weight is None else weight
        module.num_features = 0 if kept is None else len(kept)
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = len(module.weight)
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)


def _dependencies(model: nn.Module, image: Tensor) -> Callable[[str, int], list[_Slice]]:
    """Tells of a layer's channel all that goes with it.

    Raises:
        Stays: torch-pruning is missing, or cannot trace the model.
    """
    try:
        library = importlib.import_module("torch_pruning")
    except ImportError as error:
        raise Stays(
            f"torch-pruning is missing: pip install 'shapprune[compact]' ({describe(error)})"
        ) from error
    try:
        model.requires_grad_(True)  # it follows gradients
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = library.DependencyGraph().build_dependency(
                model, example_inputs=image, verbose=False
            )
    except Exception as error:  # it may be any network
        raise Stays(f"torch-pruning cannot trace the network: {describe(error)}") from error
    finally:
        model.requires_grad_(False)
    names = {module: name for name, module in model.named_modules()}
    tensors = {id(parameter): name for name, parameter in model.named_parameters()}

    def group_of(layer: str, channel: int) -> list[_Slice]:
        module = model.get_submodule(layer)
        if module not in graph.module2node:
            raise Stays("torch-pruning does not see it")
        try:
            root = graph.get_pruner_of_module(module).prune_out_channels
            group = list(graph.get_pruning_group(module, root, [channel]))
        except Exception as error:
            raise Stays(f"torch-pruning knows no group of it: {describe(error)}") from error
        slices: list[_Slice] = []
        for dependency, indices in group:
            target = dependency.target.module
            some = frozenset(int(i) for i in indices)
            if isinstance(target, nn.Parameter):
                name, dim = tensors[id(target)], dependency.target.pruning_dim
                slices.append(_Slice(name, name, dim, some, reads=False))
            elif target in names:
                pruner = graph.get_pruner_of_module(target)
                reads = dependency.handler != pruner.prune_out_channels
                slices += _slices(target, names[target], some, reads)
        return slices

    return group_of


def _slices(module: nn.Module, name: str, indices: frozenset[int], reads: bool) -> Iterator[_Slice]:
    """The parts of a layer's own tensors that belong to some channels.

    Raises:
        Stays: a layer whose channels cannot go one by one.
    """
    own = {**module._parameters, **module._buffers}
    own = {leaf: t for leaf, t in own.items() if t is not None and t.ndim and t.numel() > 1}
    weight = own.get("weight")
    layer = isinstance(module, (_ConvNd, nn.Linear)) and not isinstance(module, _ConvTransposeNd)
    if isinstance(module, _ConvNd) and module.groups > 1:
        layer &= module.groups == module.in_channels == module.out_channels
        reads = False  # a depthwise channel is both
    if own and not (weight is not None and layer) and not isinstance(module, (*_NORMS, nn.PReLU)):
        raise Stays(f"{name}, a {type(module).__name__}, cannot lose single channels")
    for leaf in own:
        if reads and leaf != "weight":
            continue
        yield _Slice(name, f"{name}.{leaf}".lstrip("."), int(reads), indices, reads)


def _counting(
    model: nn.Module, group: Sequence[_Slice], probes: Tensor, wanted: Tensor
) -> str | None:
    """The first layer of the group whose channels the logits depend on, if any does."""
    parameters = dict(model.named_parameters())
    writing: dict[str, list[_Slice]] = {}
    for part in group:
        if not part.reads and part.tensor in parameters:
            writing.setdefault(part.owner, []).append(part)
    loud = {
        owner: parts
        for owner, parts in writing.items()
        if any(bool(_taken(parameters[part.tensor], part).any()) for part in parts)
    }

    def count(parts: Sequence[_Slice]) -> bool:
        generator = torch.Generator().manual_seed(0)
        for _ in range(_DRAWS):
            with _disturbed(parameters, parts, generator):
                if not _difference(_logits(model, probes), wanted) <= _TOLERANCE / 10:
                    return True
        return False

    if not loud or not count([part for parts in loud.values() for part in parts]):
        return None
    return next((owner for owner, parts in loud.items() if count(parts)), next(iter(loud)))


@contextmanager
@torch.no_grad()
def _disturbed(
    parameters: Mapping[str, Tensor], parts: Sequence[_Slice], generator: torch.Generator
) -> Iterator[None]:
    """Random weights in some channels inside the block."""
    kept = [(part, _taken(parameters[part.tensor], part).clone()) for part in parts]
    try:
        for part, old in kept:
            noise = torch.randn(old.shape, generator=generator).to(old)
            parameters[part.tensor].index_copy_(part.dim, _index(old, part), noise)
        yield
    finally:
        for part, old in kept:
            parameters[part.tensor].index_copy_(part.dim, _index(old, part), old)


def _taken(tensor: Tensor, part: _Slice) -> Tensor:
    return tensor.detach().index_select(part.dim, _index(tensor, part))


def _index(like: Tensor, part: _Slice) -> Tensor:
    return torch.tensor(sorted(part.indices), device=like.device)


def _union(parts: Sequence[_Slice]) -> Cuts:
    cuts: dict[str, dict[int, frozenset[int]]] = {}
    for part in parts:
        dims = cuts.setdefault(part.tensor, {})
        dims[part.dim] = dims.get(part.dim, frozenset()) | part.indices
    return cuts


@torch.no_grad()
def _logits(model: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([model(chunk) for chunk in images.split(CHUNK)])


def _difference(logits: Tensor, wanted: Tensor) -> float:
    return float((logits - wanted).abs().max() / wanted.abs().max().clamp(min=1))


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def operations(model: nn.Module, images: Tensor) -> int:
    """Multiply-accumulates of convolutions and matrix products for one of the images."""
    counter: Any = FlopCounterMode(display=False)
    with evaluating(model), torch.no_grad(), counter:
        model(images[:1])
    return int(counter.get_total_flops()) // 2
