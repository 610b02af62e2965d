"""What a weights file holds and whether it may be read, told without unpickling or inflating."""

import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import torch

from shapprune.checkpoints.hidden import malicious_within
from shapprune.checkpoints.kinds import SAVE_ADVICE, foreign, foreign_zip
from shapprune.checkpoints.malice import is_malicious
from shapprune.checkpoints.pickle_rules import faults
from shapprune.checkpoints.pickle_scan import Call, Global, Pickle, read_pickle
from shapprune.checkpoints.tensor_records import (
    TensorFacts,
    is_size,
    item_bytes,
    name_of,
    tensor_facts,
)
from shapprune.checkpoints.zip_layout import check_end, damaged, is_tar, strange, unreferenced
from shapprune.errors import InputError
from shapprune.utils.files import parse_json, unreadable
from shapprune.utils.text import describe, printable, quote

_MOST_HEADER = 8 << 20  # bytes, of safetensors' JSON
MALICIOUS = "is malicious"  # so begins the problem of a file that is more than unknown
_DEEPEST_SHOWN = 3
_MOST_SHOWN = 50_000  # lines
_MOST_PICKLE = 256 << 20
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # torch.save before 1.6 wrote it first
# All that a file may ask for: tensors, plain values, and the bookkeeping of training scripts.
_ALLOWED = {
    *("collections.OrderedDict", "collections.Counter", "torch.nn.parameter.Parameter"),
    *("torch.serialization._get_layout", "torch.Size", "torch.Tensor", "torch.device"),
    *("builtins.set", "builtins.complex", "__builtin__.set", "__builtin__.complex"),
    *("builtins.bytes", "__builtin__.bytes"),
    *("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"),
    *("torch._utils._rebuild_tensor_v3", "torch.per_channel_affine"),
    *("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"),
    *("torch._utils._rebuild_sparse_tensor", "torch._utils._rebuild_qtensor"),
    *("torch._utils._rebuild_meta_tensor_no_storage", "torch._tensor._rebuild_from_type_v2"),
    *("torch.storage.UntypedStorage", "torch.storage.TypedStorage", "torch.per_tensor_affine"),
    *("_codecs.encode", "argparse.Namespace", "numpy.ndarray", "numpy.dtype"),
    *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
    *("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
}
_STORAGE = re.compile(
    r"torch\.(cuda\.)?(Float|Double|Half|BFloat16|Byte|Char|Short|Int|Long|Bool|ComplexFloat|"
    r"ComplexDouble|QInt8|QUInt8|QInt32)Storage"
)


@dataclass(frozen=True, eq=False)
class Contents:
    """A weights file from outside.

    Attributes:
        kind: of file, in words.
        value: what the file holds, with records in the place of objects (see `Pickle`); of
            safetensors, a dict of `TensorFacts`.
        globals: what a pickle asks for, in order.
        problems: why the file is not loaded, in words that follow its name; empty if it may be.
    """

    kind: str
    value: object
    globals: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def look_into(path: Path) -> Contents:
    """What a weights file holds. Nothing in it is run, unpickled or inflated.

    Raises:
        InputError: no such file, no plain file, or an empty one.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"cannot read {path}: expected a file")
        with open(path, "rb") as file:
            head = file.read(16)
            file.seek(0)
            if not head:
                raise InputError(f"{path} is empty: expected a weights file")
            contents = _of_kind(path, head, file)
            # The worst first: what is refused for other reasons may be malicious as well.
            if contents.problems:
                asked = next(filter(is_malicious, contents.globals), None)
                if name := asked or malicious_within(file):
                    return replace(contents, problems=(_malice(name), *contents.problems))
            return contents
    except OSError as error:
        raise unreadable(path, error) from error


def _of_kind(path: Path, head: bytes, file: BinaryIO) -> Contents:
    if kind := foreign(path, file):
        return Contents(kind.name, None, (), (kind.problem,))
    if path.suffix.lower() == ".safetensors" or head[8:9] == b"{":
        return _safetensors(file, path.stat().st_size)
    if head[:4] == b"PK\x03\x04":
        return _zip(file, path.stat().st_size)
    if is_tar(file):  # torch would look for one first
        problem = "is a tar archive: unpack it and name the weights file inside"
        return Contents("tar archive", None, (), (problem,))
    return _legacy(file, path.stat().st_size)


def is_allowed(name: str) -> bool:
    """Whether a pickle may ask for it.

    >>> is_allowed("torch.FloatStorage"), is_allowed("torch.float16"), is_allowed("os.system")
    (True, True, False)
    """
    plain = name.removeprefix("torch.")
    is_dtype = name != plain and isinstance(getattr(torch, plain, None), torch.dtype)
    return name in _ALLOWED or is_dtype or bool(_STORAGE.fullmatch(name))


def lines_of(contents: Contents) -> Iterator[str]:
    """What a file holds, one line an entry, printable."""
    if contents.globals:
        refused = [name for name in contents.globals if not is_allowed(name)]
        yield printable(f"asks for: {', '.join(contents.globals)}", 2000)
        yield printable(f"not allowed: {', '.join(refused) or 'none of these'}", 2000)
    yield from islice(_lines("", contents.value, 0), _MOST_SHOWN)


def _lines(name: str, value: object, depth: int) -> Iterator[str]:
    entries = value.items if isinstance(value, Call) else value
    if facts := tensor_facts(value):
        yield printable(f"{name}  {facts.dtype}  {facts.shape}", 200)
    elif isinstance(entries, dict) and entries and depth < _DEEPEST_SHOWN:
        if name:
            yield printable(f"{name}: {len(entries)} entries", 200)
        has_tensors = any(map(tensor_facts, islice(entries.values(), 100)))
        for key, entry in islice(entries.items(), None if has_tensors else 20):
            inner = _shown(key)
            yield from _lines(f"{name}.{inner}" if name else inner, entry, depth + 1)
    elif isinstance(value, Call):
        called = name_of(value.function) or "a computed function"
        yield printable(f"{name}: would call {called}", 200)
    elif isinstance(value, list | tuple | dict):
        yield printable(f"{name}: {type(value).__name__} of {len(value)}", 200)
    elif value is not None:
        yield printable(f"{name}: {type(value).__name__} {_shown(value)}", 200)


def _shown(value: object) -> str:
    """The beginning of a plain value; of others the type, since they may be large when written."""
    if isinstance(value, str | bytes):
        return str(value[:80])
    is_plain = isinstance(value, int | float | Global) or value is None
    return str(value) if is_plain else type(value).__name__


def _safetensors(file: BinaryIO, size: int) -> Contents:
    kind = "safetensors"
    try:
        (length,) = struct.unpack("<Q", file.read(8))
        if size - 8 < length <= _MOST_HEADER and file.read(1) == b"{":
            problem = "is cut short within its header; download it again"
            return Contents(kind, None, (), (problem,))
        if length > min(size - 8, _MOST_HEADER):
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        header = parse_json(file.read(length).decode())
        header.pop("__metadata__", None)
        facts, end = {}, 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            start, stop = entry["data_offsets"]
            shape = tuple(entry["shape"])
            if not is_size(shape):
                raise ValueError(f"tensor {quote(name)} has no shape that a tensor can have")
            if start != end or stop < start:
                raise ValueError(f"tensor {quote(name)} overlaps another, or leaves a gap")
            facts[name], end = TensorFacts(str(entry["dtype"]), shape), stop
        if end > size - 8 - length:
            missing = end - (size - 8 - length)
            problem = f"is cut short: the last {missing} bytes are missing; download it again"
            return Contents(kind, None, (), (problem,))
        if end != size - 8 - length:
            raise ValueError(f"{end} bytes of tensors declared, {size - 8 - length} there")
    except Exception as error:  # a damaged header can raise anything
        problem = f"is no whole safetensors file: {describe(error)}"
        return Contents(kind, None, (), (problem,))
    return Contents(kind, facts, (), () if facts else ("holds no tensors",))


def _zip(file: BinaryIO, size: int) -> Contents:
    kind = "torch.save archive"
    try:
        check_end(file, size)
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            if other := foreign_zip(names):
                return Contents(other.name, None, (), (other.problem,))
            if fault := strange(file, entries, archive.start_dir):
                return Contents(kind, None, (), (f"{fault}: {SAVE_ADVICE}",))
            pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise ValueError("no data.pkl inside")
            if pickles[0].file_size > _MOST_PICKLE:
                raise ValueError(f"a pickle of {pickles[0].file_size} bytes")
            stream = BytesIO(archive.read(pickles[0]))
            pickle = read_pickle(stream)
            root = pickles[0].filename.removesuffix("data.pkl")
            records = {
                entry.filename.removeprefix(root + "data/"): entry.file_size
                for entry in entries
                if entry.filename.startswith(root + "data/")
            }
            problems = _problems(pickle, records, pickles[0].file_size)
            if not problems and stream.read(1):
                problems = [_damage("something follows the pickle")]
            if not problems and (unused := unreferenced(entries, _keys(pickle))):
                problems = [_damage(f"{quote(unused)} holds numbers that no tensor has")]
            if not problems:
                problems = [
                    f"is damaged: the checksum of {quote(name)} is another"
                    for name in damaged(archive, entries)
                ]
    except Exception as error:  # a damaged archive can raise anything
        return Contents(kind, None, (), (_damage(describe(error)),))
    return Contents(kind, pickle.value, pickle.globals, tuple(problems))


def _legacy(file: BinaryIO, size: int) -> Contents:
    """What torch.save wrote before 1.6: four pickles, the keys, and the numbers one by one."""
    first = read_pickle(file)
    if first.value != _LEGACY_MAGIC or isinstance(first.value, bool):
        if first.fault and not first.globals:
            # An HTML page's first letters are opcodes too: it is a pickle only if it begins as one.
            return Contents("unknown", None, (), (_damage(first.fault),))
        problems = _name_problems(first) or [_damage("a bare pickle, without tensors")]
        return Contents("pickle", first.value, first.globals, tuple(problems))
    parts = [read_pickle(file) for _ in range(4)]  # version, system, content, keys
    length = file.tell()
    pickle = parts[2]
    problems = [problem for part in parts for problem in _name_problems(part)]
    kind = "torch.save file of the old kind"
    if not problems:
        keys, sizes = parts[3].value, {}
        try:
            if not isinstance(keys, list) or len(keys) != len(set(map(str, keys))):
                raise ValueError("keys that are no list, or twice there")
            widths = {str(place[2]): item_bytes(place) for place in pickle.stored}  # type: ignore[index]
            for key in keys:
                (count,) = struct.unpack("<q", file.read(8))
                sizes[str(key)] = count * widths[str(key)]
                file.seek(sizes[str(key)], 1)
            if file.tell() != size:
                raise ValueError("the file is cut short, or something follows")
            problems = _problems(pickle, sizes, length)
        except Exception as error:
            problems.append(_damage(describe(error)))
    seen = tuple(dict.fromkeys(name for part in parts for name in part.globals))
    return Contents(kind, pickle.value, seen, tuple(problems))


def _keys(pickle: Pickle) -> set[str]:
    return {str(place[2]) for place in pickle.stored}  # type: ignore[index]  # see `faults`


def _problems(pickle: Pickle, sizes: Mapping[str, int], length: int) -> list[str]:
    return _name_problems(pickle) or [
        _damage(fault) for fault in islice(faults(pickle, sizes, length), 1)
    ]


def _name_problems(pickle: Pickle) -> list[str]:
    for name in pickle.globals:
        if not is_allowed(name):
            unknown = printable(name, 80)
            return [f"is a pickle that calls for {unknown}, which is not known here: {SAVE_ADVICE}"]
    return [_damage(pickle.fault)] if pickle.fault else []


def _malice(name: str) -> str:
    return (
        f"{MALICIOUS}: it is a pickle that calls for {printable(name, 80)}, which no model needs "
        "and which can run any code. Do not load it"
    )


def _damage(what: str) -> str:
    again = "; download it again" if "cut short" in what else ""
    return (
        "is not a whole weights file: expected safetensors, or what torch.save makes of a state "
        f"dict ({printable(what, 120)}){again}"
    )
