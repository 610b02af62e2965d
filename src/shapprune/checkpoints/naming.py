"""Which tensors of a file are a network's: found by names and shapes, never by position."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from shapprune.errors import InputError

# What DataParallel, torch.compile, FSDP and activation checkpoints put into names, anywhere.
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# What is counted or measured beside a network: a name's first or last part has such a word.
_NO_WEIGHTS = {
    *("n_averaged", "num_updates", "total_ops", "total_params", "global_step", "epoch", "step"),
    *("criterion", "criteria", "loss", "losses", "metric", "metrics", "acc", "accuracy", "auroc"),
    *("f1score", "confmat", "confusion", "meter", "decay", "logger"),
}
_PHASES = ("train_", "val_", "valid_", "test_")  # begin the names of metrics
# Normalisation inside of a wrapper, (C,) or (1, C, 1, 1).
_NORMALISATION = {"mean", "std", "mu", "sigma", "_mean", "_std", "pixel_mean", "pixel_std"}
# Copies whose numbers lag behind the ones that are trained.
AVERAGES = {
    *("ema", "swa", "avg", "average", "averaged", "averager", "shadow", "teacher", "momentum"),
    *("target", "slow", "polyak", "ma"),
}
_COUNTER = "num_batches_tracked"
_LONGEST = 1000  # letters of a name that is taken apart
_MOST_SETS = 50  # of weights in one file


@dataclass(frozen=True)
class Match:
    """How a file's names stand for a network's.

    Attributes:
        names: of each of the network's tensors that was found, the file's name.
        prefix: what stood before them all; None where parts carry prefixes of their own.
        copies: prefixes of other whole sets of them, with the file's names by the network's.
        ignored: other names outside of the network, of counters, losses and metrics.
        foreign: other names, that the network should have if they were its own.
    """

    names: Mapping[str, str]
    prefix: str | None
    copies: Mapping[str, Mapping[str, str]]
    ignored: tuple[str, ...]
    foreign: tuple[str, ...]


def plain_name(name: str) -> str:
    """A name without what wrappers put into it.

    >>> plain_name("module.features._orig_mod.0.weight")
    'features.0.weight'
    """
    if len(name) > _LONGEST:
        return name
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def words(name: str) -> set[str]:
    """The words of a name, in lower case.

    >>> sorted(words("model_ema.module"))
    ['ema', 'model', 'model_ema', 'module']
    """
    return set(name.lower().replace("_", ".").replace("-", ".").split(".")) | set(
        name.lower().split(".")
    )


def match(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Match:
    """The tensors in ``given`` that are those of a network's ``own`` names.

    Of all prefixes the one is taken under which most of the names are, then most of the shapes;
    among those that are level, one that does not speak of an average, the shortest. If none has
    all names, each tensor is sought for itself: by a name that ends as its own does, with its
    shape, if there is only one.
    """
    if all(name in given for name in own):
        exact = {name: name for name in own}
        return _rest(own, given, exact, "")
    plain = _by_plain_name(given)
    inner = _common_prefix(own)
    sought = {plain_name(name).removeprefix(inner): name for name in own}
    if len(sought) < len(own):  # the wrappers' words are the network's own here
        plain, inner, sought = {n: n for n in given}, "", {n: n for n in own}
    best = _best_prefix(own, given, sought, plain)
    names = _under(best, own, sought, plain)
    if missing(own, names) and (single := _one_by_one(own, given)):
        return _rest(own, given, single, None)
    # What the network's own names begin with is no wrapper's, if the file's do, too.
    return _rest(own, given, names, best.removesuffix(inner))


def missing(own: Iterable[str], names: Iterable[str]) -> list[str]:
    """The network's names that a file lacks; it may lack what BatchNorm counts."""
    there = set(names)
    return [name for name in own if name not in there and not name.endswith(_COUNTER)]


def ends(name: str, dots: int = _LONGEST) -> Iterator[tuple[str, str]]:
    """A name's ends with what stands before them; of a monstrous name only itself.

    Args:
        dots: that an end has at most.

    >>> list(ends("net.fc.bias"))
    [('', 'net.fc.bias'), ('net.', 'fc.bias'), ('net.fc.', 'bias')]
    >>> list(ends("net.fc.bias", 1))
    [('net.', 'fc.bias'), ('net.fc.', 'bias')]
    """
    places = [i for i, letter in enumerate(name) if letter == "."] if len(name) <= _LONGEST else []
    for start in (0, *(place + 1 for place in places))[max(0, len(places) - dots) :]:
        yield name[:start], name[start:]


def _most_dots(names: Iterable[str]) -> int:
    return max((name.count(".") for name in names), default=0)


def _by_plain_name(given: Iterable[str]) -> dict[str, str]:
    plain: dict[str, str] = {}
    for name in given:
        short = plain_name(name)
        plain[name if short in plain else short] = name  # `module.a` beside `a`: two tensors
    return plain


def _common_prefix(names: Iterable[str]) -> str:
    """What wraps the whole network in the user's code: the first parts that all names share."""
    parts = [plain_name(name).split(".")[:-1] for name in names]
    shared = []
    for several in zip(*parts, strict=False):
        if len(set(several)) > 1:
            break
        shared.append(several[0])
    return "".join(f"{part}." for part in shared)


def _prefixes(sought: Mapping[str, str], plain: Mapping[str, str]) -> Counter[str]:
    """Of each prefix, how many of the names sought stand behind it."""
    found: Counter[str] = Counter()
    dots = _most_dots(sought)
    for name in plain:
        for prefix, end in ends(name, dots):
            if end in sought:
                found[prefix] += 1
    return found


def _best_prefix(
    own: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    sought: Mapping[str, str],
    plain: Mapping[str, str],
) -> str:
    def rank(prefix: str) -> tuple[int, int, bool, int]:
        names = _under(prefix, own, sought, plain)
        shapes = sum(own[o].shape == given[g].shape for o, g in names.items())
        return len(names), shapes, not words(prefix) & AVERAGES, -len(prefix)

    found = _prefixes(sought, plain)
    most = max(found.values(), default=0)
    level = [prefix for prefix, count in found.items() if count == most]
    return max(level[:_MOST_SETS], key=rank, default="")


def _under(
    prefix: str, own: Mapping[str, Tensor], sought: Mapping[str, str], plain: Mapping[str, str]
) -> dict[str, str]:
    return {
        name: plain[prefix + short] for short, name in sought.items() if prefix + short in plain
    }


def _one_by_one(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, str] | None:
    """Each tensor by the end of its name and its shape; None unless it is one to one."""
    # As it is, and without what only the network has; the last part alone says too little.
    sought = {name: [end for _, end in ends(plain_name(name)) if "." in end] for name in own}
    by_end: dict[str, list[str]] = {end: [] for several in sought.values() for end in several}
    dots = _most_dots(by_end)
    for name in given:
        for _, end in ends(plain_name(name), dots):
            if end in by_end:
                by_end[end].append(name)
    names: dict[str, str] = {}
    for name, tensor in own.items():
        several = [by_end[end] for end in sought[name]]
        same = [[there for there in some if given[there].shape == tensor.shape] for some in several]
        # Before the number of classes is known, the last layer is of another shape.
        alike = [[there for there in some if given[there].ndim == tensor.ndim] for some in several]
        fits = next(filter(None, (*same, *alike)), [])
        if len(fits) == 1:
            names[name] = fits[0]
        elif not name.endswith(_COUNTER):
            return None
    return names if len(set(names.values())) == len(names) else None


def _rest(
    own: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    names: Mapping[str, str],
    prefix: str | None,
) -> Match:
    """What the other tensors of the file are."""
    taken = set(names.values())
    others = {name: given[name] for name in given if name not in taken}
    copies: dict[str, Mapping[str, str]] = {}
    if not missing(own, names):
        while others and (copy := _copy(own, others)):
            if len(copies) == _MOST_SETS:
                raise InputError(f"the file holds more than {_MOST_SETS} sets of weights")
            copies[copy[0]] = copy[1]
            others = {name: others[name] for name in others if name not in copy[1].values()}
    outside = {name: _is_outside(name, prefix, given[name]) for name in others}
    ignored = tuple(name for name in others if outside[name])
    foreign = tuple(name for name in others if not outside[name])
    return Match(names, prefix, copies, ignored, foreign)


def _copy(
    own: Mapping[str, Tensor], others: Mapping[str, Tensor]
) -> tuple[str, dict[str, str]] | None:
    """Another whole set of the network's tensors, and the prefix that it stands behind."""
    plain, inner = _by_plain_name(others), _common_prefix(own)
    sought = {plain_name(name).removeprefix(inner): name for name in own}
    prefix = _best_prefix(own, others, sought, plain)
    names = _under(prefix, own, sought, plain)
    whole = not missing(own, names) and all(
        own[o].shape == others[g].shape for o, g in names.items()
    )
    return (prefix, names) if whole and names else None


def _is_outside(name: str, prefix: str | None, tensor: Tensor) -> bool:
    """Whether a tensor that the network lacks is none of its layers'."""
    plain = plain_name(name)
    if prefix and not plain.startswith(prefix):
        return True
    if len(name) > _LONGEST:
        return False
    parts = plain.removeprefix(prefix or "").split(".")
    if parts[-1] in _NORMALISATION and tensor.numel() <= 4:
        return True
    return bool((words(parts[0]) | words(parts[-1])) & _NO_WEIGHTS) or parts[0].startswith(_PHASES)


def is_normalisation(name: str) -> bool:
    """Whether a tensor is called as a wrapper's mean or std."""
    return name.rsplit(".", maxsplit=1)[-1] in _NORMALISATION


def own_normalisation(
    names: Iterable[str], given: Mapping[str, Tensor]
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std that a wrapper keeps beside the network, of images in [0, 1]."""
    found: dict[bool, tuple[float, ...]] = {}
    for name in names:
        last = name.split(".")[-1]
        if last in _NORMALISATION and given[name].numel() in (1, 3):
            is_mean = last.lstrip("_").removeprefix("pixel_") in ("mean", "mu")
            found[is_mean] = tuple(given[name].flatten().tolist())
    if len(found) < 2 or min(found[False]) <= 0 or min(found[True]) < 0:
        return None
    scale = 255 if max(found[True]) > 1 else 1
    return tuple(m / scale for m in found[True]), tuple(s / scale for s in found[False])
