"""Other copies of a network's weights in its checkpoint: running averages, teachers, shadows.

A repaired file must not carry the backdoor in an entry that some loader prefers. Whole copies,
known by names and shapes, get the repaired weights: an average of the old ones would be the old
network. What only looks like a copy, by its numbers, is taken out.
"""

import argparse
import copy
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from shapprune.checkpoints.containers import Path, containers, spoken
from shapprune.checkpoints.naming import match, missing
from shapprune.checkpoints.settings import RESEMBLANCE
from shapprune.utils.text import list_names, quote


@dataclass(frozen=True)
class Copies:
    """Where a checkpoint holds a network's weights.

    Attributes:
        keys: where the weights themselves are.
        places: of each tensor to be replaced, the network's own name for it.
        taken: what goes, for its numbers resemble the weights'.
        averages: names of the whole copies beside the weights themselves.
        different: of those elsewhere with other numbers, the names with the entry that picks them;
            empty where none does.
        removed: names of what goes.
        kept: names of other tensors' entries, which stay.
        optimizer: whether the state of an optimizer stays.
    """

    keys: Path
    places: Mapping[Path, str]
    taken: frozenset[Path]
    averages: tuple[str, ...]
    different: Mapping[str, str]
    removed: tuple[str, ...]
    kept: tuple[str, ...]
    optimizer: bool

    def warnings(self, told: Sequence[str] = (), *, named: bool = True) -> Iterator[str]:
        """Which of them may be another network.

        Args:
            told: names of entries that the user knows not to be examined.
            named: whether ``--entry`` can name one.
        """
        if untold := [name for name in self.different if name not in told]:
            entries = [quote(entry) for name in untold if (entry := self.different[name])]
            one = entries[0] if len(entries) == 1 else "NAME"
            way = f"with --entry {one}, or " if entries and named else ""
            yield (
                f"warning: whole sets of weights in {list_names(untold)} differ from those that "
                f"were examined, and a loader may take them: scan them too, {way}from a file of "
                "their own"
            )

    def notes(self, told: Sequence[str] = ()) -> Iterator[str]:
        """Which of them may be another network, and what becomes of them if there is a repair.

        Args:
            told: see `warnings`.
        """
        yield from self.warnings(told)
        if self.averages:
            yield (
                f"other whole sets of the weights, {list_names(self.averages)}, are replaced by "
                "the repaired weights if there is a repair"
            )
        if self.removed:
            yield (
                f"{list_names(self.removed)}: numbers like the weights', left out of a repaired "
                "file"
            )
        if self.kept:
            yield f"other entries with tensors stay as they are: {list_names(self.kept)}"
        if self.optimizer:
            yield (
                "the optimizer's state in a repaired file is that of the old weights: do not "
                "resume training from it"
            )


def find_copies(
    content: object, keys: Path, own: Mapping[str, Tensor], names: Mapping[str, str]
) -> Copies:
    """All copies of a network's weights in a checkpoint.

    Args:
        content: the checkpoint.
        keys: where in it the weights are.
        own: the network's tensors as they were read, by its own names.
        names: the file's names of them.
    """
    places: dict[Path, str] = {(*keys, given): name for name, given in names.items()}
    averages: list[str] = []
    different: dict[str, str] = {}
    groups = containers(content)
    known: dict[int, list[_Set]] = {}  # one object may stand in many places
    for path, node, inside in groups:
        if not isinstance(node, Mapping):
            continue
        if path == keys:
            sets = _sets(own, node, inside, but=set(names.values()))
        elif id(node) in known:
            sets = known[id(node)]
        else:
            sets = known[id(node)] = _sets(own, node, inside)
        for one in sets:
            prefix = one.prefix if path == keys or len(sets) > 1 else ""
            averages.append(name := spoken(path, prefix))
            if path != keys and one.is_different:
                entry = name if prefix else f"{'.'.join(map(str, path))}."
                different[name] = entry if _is_reached(content, path) else ""
            places |= {(*path, given): name for name, given in one.names.items()}
    return _with_resemblances(groups, keys, places, own, averages, different)


def _is_reached(content: object, path: Path) -> bool:
    """Whether ``--entry`` can name the place: keys of text that lead from dict to dict."""
    for key in path:
        if not isinstance(content, Mapping) or not isinstance(key, str) or not key:
            return False
        content = content[key]
    return True


@dataclass(frozen=True)
class _Set:
    """A whole set of a network's tensors in a dict: the dict's names by the network's, what stands
    before them, and whether the numbers are others."""

    names: Mapping[str, str]
    prefix: str | None
    is_different: bool


def _sets(
    own: Mapping[str, Tensor],
    node: Mapping[Any, Any],
    tensors: Mapping[Any, Tensor],
    but: Set[str] = frozenset(),
) -> list[_Set]:
    """The whole sets in a dict, but for tensors of these names."""
    named = {
        key: tensor
        for key, tensor in tensors.items()
        if isinstance(key, str) and key not in but and tensor is node[key]
    }
    if len(named) < max(len(missing(own, ())), 1):
        return []
    found = match(own, named)
    if missing(own, found.names) or any(
        own[o].shape != named[g].shape for o, g in found.names.items()
    ):
        return []
    return [
        _Set(names, prefix, _differ(own, {o: named[g] for o, g in names.items()}))
        for prefix, names in ((found.prefix, found.names), *found.copies.items())
    ]


def _with_resemblances(
    groups: list[tuple[Path, Any, dict[Any, Tensor]]],
    keys: Path,
    places: dict[Path, str],
    own: Mapping[str, Tensor],
    averages: list[str],
    different: dict[str, str],
) -> Copies:
    taken: set[Path] = set()
    kept: list[str] = []
    sampled: dict[tuple[int, ...], list[Tensor]] = {}
    for tensor in own.values():
        if tensor.ndim > 1 and tensor.numel() >= RESEMBLANCE.least:
            sampled.setdefault(tuple(tensor.shape), []).append(_sampled(tensor))
    by_shape = {shape: torch.stack(several) for shape, several in sampled.items()}
    total = sum(tensor.numel() for tensor in own.values())
    optimizer = False
    replaced = {place[:-1] for place in places}
    around = {place[:length] for place in places for length in range(len(place))}
    known: dict[int, tuple[list[Any], int]] = {}  # one object may stand in many places
    for path, node, tensors in groups:
        others = tensors
        if path in replaced:
            others = {k: t for k, t in tensors.items() if (*path, k) not in places}
            alike, judged = _alike(others, by_shape, total)
        elif id(node) in known:
            alike, judged = known[id(node)]
        else:
            alike, judged = known[id(node)] = _alike(others, by_shape, total)
        whole = 2 * len(alike) > max(judged, 1) or not isinstance(node, Mapping)
        if alike and whole and path and path not in around:
            taken.add(path)
        else:
            taken |= {(*path, key) for key in alike}
        left = [k for k in others if k not in alike] if path not in taken else []
        is_optimizer = any("optim" in str(key).lower() for key in path)
        optimizer |= bool(left) and is_optimizer
        is_apart = len(others) == len(tensors) and path
        if left and is_apart and not is_optimizer and any(t.ndim > 1 for t in others.values()):
            kept.append(spoken(path, ""))
    removed = list(dict.fromkeys(spoken(path, "") for path in taken))
    return Copies(
        keys,
        places,
        frozenset(taken),
        tuple(averages),
        different,
        tuple(sorted(removed)),
        tuple(kept),
        optimizer,
    )


def rewritten(content: Any, copies: Copies, tensors: Mapping[str, Tensor]) -> Any:
    """A copy of a checkpoint with other weights in all places, each in the type that was there.

    Args:
        tensors: the new weights by the network's own names.
    """
    changed = (*copies.places, *copies.taken)
    holders = {place[:-1] for place in changed}
    touched = {place[:length] for place in holders for length in range(len(place) + 1)}
    done: dict[int, Any] = {}  # one object in many places stays one, or files would swell

    def rewrite(node: Any, path: Path) -> Any:
        if path in copies.places:
            return in_type_of(node, tensors[copies.places[path]])
        if path not in touched:
            return node
        if path == copies.keys[: len(path)]:  # only here it matters where an object stands
            return rewrite_container(node, path)
        if id(node) not in done:
            done[id(node)] = rewrite_container(node, path)
        return done[id(node)]

    def rewrite_container(node: Any, path: Path) -> Any:
        if isinstance(node, argparse.Namespace):
            return argparse.Namespace(**rewrite(vars(node), path))
        if isinstance(node, list | tuple):
            kept = (i for i in range(len(node)) if (*path, i) not in copies.taken)
            return type(node)(rewrite(node[i], (*path, i)) for i in kept)
        fresh = copy.copy(node)  # an OrderedDict's copy keeps what torch hangs on it
        for key, entry in node.items():
            if (*path, key) in copies.taken:
                del fresh[key]
            else:
                fresh[key] = rewrite(entry, (*path, key))
        return fresh

    return rewrite(content, ())


def in_type_of(given: Tensor | None, tensor: Tensor) -> Tensor:
    """A tensor in the type of another, and the very bits of that if they are equal."""
    tensor = tensor.detach().cpu()
    if given is not None and given.dtype != tensor.dtype:
        tensor = given if torch.equal(given.to(tensor.dtype), tensor) else tensor.to(given.dtype)
    return tensor.clone(memory_format=torch.contiguous_format)


def _alike(
    tensors: Mapping[Any, Tensor], by_shape: Mapping[tuple[int, ...], Tensor], total: int
) -> tuple[list[Any], int]:
    """The keys of what resembles the weights, and how many have a shape of theirs."""
    judged = {k: t for k, t in tensors.items() if tuple(t.shape) in by_shape}
    alike = [k for k, t in judged.items() if _resembles(t, by_shape[tuple(t.shape)])]
    return [*alike, *(k for k, t in tensors.items() if _is_flat(t, total))], len(judged)


def _differ(own: Mapping[str, Tensor], copied: Mapping[str, Tensor]) -> bool:
    """Whether a copy has other numbers, rounded to its type."""
    return any(not torch.equal(own[name].to(c.dtype), c) for name, c in copied.items())


def _sampled(tensor: Tensor) -> Tensor:
    """Some of the numbers, as a vector of length 1."""
    flat = tensor.detach().flatten()
    sample = flat[:: max(1, len(flat) // RESEMBLANCE.sample)].float()
    return normalize(sample.nan_to_num(0, 0, 0), dim=0)


def _resembles(tensor: Tensor, weights: Tensor) -> bool:
    """Whether a tensor points where one of the weights (n, sample) does."""
    return (
        tensor.is_floating_point()
        and float((weights @ _sampled(tensor)).max()) > RESEMBLANCE.cosine
    )


def _is_flat(tensor: Tensor, total: int) -> bool:
    """Whether all of a network may lie in it in one row, as sharded training keeps it."""
    return (
        tensor.is_floating_point()
        and tensor.ndim == 1
        and 2 * tensor.numel() >= total > RESEMBLANCE.least
    )
