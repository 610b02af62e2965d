"""A network filled with the weights of a source."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from shapprune.checkpoints.architectures import build_network
from shapprune.checkpoints.naming import ends, match, missing, own_normalisation
from shapprune.checkpoints.source import Source, read_source
from shapprune.errors import InputError
from shapprune.model.classifier import Classifier
from shapprune.utils.text import describe, list_names, quote

_BUILT_IN = {  # by the name of the last layer's weight
    "linear.weight": tuple(
        f"shapprune.networks.cifar:{name}"
        for name in ("resnet18", "resnet34", "preactresnet18", "preactresnet34")
    ),
    "classifier.fc.weight": tuple(
        f"shapprune.networks.trojanzoo:resnet?name={name}&comp={comp}"
        for name in ("resnet18", "resnet34", "resnet50")
        for comp in (True, False)
    ),
    "classifier.fc2.weight": ("shapprune.networks.trojanzoo:net",),
}
_COUNTER = "num_batches_tracked"
_NO_ARCH = (
    "the source does not tell its architecture, and no built-in one fits: name it with arch "
    "(--arch)"
)


def load_classifier(
    weights: str | Path | Source,
    *,
    arch: str | None = None,
    num_classes: int | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
) -> Classifier:
    """The network of ``arch`` with the weights of a file or folder, on the CPU, in eval mode.

    Args:
        weights: see `read_source`.
        arch: see `build_network`. None: as the source states, or one of `networks.cifar` or
            `networks.trojanzoo` if its names and shapes fit.
        num_classes: classes that the network tells apart; None: see `count_classes`.
        mean, std: see `Classifier`; None: as the source states, else images are left as they are.

    Raises:
        InputError: whatever is wrong with the file, the architecture, their match (the first
            key that differs is named) or the normalisation; what is not stated and not given.
    """
    if not isinstance(weights, str | Path | Source):
        raise InputError(f"weights must be a path, got a {type(weights).__name__}")
    source = weights if isinstance(weights, Source) else read_source(weights)
    stated, tensors = source.stated, source.weights
    num_classes = num_classes or count_classes(source, arch=arch)
    if all(tensor.shape[:1] != (num_classes,) for tensor in tensors.values()) and not arch:
        raise InputError(f"the source states {num_classes} classes, but no tensor has as many rows")
    archs, faults = _archs(source, arch), []
    for spec in archs:
        try:
            network = _filled(spec, num_classes, source if spec in stated.archs else None, tensors)
        except InputError as error:
            faults.append(str(error))
            continue
        if stated.flipped:
            network.register_forward_pre_hook(_flip_channels, with_kwargs=True)
        own = _own_normalisation(network, source) if mean is None and std is None else None
        usual_mean, usual_std = own or (stated.mean, stated.std)
        return Classifier(
            network, usual_mean if mean is None else mean, usual_std if std is None else std
        ).eval()
    if not (arch or stated.archs):
        raise InputError(_NO_ARCH)
    raise InputError(_likeliest(faults, arch, source))


def _likeliest(faults: Sequence[str], arch: str | None, source: Source) -> str:
    """Of several architectures that were tried, the fault that tells most."""
    fault = min(faults, key=lambda fault: ("knows no model" in fault, " needs " in fault))
    fault += "" if arch else " (as the file names it; --arch names another)"
    return fault + _elsewhere(source)


def _elsewhere(source: Source) -> str:
    """The weights that do not fit may not be the ones that were meant."""
    others = source.file.others if source.file else ()
    return f"; the file also has weights under {list_names(others)}: see --entry" if others else ""


def _own_normalisation(
    network: nn.Module, source: Source
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """What a wrapper of the network keeps in the file, unless a configuration states another."""
    if source.stated.mean is not None:
        return None
    return own_normalisation(source.match(network).ignored, source.weights)


def _flip_channels(
    _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (args[0].flip(1), *args[1:]), kwargs


def count_classes(source: Source, *, arch: str | None = None) -> int:
    """How many classes the network of a source tells apart.

    If the source does not state it, the file tells: by the layer of its architecture that is as
    wide as there are classes.

    Args:
        arch: see `load_classifier`.

    Raises:
        InputError: an architecture that is not known or cannot be built, or does not follow
            ``num_classes``.
    """
    if source.stated.num_classes:
        return source.stated.num_classes
    said, tensors, faults = bool(arch or source.stated.archs), source.weights, []
    options = source.stated.options
    for spec in _archs(source, arch):
        try:
            two, three = (
                build_network(spec, n, options=options, weights=tensors).state_dict()
                for n in (2, 3)
            )
        except InputError as error:
            faults.append(error)
            continue
        found = match(two, tensors)
        counts = {
            tensors[given].shape[dim]
            for name, given in found.names.items()
            if not (is_lazy(two[name]) or is_lazy(three[name]))
            if two[name].ndim == three[name].ndim == tensors[given].ndim
            for dim, size in enumerate(two[name].shape)
            if size == 2 and three[name].shape[dim] == 3
        }
        fits = not found.foreign and not missing(two, found.names)
        if len(counts) == 1 and (said or fits):
            return counts.pop()
    if not said:
        raise InputError(_NO_ARCH)
    if faults:
        raise InputError(_likeliest(list(map(str, faults)), arch, source))
    raise InputError(
        "the source does not tell its classes: say num_classes (--num-classes)" + _elsewhere(source)
    )


def fill_network(
    network: nn.Module, tensors: Mapping[str, Tensor], *, spec: str, num_classes: int | None
) -> None:
    """Load weights into a network.

    Args:
        spec: what the network is called in errors.
        num_classes: that it was built for, None if unknown; tells an error in it from others.

    Raises:
        InputError: names, shapes or kinds of numbers that differ.
    """
    try:
        own = network.state_dict()
        found = match(own, tensors)
        given = OrderedDict((name, tensors[there]) for name, there in found.names.items())
        if mismatch := _mismatch(own, given, found.foreign, num_classes):
            raise InputError(f"the file does not fit {spec}: {mismatch}")
        # The names and shapes are the network's own, and so is the version, which files may lack.
        given._metadata = getattr(own, "_metadata", None)  # type: ignore[attr-defined]
        # What BatchNorm counts may be missing, see `missing`; torch fills it in where it can.
        network.load_state_dict(given, strict=False)
    except InputError:
        raise
    except Exception as error:  # a network may have loading hooks of its own
        raise InputError(f"the file cannot be loaded into {spec}: {describe(error)}") from error


def _archs(source: Source, arch: str | None) -> tuple[str, ...]:
    """What the network may be, likeliest first."""
    if arch:
        return (arch,)
    there = {end for name in source.weights for _, end in ends(name) if end in _BUILT_IN}
    heads = (name for name in _BUILT_IN if name in there)
    built_in = _BUILT_IN.get(next(heads, ""), ())
    return tuple(dict.fromkeys((*source.stated.archs, *built_in)))


def _filled(
    spec: str, num_classes: int, source: Source | None, tensors: Mapping[str, Tensor]
) -> nn.Module:
    options = source.stated.options if source else None
    network = build_network(spec, num_classes, options=options, weights=tensors)
    if not spec.startswith("transformers:"):  # which is filled, with names of its own
        fill_network(network, tensors, spec=spec, num_classes=num_classes)
    return network


def _mismatch(
    own: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    unexpected: Sequence[str],
    num_classes: int | None,
) -> str | None:
    """How the weights ``given`` differ in names and shapes from the network's ``own``, if so."""
    lacking = missing(own, given)
    misshaped = [
        k for k in own if k in given and not is_lazy(own[k]) and own[k].shape != given[k].shape
    ]
    classes = {_head_classes(own[k], given[k], num_classes) for k in misshaped}
    if not lacking and not unexpected and len(classes) == 1 and None not in classes:
        return (
            f"the weights are for {classes.pop()} classes, but num_classes is {num_classes} "
            f"({quote(misshaped[0])})"
        )
    reasons = []
    if lacking:
        reasons.append(f"{len(lacking)} missing: {list_names(lacking)}")
    if unexpected:
        reasons.append(f"{len(unexpected)} unexpected: {list_names(unexpected)}")
    if misshaped:
        k = misshaped[0]
        reasons.append(
            f"{len(misshaped)} of another shape: {quote(k)} is {tuple(given[k].shape)} in the "
            f"file and {tuple(own[k].shape)} in the network"
        )
    mistyped = [
        k
        for k in own
        if k in given
        and own[k].is_floating_point() != given[k].is_floating_point()
        and not k.endswith(_COUNTER)  # some halve whole files, the counter included
    ]
    if mistyped:
        k = mistyped[0]
        reasons.append(f"{quote(k)} is {given[k].dtype} in the file, not {own[k].dtype}")
    return "; ".join(reasons) or None


def _head_classes(own: Tensor, given: Tensor, num_classes: int | None) -> int | None:
    """The class count of a ``given`` tensor that differs from the network's in nothing else."""
    if own.shape[:1] == (num_classes,) and given.ndim and own.shape[1:] == given.shape[1:]:
        return given.shape[0]
    return None
