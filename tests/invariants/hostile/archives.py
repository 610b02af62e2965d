"""Broken, ambiguous and lying weights files: zips, the old kind, safetensors."""

import json
import pickle
import struct
import zipfile
from collections.abc import Callable

import numpy as np
import torch
from safetensors.torch import save as to_safetensors

from invariants.hostile.building import (
    Make,
    ask,
    entry,
    flipped,
    good,
    only_pickle,
    rezipped,
    saved,
    saved_before,
    storage,
    tensor,
    text,
    weights,
    with_pickle,
    zipped,
)
from toys import CLASSES, backdoored_net

OVERSIZED = pickle.dumps(weights(), protocol=2)  # no torch archive


def bomb() -> bytes:
    return rezipped(lambda e: e.update({"archive/data/0": bytes(200 << 20)}), zipfile.ZIP_DEFLATED)


def lies_about_size() -> bytes:
    """The table of contents declares ten times as many bytes as are there."""
    data = bytearray(good())
    place = data.rindex(b"PK\x01\x02")
    data[place + 24 : place + 28] = struct.pack("<I", 1 << 31)
    return bytes(data)


def changed_table(place: int, value: bytes, back: int = 0) -> bytes:
    """Some bytes of an entry in the table of contents are others."""
    data = bytearray(rezipped(lambda e: None))
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(b"archive/data/0"))
    data[at + place : at + place + len(value)] = value
    return bytes(data)


def overlapping() -> bytes:
    """Many entries that are the same bytes."""
    return changed_table(42, struct.pack("<I", 0))


def between() -> bytes:
    """Bytes that no entry accounts for, before the table of contents."""
    data = rezipped(lambda e: None)
    at = data.index(b"PK\x01\x02")
    size, start = struct.unpack("<II", data[-10:-2])
    end = data[-22:-10] + struct.pack("<IIH", size, start + 5000, 0)
    return data[:at] + bytes(5000) + data[at:-22] + end


def prefixed() -> bytes:
    """Another zip's beginning before the zip."""
    return b"PK\x03\x04" + bytes(200) + rezipped(lambda e: None)


def zip_and_tar() -> bytes:
    """A zip that is a tar archive as well: the first entry's extra field holds a checksum."""
    data = bytearray(good())
    head = data[:512]
    head[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(head)
    return bytes(data)


def huge_table() -> bytes:
    data = bytearray(rezipped(lambda e: None))
    data[-10:-6] = struct.pack("<I", 1 << 30)
    return bytes(data)


def not_finite(value: float, dtype: torch.dtype = torch.float32) -> bytes:
    changed = weights()
    changed["head.bias"] = torch.full_like(changed["head.bias"], value).to(dtype)
    return saved(changed)


def old_keys(change: Callable[[list[str]], list[str]]) -> bytes:
    """The old kind's list of which numbers follow is another; their names are addresses."""
    data = saved_before(weights())
    start = data.rindex(b"\x80\x02]q\x00(X")
    stop = data.index(b"e.", start) + 2
    return data[:start] + pickle.dumps(change(pickle.loads(data[start:stop])), 2) + data[stop:]


# Odd, but nothing is wrong with them.
READABLE: dict[str, Make] = {
    "control characters": lambda: saved({"\x1b[2J\n\r" * 30: torch.ones(1)}),
    "a name of a megabyte": lambda: only_pickle(
        b"\x80\x02}" + text("a" * 1_000_000) + tensor((216,), (1,)) + b"s."
    ),
    "an expanded tensor": lambda: only_pickle(entry(tensor((4, 100_000), (1, 0)))),
    "no dimensions": lambda: only_pickle(entry(tensor((), ()))),
    "no numbers": lambda: only_pickle(entry(tensor((0, 1 << 40), (1, 1)))),
}
WEIGHTS: dict[str, Make] = {
    "a whole module": lambda: saved(backdoored_net()),
    "path traversal": lambda: rezipped(lambda e: e.update({"archive/../../harmed": b"x"})),
    "an absolute path": lambda: rezipped(lambda e: e.update({"/harmed": b"x"})),
    "no pickle": lambda: rezipped(lambda e: e.pop("archive/data.pkl")),
    "a zip bomb": bomb,
    "lies about its size": lies_about_size,
    "overlapping entries": overlapping,
    "bytes between": between,
    "another beginning": prefixed,
    "a zip that is a tar": zip_and_tar,
    "a huge table of contents": huge_table,
    "encrypted": lambda: changed_table(8, b"\1\0"),
    "compressed by LZMA": lambda: rezipped(lambda e: None, zipfile.ZIP_LZMA),
    "compressed by bzip2": lambda: rezipped(lambda e: None, zipfile.ZIP_BZIP2),
    "a table with another name": lambda: changed_table(46, b"ARCHIVE"),
    "a name with a null": lambda: changed_table(46 + 8, b"\0"),
    "numbers of no tensor": lambda: rezipped(lambda e: e.update({"archive/data/77": bytes(64)})),
    "text after the pickle": lambda: rezipped(
        lambda e: e.update({"archive/data.pkl": e["archive/data.pkl"] + b"more"})
    ),
    "zip cut short": lambda: good()[:-100],
    "zip with a tail": lambda: good() + b"more",
    "zip, flipped bit": lambda: flipped(good(), len(good()) // 2),
    "a version that is none": lambda: rezipped(lambda e: e.update({"archive/version": b"x" * 99})),
    "another byte order": lambda: rezipped(lambda e: e.update({"archive/byteorder": b"middle"})),
    "old kind, cut short": lambda: saved_before(weights())[:-9],
    "old kind, a tail": lambda: saved_before(weights()) + bytes(8),
    "old kind, a zip as a tail": lambda: saved_before(weights()) + good(),
    "old kind, other keys": lambda: old_keys(lambda keys: ["1", *keys[1:]]),
    "old kind, a key twice": lambda: old_keys(lambda keys: [keys[0], *keys[:-1]]),
    "no archive": lambda: OVERSIZED,
    "a tar archive": lambda: b"name".ljust(257, b"\0") + b"ustar" + bytes(2000),
    "empty": lambda: b"",
    "text": lambda: b"<html>404 not found</html>",
    "ONNX": lambda: b"\x08\x07\x12\x07pytorch",
    "an id that is none": lambda: with_pickle(b"\x80\x02X\x04\x00\x00\x00evilQ."),
    "an id that is a number": lambda: with_pickle(b"\x80\x02K\x07Q."),
    "the pickle as numbers": lambda: only_pickle(
        entry(tensor((4,), (1,), place=storage(4, "../data.pkl")))
    ),
    "a type that is a function": lambda: only_pickle(
        entry(tensor((216,), (1,), place=storage(kind="torch.serialization:_get_layout")))
    ),
    "NaN": lambda: not_finite(float("nan")),
    "infinity": lambda: not_finite(float("inf"), torch.float16),
    "complex": lambda: saved({**weights(), "head.bias": torch.zeros(CLASSES) * 1j}),
    "whole numbers": lambda: saved({**weights(), "head.bias": torch.zeros(CLASSES).long()}),
    "float8": lambda: not_finite(1.0, torch.float8_e4m3fn),
    "sparse": lambda: saved({**weights(), "head.bias": torch.zeros(CLASSES).to_sparse()}),
    "quantised": lambda: saved(
        {**weights(), "head.bias": torch.quantize_per_tensor(torch.ones(4), 1.0, 0, torch.qint8)}
    ),
    "without data": lambda: saved({**weights(), "head.bias": torch.zeros(4, device="meta")}),
    "no tensors": lambda: saved({"epoch": 3}),
    "only a tensor": lambda: saved(torch.ones(3)),
    "only a storage": lambda: only_pickle(b"\x80\x02" + storage() + b"."),
    "a type": lambda: only_pickle(entry(ask("torch:float32"))),
    "numpy objects": lambda: saved({"w": np.array([{}], dtype=object)}),
}


def tensors(header: object, size: int = 64) -> bytes:
    written = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(written)) + written + bytes(size)


def part(start: int, stop: int, shape: list[object], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


SAFETENSORS: dict[str, Make] = {
    "overlap": lambda: tensors({"a": part(0, 64, [16]), "b": part(32, 64, [8])}),
    "gap": lambda: tensors({"a": part(0, 16, [4]), "b": part(32, 64, [8])}),
    "shape lies": lambda: tensors({"a": part(0, 64, [1 << 40])}),
    "negative shape": lambda: tensors({"a": part(0, 64, [-16])}),
    "negative offsets": lambda: tensors({"a": part(-64, 0, [16])}),
    "a shape that overflows": lambda: tensors({"a": part(0, 64, [1 << 61, 8])}),
    "a shape of text": lambda: tensors({"a": part(0, 64, ["16"])}),
    "ten thousand dimensions": lambda: tensors({"a": part(0, 64, [16] + [1] * 10_000)}),
    "beyond the end": lambda: tensors({"a": part(0, 1 << 40, [1 << 38])}),
    "unknown type": lambda: tensors({"a": part(0, 64, [16], "EVIL")}),
    "no offsets": lambda: tensors({"a": {"dtype": "F32", "shape": [16]}}),
    "a name twice": lambda: tensors(
        b'{"a":'
        + json.dumps(part(0, 64, [16])).encode()
        + b',"a":'
        + json.dumps(part(0, 64, [8, 2])).encode()
        + b"}"
    ),
    "a list": lambda: tensors([1, 2]),
    "deep JSON": lambda: tensors(b'{"a":' + b"[" * 100_000),
    "deep JSON, closed": lambda: tensors(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "eight megabytes of lists": lambda: tensors(b'{"a":[' + b"[]," * 2_700_000 + b"[]]}"),
    "a number of a million digits": lambda: tensors(b'{"a":' + b"9" * 1_000_000 + b"}"),
    "no JSON": lambda: tensors(b"{nothing"),
    "header of 2 GB": lambda: struct.pack("<Q", 2 << 30) + b"{}" + bytes(64),
    "header of 16 EB": lambda: struct.pack("<Q", (1 << 64) - 1) + b"{}",
    "cut short": lambda: to_safetensors(weights())[:-8],
    "a tail": lambda: to_safetensors(weights()) + bytes(8),
    "header bit": lambda: flipped(to_safetensors(weights()), 9),
    "four bytes": lambda: b"abcd",
    "nothing inside": lambda: tensors({}, 0),
    "NaN": lambda: to_safetensors({**weights(), "head.bias": torch.full((CLASSES,), torch.nan)}),
    "a zip": lambda: zipped({"a": b"text"}),
}
