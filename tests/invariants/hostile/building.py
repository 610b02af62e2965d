"""What hostile files are built from: pickles by hand, archives with changed entries."""

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from functools import cache

import torch

from toys import backdoored_net

CANARY = "canary"
Make = Callable[[], bytes]


class Calls:
    """A pickle of it calls a function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def touch() -> Calls:
    return Calls(os.system, f"touch {CANARY}")


def weights() -> dict[str, torch.Tensor]:
    return dict(backdoored_net().state_dict())


def saved(content: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


@cache
def good() -> bytes:
    return saved(weights())


def saved_before(content: object) -> bytes:
    """As torch.save did before 1.6."""
    return saved(content, _use_new_zipfile_serialization=False)


def entries_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def rezipped(
    change: Callable[[dict[str, bytes]], object], compression: int = zipfile.ZIP_STORED
) -> bytes:
    """A good checkpoint's archive with its entries changed."""
    entries = entries_of(good())
    change(entries)
    return zipped(entries, compression)


def with_pickle(code: bytes) -> bytes:
    return rezipped(lambda entries: entries.update({"archive/data.pkl": code}))


def only_pickle(code: bytes) -> bytes:
    """A checkpoint of a pickle and one tensor's 864 bytes."""
    return zipped({"archive/data.pkl": code, "archive/data/0": bytes(864), "archive/version": b"3"})


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]


# Pickles by hand.

PROTO = b"\x80\x02"
OD = b"ccollections\nOrderedDict\n)R"


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(16, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def ask(name: str) -> bytes:
    """``module:name`` by GLOBAL."""
    module, _, attribute = name.partition(":")
    return f"c{module}\n{attribute}\n".encode()


def call(name: str, arguments: bytes) -> bytes:
    return ask(name) + b"(" + arguments + b"tR"


def entry(value: bytes, key: str = "w") -> bytes:
    """A checkpoint's pickle that holds one thing."""
    return PROTO + b"}" + text(key) + value + b"s."


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(count: int = 216, key: str = "0", kind: str = "torch:FloatStorage") -> bytes:
    return b"(" + text("storage") + ask(kind) + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(
    size: tuple[int, ...],
    stride: tuple[int, ...],
    *,
    place: bytes | None = None,
    offset: int = 0,
    function: str = "_rebuild_tensor_v2",
    rest: bytes = b"\x89" + OD,
) -> bytes:
    inner = (place or storage()) + number(offset) + numbers(*size) + numbers(*stride) + rest
    return call(f"torch._utils:{function}", inner)


class Outside(pickle.Pickler):
    """Puts what it is given behind a persistent id."""

    def persistent_id(self, value: object) -> object:
        return ("storage", touch(), "0", "cpu", 4) if value == "outside" else None


def outside() -> bytes:
    buffer = io.BytesIO()
    Outside(buffer, protocol=2).dump({"w": "outside"})
    return buffer.getvalue()
