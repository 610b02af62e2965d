"""Where in a checkpoint the weights are, and where other weights are."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from shapprune.checkpoints.naming import AVERAGES, words
from shapprune.errors import InputError
from shapprune.utils.text import list_names, quote, suggest

# Where training scripts put the weights, best first; other entries are tried after these.
_WEIGHT_ENTRIES = (
    *("state_dict", "model_state_dict", "model", "net", "network", "weights", "params"),
    *("student", "backbone", "classifier", "module", "model_state", "net_state_dict"),
    *("ema", "ema_state_dict", "state_dict_ema", "model_ema"),
)
# Which well-known loader takes an entry where there are several.
_PREFERRED = {
    "state_dict_ema": "timm's load_checkpoint",
    "model_ema": "timm's load_checkpoint",
    "ema": "ultralytics",
    "teacher": "DINO's evaluation",
}
TOP = "the top level"  # where a checkpoint has weights under no key
_DEEPEST = 3
_QUANTISED = re.compile(
    r"(\.|^)(qweight|qzeros|SCB|absmax|quant_map|quant_state.*|zero_point|weight_scale|"
    r"_packed_params.*)$"
)


def find_weights(
    content: object, entry: str | None = None
) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """Where the state dict is, the prefix of its names that was asked for, and where others are.

    Args:
        content: of a checkpoint.
        entry: its key, keys within keys joined by dots, or a prefix of names; None: the likeliest.
            With a dot at its end it is that very level, and ``.`` the top one, where tensors stand
            beside entries that hold weights, too.

    Raises:
        InputError: no named tensors, or none there; in words that follow the file's name.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"holds no weights: expected named tensors, found a {_type(content)}")
    places = list(dict.fromkeys(_places(content, ())))
    if not places:
        places = list(_unusual_places(content, ()))
    if entry is None:
        if not places:
            found = list_names([str(name) for name in content])
            raise InputError(
                "holds no weights: expected named tensors, found a dict"
                + (f" with {found}, of {_type(next(iter(content.values())))}" if found else "")
            )
        keys, prefix = places[0], ""
    else:
        keys, prefix = _named(content, places, entry)
    others = tuple(".".join(place) for place in places if place != keys)
    return keys, prefix, others


def inside(content: Any, keys: tuple[str, ...]) -> Mapping[str, Any]:
    """What lies in a checkpoint behind the keys."""
    for key in keys:
        content = content[key]
    assert isinstance(content, Mapping)
    return content


def entry_notes(
    keys: tuple[str, ...], others: tuple[str, ...], *, asked: bool | None
) -> Iterator[str]:
    """What the user must know of a choice among several.

    Args:
        keys: of what is examined.
        others: where other weights are.
        asked: whether ``--entry`` named it; None where it can name nothing, in a folder.
    """
    if not others:
        return
    chosen = ".".join(keys) or TOP
    alone = asked is None
    yield (
        f"examined are the weights under {quote(chosen)} alone, not those under "
        f"{list_names(others)}: "
        + ("scan these from a file of their own" if alone else "--entry NAME examines these")
    )
    for other in others:
        if (loader := _PREFERRED.get(other)) and chosen not in _PREFERRED:
            way = "from a file of its own" if alone else f"with --entry {other}"
            yield (
                f"warning: {loader} takes {quote(other)} if not told otherwise, which is not what "
                f"was examined: scan it too, {way}"
            )
    if asked and others and words(chosen) & AVERAGES and not words(others[0]) & AVERAGES:
        yield (
            f"warning: most loaders take {quote(others[0])}, which is not what was examined: scan "
            "it too, without --entry"
        )


def quantised_name(names: Mapping[str, Any]) -> str | None:
    """The first name that only a quantised network has."""
    return next((n for n in names if isinstance(n, str) and _QUANTISED.search(n)), None)


def _named(
    content: Mapping[Any, Any], places: list[tuple[str, ...]], entry: str
) -> tuple[tuple[str, ...], str]:
    this_level, name = entry.endswith("."), entry.removesuffix(".")
    keys, node, rest = [], content, name
    while rest and isinstance(node, Mapping):
        fits = [k for k in node if isinstance(k, str) and f"{rest}.".startswith(f"{k}.")]
        fits = [k for k in fits if isinstance(node[k], Mapping)]
        if not fits:
            break
        key = max(fits, key=len)
        keys.append(key)
        node, rest = node[key], rest[len(key) + 1 :]
    if not rest:
        within = [place for place in places if place[: len(keys)] == tuple(keys)]
        if within and not this_level:
            return within[0], ""
        if _is_state_dict(node) or (this_level and any(map(_is_tensor, node.values()))):
            return tuple(keys), ""
    for place in [tuple(keys), *places]:
        names = inside(content, place)
        prefix = (rest if place == tuple(keys) else name) + "."
        if any(isinstance(n, str) and n.startswith(prefix) for n in names):
            return place, prefix
    known = [".".join(place) for place in places if place]
    meant = suggest(entry, known) or (f": it has {list_names(known)}" if known else "")
    raise InputError(f"has no weights under {quote(entry)}{meant}")


def _places(node: Mapping[Any, Any], keys: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """State dicts, likeliest first: those at the top, then those in entries of known names."""
    if _is_state_dict(node):
        yield keys
        return
    names = [name for name in _WEIGHT_ENTRIES if name in node]
    if not keys:
        unknown = [name for name in node if isinstance(name, str) and name not in names]
        names += sorted(unknown, key=lambda name: bool(words(name) & AVERAGES))
    yield from ((*keys, name) for name in names if _is_state_dict(node[name]))
    if len(keys) < _DEEPEST:
        for name in names:
            if isinstance(node[name], Mapping):
                yield from _places(node[name], (*keys, name))


def _unusual_places(node: Mapping[Any, Any], keys: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Named tensors with other things among them, or behind keys that nobody uses."""
    if _is_loosely_one(node):
        yield keys
    elif len(keys) < _DEEPEST:
        for key, entry in node.items():
            if isinstance(key, str) and isinstance(entry, Mapping) and "optim" not in key:
                yield from _unusual_places(entry, (*keys, key))


def _is_state_dict(entry: object) -> bool:
    return (
        isinstance(entry, Mapping)
        and bool(entry)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in entry.items())
    )


def _is_loosely_one(entry: Mapping[Any, Any]) -> bool:
    """Named tensors of layers, with other things among them, as ``_extra_state`` is."""
    return any(
        isinstance(k, str) and isinstance(v, Tensor) and "." in k and v.ndim > 0
        for k, v in entry.items()
    )


def _is_tensor(entry: object) -> bool:
    return isinstance(entry, Tensor)


def _type(value: object) -> str:
    return type(value).__name__.lstrip("_")
