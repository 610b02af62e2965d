"""Malicious pickles wherever they lie in a file: nested, after another, in an archive's corners."""

import re
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

from shapprune.checkpoints.malice import is_malicious
from shapprune.checkpoints.pickle_scan import Call, Pickle, read_pickle

_MOST_BYTES = 32 << 20  # that are searched of a file that is refused anyway
_MOST_INFLATED = 4 << 20  # bytes of an entry
_MOST_OPCODES = 500_000  # in all
_START = 20  # opcodes' time, for each beginning
_READ = 1 << 10  # bytes, in one opcode's time
_DEEPEST = 3  # pickles in the strings of pickles


def malicious_within(file: BinaryIO) -> str | None:
    """What any pickle in a file would call that no model needs; for files that are refused anyway.

    It looks where a reader could: at the start, after each pickle's end, behind each header of a
    zip's entries whatever the table of contents says, and where a pickle's first bytes are.
    """
    file.seek(0)
    data = file.read(_MOST_BYTES)
    search = _Search()
    for stream in _starts(data):
        while True:
            start = stream.tell()
            pickle = read_pickle(stream, most=search.left)
            search.left -= pickle.opcodes + _START + (stream.tell() - start) // _READ
            if name := search.name_in(pickle):
                return name
            if pickle.fault:
                break
        if search.left <= 0:
            break
    return None


class _Search:
    """Reads pickles within pickles, as many as the time allows."""

    def __init__(self) -> None:
        self.left = _MOST_OPCODES

    def name_in(self, pickle: Pickle, depth: int = 0) -> str | None:
        for name in pickle.globals:
            if is_malicious(name):
                return name
        for call in pickle.calls:
            if isinstance(call.function, Call):
                return "what it has computed"
            for data in _strings(call) if depth < _DEEPEST else ():
                inner = read_pickle(BytesIO(data), most=self.left)
                self.left -= inner.opcodes + _START
                if found := self.name_in(inner, depth + 1):
                    return found
        return None


def _starts(data: bytes) -> Iterator[BinaryIO]:
    stream = BytesIO(data)
    yield stream
    for match in re.finditer(rb"PK\x03\x04", data):
        head = data[match.start() : match.start() + 30]
        if len(head) < 30:
            return
        (packing,) = struct.unpack("<H", head[8:10])
        start = match.start() + 30 + sum(struct.unpack("<HH", head[26:]))
        if packing == 8:
            try:
                unpacked = zlib.decompressobj(-15).decompress(
                    data[start : start + _MOST_INFLATED], _MOST_INFLATED
                )
            except zlib.error:
                continue
            yield BytesIO(unpacked)
        else:
            stream.seek(start)
            yield stream
    for match in re.finditer(rb"\x80[\x02-\x05]", data):
        stream.seek(match.start())
        yield stream


def _strings(call: Call) -> Iterator[bytes]:
    """The bytes that a call is given, among them those that Python 2's way of saving encodes."""
    for given in call.arguments if isinstance(call.arguments, tuple) else ():
        if isinstance(given, Call) and isinstance(given.arguments, tuple) and given.arguments:
            given = given.arguments[0]
        if isinstance(given, str):
            given = given.encode("latin-1", "ignore")
        if isinstance(given, bytes) and (given[:1] == b"\x80" or b"\n" in given):
            yield given
