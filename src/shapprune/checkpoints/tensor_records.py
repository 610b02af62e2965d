"""Tensors in a pickle: what a record of one says of it, without its numbers."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shapprune.checkpoints.pickle_scan import Call, Global, Persistent, Pickle

_MOST_DIMS = 32
_MOST_WRAPPED = 100
FROM_TYPE = "torch._tensor._rebuild_from_type_v2"
STRIDED = {
    *("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"),
    *("torch._utils._rebuild_tensor_v3", "torch._utils._rebuild_qtensor"),
}
_ITEM_BYTES = {
    **{"Double": 8, "Long": 8, "ComplexFloat": 8, "ComplexDouble": 16, "Float": 4, "Int": 4},
    **{"QInt32": 4, "Half": 2, "BFloat16": 2, "Short": 2},
}
_DTYPES = {
    **{"Byte": "uint8", "Char": "int8", "Half": "float16", "Short": "int16", "Int": "int32"},
    **{"Float": "float32", "Double": "float64", "Long": "int64"},
}


@dataclass(frozen=True)
class TensorFacts:
    """A tensor without its numbers."""

    dtype: str
    shape: tuple[int, ...]


def name_of(value: object) -> str:
    """The name of a `Global`, empty for anything else."""
    return value.name if isinstance(value, Global) else ""


def tensor_facts(value: object) -> TensorFacts | None:
    """The facts of a tensor's record, None for other values."""
    for _ in range(_MOST_WRAPPED):
        if isinstance(value, TensorFacts):
            return value
        if not isinstance(value, Call) or not isinstance(value.arguments, tuple):
            return None
        name, arguments = name_of(value.function), value.arguments
        if name == FROM_TYPE and len(arguments) == 4:
            value = Call(arguments[0], arguments[2])
        elif name.startswith("torch._utils._rebuild_parameter") and arguments:
            value = arguments[0]
        elif name in STRIDED and is_strided(arguments):
            dtype = arguments[6] if name.endswith("_v3") and len(arguments) > 6 else None
            kind = _storage_kind(arguments[0].id)
            said = name_of(dtype).removeprefix("torch.")
            return TensorFacts(said or _DTYPES.get(kind, kind.lower()), tuple(arguments[2]))
        else:
            return None
    return None


def item_bytes(place: object) -> int:
    """Of one number of a storage, from its persistent id."""
    return _ITEM_BYTES.get(_storage_kind(place), 1)


def _storage_kind(place: object) -> str:
    """``Float`` of ``("storage", torch.FloatStorage, key, device, count, …)``."""
    name = name_of(place[1]) if isinstance(place, tuple) and len(place) > 1 else ""
    return name.rpartition(".")[2].removesuffix("Storage")


def storage_faults(pickle: Pickle, sizes: Mapping[str, int]) -> Iterator[str]:
    """Torch takes a file's word for how many numbers a storage has."""
    for place in pickle.stored:
        match place:
            case ("storage" | b"storage", Global(), str() | int() as key, _, int() as count, *_):
                if sizes.get(str(key)) != count * item_bytes(place):
                    there = sizes.get(str(key), 0)
                    yield f"a tensor of {count} numbers where {there} bytes are"
                    return
            case _:
                yield "a reference to something outside of the file"
                return


def numbers_of(call: Call) -> int:
    """That a call makes or shows; views of a storage count as well."""
    name = name_of(call.function)
    if name not in STRIDED and name != FROM_TYPE:
        return 0
    facts = tensor_facts(call)
    return math.prod(facts.shape) if facts else 0


def is_strided(arguments: tuple[Any, ...]) -> bool:
    """``(storage, offset, size, stride, …)`` within the storage."""
    match arguments:
        case (Persistent(id=(_, _, _, _, int() as count, *_)), int() as offset, size, stride, *_):
            if not (is_size(size) and is_size(stride) and len(size) == len(stride)):
                return False
            steps = zip(size, stride, strict=True)
            last = offset + sum((extent - 1) * step for extent, step in steps)
            return offset >= 0 and (0 in size or last < count)
    return False


def is_size(value: object) -> bool:
    """Whether a value can be the shape of a tensor."""
    return (
        isinstance(value, tuple)
        and len(value) <= _MOST_DIMS
        and all(isinstance(extent, int) and 0 <= extent < 1 << 62 for extent in value)
    )
