"""Which calls of a pickle are those of weights, and how much they may make.

Every function that may be called has a rule for its arguments. What is not in the table is not
called, whatever it would do. A file's word is never taken for a size: tensors must have the
numbers that they claim, and what is shared is counted as often as it is used.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from shapprune.checkpoints.pickle_scan import Call, Global, Pickle, is_plain_key
from shapprune.checkpoints.tensor_records import (
    FROM_TYPE,
    STRIDED,
    is_size,
    is_strided,
    name_of,
    numbers_of,
    storage_faults,
    tensor_facts,
)
from shapprune.utils.text import printable

_MOST_VALUES = 8_000_000  # in all, each counted as often as something holds it
_DEEPEST = 100  # saving a file again follows it down
_ENOUGH = 1 << 60
_LEAF = (1, 0, 0)
_HOLDERS = (Call, dict, list, tuple)
_MOST_SET_ITEMS = 100_000
_SPARE = 1 << 20  # numbers that tensors may have beyond 16 times those stored: expanded ones


def faults(pickle: Pickle, sizes: Mapping[str, int], length: int) -> Iterator[str]:
    """What no weights file asks of its reader, in words. Only the first one is sure to be whole.

    Args:
        pickle: whole, and with allowed names alone.
        sizes: bytes of each storage that is there, by its key.
        length: of the pickle, in bytes.
    """
    yield from storage_faults(pickle, sizes)
    yield from _call_faults(pickle, length)
    yield from _size_faults(pickle, sum(sizes.values()))


def _call_faults(pickle: Pickle, length: int) -> Iterator[str]:
    decoded = 0
    for call in pickle.calls:
        name = name_of(call.function)
        if not _may_call(name, call.arguments):
            yield f"a call of {printable(name, 80)} with what no weights have"
            return
        if name == "_codecs.encode":
            decoded += len(call.arguments[0])  # type: ignore[index]  # as `_is_latin` says
        if call.items and name not in ("collections.OrderedDict", "collections.Counter"):
            yield f"items of what {printable(name, 80)} makes"
            return
    if decoded > 4 * length + _SPARE:
        yield f"{decoded} bytes made of {length}"
    for target, state in pickle.builds:
        name = name_of(target.function) if isinstance(target, Call) else ""
        if name not in _STATES or not _STATES[name](state):
            what = f"a state for {printable(name, 80) or 'what has none'} that no weights have"
            yield "a numpy array of objects" if _is_of_objects(state) else what
            return


def _size_faults(pickle: Pickle, stored: int) -> Iterator[str]:
    made = sum(numbers_of(call) for call in pickle.calls)
    values, depth, numbers = _measure(pickle.value)
    if max(made, numbers) > 16 * stored + _SPARE:
        yield f"tensors of {max(made, numbers)} numbers in all, with {stored} bytes"
    if values > _MOST_VALUES or depth > _DEEPEST:
        yield f"{values} values in all, nested {depth} deep"


def _measure(value: object) -> tuple[int, int, int]:
    """Values, depth and tensors' numbers, what is shared counted as often as it is used.

    Each record is visited once: a billion laughs are counted, not laughed.

    Raises:
        ValueError: something that holds itself.
    """
    known: dict[int, tuple[int, int, int] | None] = {}  # None until all below it are known
    waiting = [value]
    while waiting:
        record = waiting[-1]
        children = _children(record)
        if id(record) not in known:
            known[id(record)] = None
            below = [c for c in children if isinstance(c, _HOLDERS) and id(c) not in known]
            if below:
                waiting += below
                continue
        elif known[id(record)]:
            waiting.pop()
            continue
        values, depth, numbers = 1, 0, numbers_of(record) if isinstance(record, Call) else 0
        for child in children:
            facts = known.get(id(child), _LEAF) if isinstance(child, _HOLDERS) else _LEAF
            if facts is None:
                raise ValueError("something that holds itself")
            values = min(values + facts[0], _ENOUGH)  # else they grow as long as the file
            depth = max(depth, facts[1])
            numbers = min(numbers + facts[2], _ENOUGH)
        known[id(record)] = values, depth + 1, numbers
        waiting.pop()
    return known[id(value)] or _LEAF


def _children(record: object) -> list[object]:
    if isinstance(record, Call):
        return [record.arguments, *record.items.values(), record.state]
    if isinstance(record, dict):
        return list(record.values())
    return list(record) if isinstance(record, list | tuple) else []


def _is_hooks(value: object) -> bool:
    """Hooks are never saved; what stands in their place would be called by a backward pass."""
    if value is None:
        return True
    is_dict = isinstance(value, Call) and name_of(value.function) == "collections.OrderedDict"
    return isinstance(value, Call) and is_dict and not value.items


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | bytes | int | float | Global)


def _is_attributes(state: object) -> bool:
    """Of a tensor in Python: plain values under names that are not its own."""
    if isinstance(state, tuple):
        return len(state) == 2 and all(part is None or _is_attributes(part) for part in state)
    return isinstance(state, dict) and all(
        isinstance(key, str)
        and not key.startswith("_")
        and key not in ("data", "grad", "names", "requires_grad", "real", "imag")
        and _is_plain(value)
        for key, value in state.items()
    )


def _is_tensor(arguments: tuple[Any, ...]) -> bool:
    rest = arguments[4:]  # requires_grad, hooks, and a dtype or facts in newer versions
    facts = rest[-1] if len(rest) > 2 else None
    return (
        is_strided(arguments)
        and len(arguments) <= 8
        and all(isinstance(flag, bool | int) for flag in rest[:1])
        and all(map(_is_hooks, rest[1:2]))
        and all(isinstance(dtype, Global) for dtype in rest[2:-1])
        and (_is_plain(facts) or (isinstance(facts, dict) and all(map(_is_plain, facts.values()))))
    )


def _is_quantised(arguments: tuple[Any, ...]) -> bool:
    if not (is_strided(arguments) and len(arguments) == 7 and _is_hooks(arguments[6])):
        return False
    # Its numbers are allocated by the size that is claimed.
    return bool(math.prod(arguments[2]) <= arguments[0].id[4])


def _is_parameter(arguments: tuple[Any, ...]) -> bool:
    match arguments:
        case (Call() as tensor, *rest):
            return tensor_facts(tensor) is not None and (
                len(rest) <= 1
                or (len(rest) == 2 and _is_hooks(rest[1]))
                or (len(rest) == 3 and _is_hooks(rest[1]) and _is_attributes(rest[2]))
            )
    return False


def _is_of_type(arguments: tuple[Any, ...]) -> bool:
    match arguments:
        case (Global(name=make), Global(name=kind), tuple() as inner, state):
            return (
                kind in ("torch.Tensor", "torch.nn.parameter.Parameter")
                and make.startswith("torch._utils._rebuild_")
                and _may_call(make, inner)
                and _is_attributes(state)
            )
    return False


def _is_pairs(arguments: tuple[Any, ...]) -> bool:
    """Of Python 2's ordered dicts, ``([[key, value], …],)``; else nothing."""
    match arguments:
        case (list() as pairs,):
            keys = [pair[0] for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 2]
            return len(keys) == len(pairs) == len(set(filter(is_plain_key, keys)))
    return arguments == ()


def _is_set(arguments: tuple[Any, ...]) -> bool:
    match arguments:
        case (list() as items,):
            return all(map(is_plain_key, items)) and len(items) <= _MOST_SET_ITEMS
    return arguments == ()


def _is_latin(arguments: tuple[Any, ...]) -> bool:
    """Other codecs make much of little: hex doubles it, again and again."""
    return len(arguments) == 2 and isinstance(arguments[0], str) and arguments[1] == "latin1"


def _is_bytes(value: object) -> bool:
    return isinstance(value, bytes) or (
        isinstance(value, Call) and name_of(value.function) in ("_codecs.encode", *_NO_BYTES)
    )


def _is_dtype(value: object) -> bool:
    return isinstance(value, Call) and name_of(value.function) == "numpy.dtype"


def _is_dtype_code(arguments: tuple[Any, ...]) -> bool:
    return (
        1 <= len(arguments) <= 3
        and isinstance(arguments[0], str | bytes)
        and len(arguments[0]) <= 12
        and all(isinstance(flag, int) for flag in arguments[1:])
    )


def _is_array_state(state: object) -> bool:
    match state:
        case (int(), shape, dtype, int(), data):
            return is_size(shape) and _is_dtype(dtype) and _is_bytes(data)
    return False


def _is_of_objects(state: object) -> bool:
    """Numpy saves them as a list, in which anything may stand."""
    return isinstance(state, tuple) and len(state) == 5 and isinstance(state[4], list)


def _has_names(state: object) -> bool:
    return isinstance(state, dict) and all(
        isinstance(key, str) and not key.startswith("__") for key in state
    )


_NO_BYTES = ("builtins.bytes", "__builtin__.bytes")  # called: what protocol 2 makes of b""
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
_CALLS: dict[str, Callable[[tuple[Any, ...]], bool]] = {
    "collections.OrderedDict": _is_pairs,
    "collections.Counter": lambda a: not a or (len(a) == 1 and isinstance(a[0], dict)),
    "torch.nn.parameter.Parameter": _is_parameter,
    "torch.serialization._get_layout": lambda a: len(a) == 1 and isinstance(a[0], str),
    "torch.Size": lambda a: len(a) == 1 and is_size(tuple(a[0])),
    "torch.device": lambda a: 1 <= len(a) <= 2 and all(map(_is_plain, a)),
    **{f"{module}.set": _is_set for module in ("builtins", "__builtin__")},
    **{
        f"{module}.complex": lambda a: len(a) == 2 and all(map(_is_plain, a))
        for module in ("builtins", "__builtin__")
    },
    **{name: lambda a: a == () for name in _NO_BYTES},
    **{name: _is_tensor for name in STRIDED},
    "torch._utils._rebuild_qtensor": _is_quantised,
    "torch._utils._rebuild_parameter": _is_parameter,
    "torch._utils._rebuild_parameter_with_state": _is_parameter,
    "torch._utils._rebuild_sparse_tensor": lambda a: len(a) == 2,
    "torch._utils._rebuild_meta_tensor_no_storage": (
        lambda a: len(a) == 4 and is_size(a[1]) and is_size(a[2])
    ),
    FROM_TYPE: _is_of_type,
    "_codecs.encode": _is_latin,
    "argparse.Namespace": lambda a: a == (),
    "numpy.dtype": _is_dtype_code,
    **{
        f"{core}._reconstruct": lambda a: len(a) == 3 and name_of(a[0]) == "numpy.ndarray"
        for core in _NUMPY
    },
    **{
        f"{core}.scalar": lambda a: len(a) == 2 and _is_dtype(a[0]) and _is_bytes(a[1])
        for core in _NUMPY
    },
}
_STATES: dict[str, Callable[[object], bool]] = {
    # Anything else would take the place of the dict's own methods.
    "collections.OrderedDict": lambda s: isinstance(s, dict) and s.keys() <= {"_metadata"},
    "argparse.Namespace": _has_names,
    "numpy.dtype": lambda s: isinstance(s, tuple) and len(s) >= 2 and _is_plain(s[1]),
    **{f"{core}._reconstruct": _is_array_state for core in _NUMPY},
}


def _may_call(name: str, arguments: object) -> bool:
    return name in _CALLS and isinstance(arguments, tuple) and _CALLS[name](arguments)
