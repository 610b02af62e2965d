"""What in a checkpoint holds tensors, and where: each object once, wherever it stands."""

import argparse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from shapprune.checkpoints.entries import TOP
from shapprune.errors import InputError
from shapprune.utils.text import quote

_DEEPEST = 50
_MOST_CONTAINERS = 500_000

Path: TypeAlias = tuple[Any, ...]


def containers(content: object) -> list[tuple[Path, Any, dict[Any, Tensor]]]:
    """Every list, dict and namespace (as its dict) that holds tensors at any depth, outermost
    first, with the tensors right inside, numpy's arrays among them.

    Raises:
        InputError: what holds itself, is nested too deep to be rewritten, or is too many.
    """
    tensors: dict[int, dict[Any, Tensor] | None] = {}
    _note_tensors(content, (), (), tensors)
    found = []
    for path, node in _walk(content, (), tensors):
        found.append((path, node, tensors[id(node)] or {}))
        if len(found) > _MOST_CONTAINERS:
            raise InputError(f"the file nests more than {_MOST_CONTAINERS} lists and dicts")
    return found


def spoken(path: Path, prefix: str | None) -> str:
    """A place in words, and ``prefix`` of the names there.

    >>> spoken(("state_dict_ema", "module"), "ema.")
    'state_dict_ema.module.ema'
    """
    return ".".join([*map(str, path), *filter(None, (prefix or "").split("."))]) or TOP


def _note_tensors(
    node: Any, path: Path, above: tuple[int, ...], found: dict[int, dict[Any, Tensor] | None]
) -> bool:
    """Whether a container holds tensors at any depth; in ``found``, those right inside of each.

    Each object is looked at once, wherever it stands: a file of kilobytes can name it a million
    times. In ``found`` are None where there are no tensors at all.

    Raises:
        InputError: what holds itself, or is nested too deep to be rewritten.
    """
    node = _plain(node)
    if not isinstance(node, Mapping | list | tuple):
        return False
    if id(node) in above or len(path) > _DEEPEST:
        raise InputError(f"the file holds {quote(spoken(path, ''))}, which is nested without end")
    if id(node) not in found:
        tensors, deeper = _tensors(node), False
        for key, entry in _entries(node):
            deeper |= _note_tensors(entry, (*path, key), (*above, id(node)), found)
        found[id(node)] = tensors if tensors or deeper else None
    return found[id(node)] is not None


def _walk(
    node: Any, path: Path, found: Mapping[int, dict[Any, Tensor] | None]
) -> Iterator[tuple[Path, Any]]:
    """Everything in a checkpoint that holds tensors, see `_note_tensors`, outermost first.

    Raises:
        InputError: what is nested too deep to be rewritten.
    """
    node = _plain(node)
    if found.get(id(node)) is None:
        return
    if len(path) > _DEEPEST:
        raise InputError(f"the file holds {quote(spoken(path, ''))}, which is nested without end")
    yield path, node
    for key, entry in _entries(node):
        yield from _walk(entry, (*path, key), found)


def _plain(node: Any) -> Any:
    return vars(node) if isinstance(node, argparse.Namespace) else node


def _entries(node: Any) -> Iterable[tuple[Any, Any]]:
    return node.items() if isinstance(node, Mapping) else enumerate(node)


def _tensors(node: Any) -> dict[Any, Tensor]:
    """The tensors right inside of a container, numpy's arrays among them."""
    found = {}
    for key, entry in _entries(node):
        array: Any = getattr(entry, "array", None)  # what stands in for numpy's, see `state_dict`
        if isinstance(entry, Tensor) and entry.layout == torch.strided and not entry.is_meta:
            found[key] = entry
        elif getattr(getattr(array, "dtype", None), "kind", "") == "f":
            found[key] = torch.from_numpy(array.astype("float32"))
    return found
