"""What a weights file holds and whether it may be read, told without unpickling or inflating."""

import json
import math
import re
import struct
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch

from shapprune.checkpoints.pickle_scan import Call, Global, Persistent, Pickle, read_pickle
from shapprune.errors import InputError
from shapprune.utils.text import describe, printable, quote

SAVE_ADVICE = "save it again with torch.save(model.state_dict(), …) or as safetensors"
_MOST_HEADER = 16 << 20  # bytes, of safetensors' JSON and of a zip's table of contents
_DEEPEST_SHOWN = 3
_MOST_PICKLE = 256 << 20
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # torch.save before 1.6 wrote it first
# All that a file may ask for: tensors, plain values, and the bookkeeping of training scripts.
_ALLOWED = {
    *("collections.OrderedDict", "collections.Counter", "torch.nn.parameter.Parameter"),
    *("torch.serialization._get_layout", "torch.Size", "torch.Tensor", "torch.device"),
    *("builtins.set", "builtins.complex", "__builtin__.set", "__builtin__.complex"),
    *("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"),
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
_ITEM_BYTES = {
    **{"Double": 8, "Long": 8, "ComplexFloat": 8, "ComplexDouble": 16, "Float": 4, "Int": 4},
    **{"QInt32": 4, "Half": 2, "BFloat16": 2, "Short": 2},
}
# What torch.save writes beside the pickle.
_BESIDE = re.compile(
    r"(data/\d+|version|byteorder|\.data/serialization_id|\.format_version|\.storage_alignment)"
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


@dataclass(frozen=True)
class TensorFacts:
    """A tensor without its numbers."""

    dtype: str
    shape: tuple[int, ...]


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
            if path.suffix.lower() == ".safetensors" or head[8:9] == b"{":
                return _safetensors(file, path.stat().st_size)
            if path.suffix.lower() == ".onnx" or head[:1] == b"\x08":  # a protobuf's first field
                problem = "is an ONNX model: expected the weights of a PyTorch network"
                return Contents("ONNX", None, (), (problem,))
            if head[:4] == b"PK\x03\x04":
                return _zip(file, path.stat().st_size)
            if head[:1] != b"\x80" and tarfile.is_tarfile(path):
                problem = "is a tar archive: unpack it and name the weights file inside"
                return Contents("tar archive", None, (), (problem,))
            return _legacy(file, path.stat().st_size)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def is_allowed(name: str) -> bool:
    """Whether a pickle may ask for it.

    >>> is_allowed("torch.FloatStorage"), is_allowed("torch.float16"), is_allowed("os.system")
    (True, True, False)
    """
    plain = name.removeprefix("torch.")
    is_dtype = name != plain and isinstance(getattr(torch, plain, None), torch.dtype)
    return name in _ALLOWED or is_dtype or bool(_STORAGE.fullmatch(name))


def tensor_facts(value: object) -> TensorFacts | None:
    """The facts of a tensor's record, None for other values."""
    while isinstance(value, Call) and _name(value.function).endswith(
        ("_rebuild_parameter", "_rebuild_parameter_with_state")
    ):
        value = value.arguments[0] if isinstance(value.arguments, tuple) else None
    if isinstance(value, TensorFacts):
        return value
    match value:
        case Call(function=Global(name=name), arguments=(Persistent(id=place), _, shape, *_)):
            if name.startswith("torch._utils._rebuild_tensor") and isinstance(shape, tuple):
                kind = _storage_kind(place)
                dtype = {"Byte": "uint8", "Char": "int8", "Half": "float16", "Short": "int16"}
                dtype |= {"Float": "float32", "Double": "float64", "Int": "int32", "Long": "int64"}
                return TensorFacts(dtype.get(kind, kind.lower()), shape)
    return None


def lines_of(contents: Contents) -> Iterator[str]:
    """What a file holds, one line an entry, printable."""
    if contents.globals:
        refused = [name for name in contents.globals if not is_allowed(name)]
        yield printable(f"asks for: {', '.join(contents.globals)}", 2000)
        yield printable(f"not allowed: {', '.join(refused) or 'none of these'}", 2000)
    yield from _lines("", contents.value, 0)


def _lines(name: str, value: object, depth: int) -> Iterator[str]:
    entries = value.items if isinstance(value, Call) else value
    if facts := tensor_facts(value):
        yield printable(f"{name}  {facts.dtype}  {facts.shape}", 200)
    elif isinstance(entries, dict) and entries and depth < _DEEPEST_SHOWN:
        if name:
            yield printable(f"{name}: {len(entries)} entries", 200)
        shown = list(entries.items())
        for key, entry in shown if any(map(tensor_facts, entries.values())) else shown[:20]:
            yield from _lines(f"{name}.{key}" if name else str(key), entry, depth + 1)
    elif isinstance(value, Call):
        yield printable(f"{name}: would call {_name(value.function) or 'a computed function'}", 200)
    elif isinstance(value, list | tuple | dict):
        yield printable(f"{name}: {type(value).__name__} of {len(value)}", 200)
    elif value is not None:
        yield printable(f"{name}: {type(value).__name__} {printable(str(value)[:80])}", 200)


def _name(value: object) -> str:
    return value.name if isinstance(value, Global) else ""


def _safetensors(file: BinaryIO, size: int) -> Contents:
    kind = "safetensors"
    try:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(size - 8, _MOST_HEADER):
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        header = json.loads(file.read(length).decode())
        if not isinstance(header, dict):
            raise ValueError("the header is no dictionary")
        header.pop("__metadata__", None)
        facts, end = {}, 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            start, stop = entry["data_offsets"]
            shape = tuple(int(extent) for extent in entry["shape"])
            if start != end or stop < start or min(shape, default=0) < 0:
                raise ValueError(f"tensor {quote(name)} overlaps another, or leaves a gap")
            facts[name], end = TensorFacts(str(entry["dtype"]), shape), stop
        if end != size - 8 - length:
            raise ValueError(f"{end} bytes of tensors declared, {size - 8 - length} there")
    except Exception as error:  # a damaged header can raise anything
        problem = f"is no whole safetensors file: {describe(error)}"
        return Contents(kind, None, (), (problem,))
    return Contents(kind, facts, (), () if facts else ("holds no tensors",))


def _zip(file: BinaryIO, size: int) -> Contents:
    kind = "torch.save archive"
    try:
        table = _table_bytes(file, size)
        if table > _MOST_HEADER:
            raise ValueError(f"a table of contents of {table} bytes")
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            if any(name.endswith("constants.pkl") for name in names):
                problem = "is a TorchScript archive, which carries code and is not loaded: "
                return Contents("TorchScript", None, (), (problem + SAVE_ADVICE,))
            if strange := _strange(entries, size):
                return Contents(kind, None, (), (strange,))
            pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise ValueError("no data.pkl inside")
            if pickles[0].file_size > _MOST_PICKLE:
                raise ValueError(f"a pickle of {pickles[0].file_size} bytes")
            pickle = read_pickle(BytesIO(archive.read(pickles[0])))
            root = pickles[0].filename.removesuffix("data.pkl")
            records = {e.filename.removeprefix(root + "data/"): e.file_size for e in entries}
            problems = [*_problems(pickle), *_storage_problems(pickle, records)]
            if not problems:
                problems += _damaged(archive, entries)
    except Exception as error:  # a damaged archive can raise anything
        return Contents(kind, None, (), (_damage(describe(error)),))
    return Contents(kind, pickle.value, pickle.globals, tuple(problems))


def _table_bytes(file: BinaryIO, size: int) -> int:
    """The size of a zip's table of contents, which must be the last thing in the file."""
    tail = min(size, 22 + 20 + 56)
    file.seek(size - tail)
    last = file.read(tail)
    if last[-22:-18] != b"PK\x05\x06":
        raise ValueError("the archive is cut short, or something follows it")
    (table,) = struct.unpack("<I", last[-10:-6])
    if table == 0xFFFFFFFF and last[:4] == b"PK\x06\x06":
        (table,) = struct.unpack("<Q", last[40:48])
    file.seek(0)
    return int(table)


def _strange(entries: list[zipfile.ZipInfo], size: int) -> str | None:
    """What torch.save would not have written: its archives are stored, flat and in order."""
    roots = {entry.filename.partition("/")[0] for entry in entries}
    if len(entries) != len({entry.filename for entry in entries}) or len(roots) != 1:
        return "is a zip that torch.save did not write: expected one folder, each name once"
    (root,) = roots
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        inside = entry.filename.removeprefix(root + "/")
        if inside != "data.pkl" and not _BESIDE.fullmatch(inside):
            return (
                f"is a zip that holds {quote(entry.filename)}, which torch.save does not write: "
                + SAVE_ADVICE
            )
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            return (
                f"is a zip that declares {entry.file_size} bytes for the {entry.compress_size} of "
                f"{quote(entry.filename)}: torch.save does not compress"
            )
        if entry.header_offset < end:
            return f"is a zip whose entry {quote(entry.filename)} overlaps another"
        end = entry.header_offset + entry.compress_size
        if end > size:
            return f"is a zip whose entry {quote(entry.filename)} is larger than the file"
    return None


def _damaged(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> Iterator[str]:
    """Checksums, which torch does not look at."""
    for entry in entries:
        if not entry.CRC:  # torch may be told to write none
            continue
        try:
            with archive.open(entry) as part:
                while part.read(1 << 20):
                    pass
        except zipfile.BadZipFile:
            yield f"is damaged: the checksum of {quote(entry.filename)} is another"
            return


def _legacy(file: BinaryIO, size: int) -> Contents:
    """What torch.save wrote before 1.6: four pickles, the keys, and the numbers one by one."""
    first = read_pickle(file)
    if first.value != _LEGACY_MAGIC:
        if first.fault and not first.globals:
            # An HTML page's first letters are opcodes too: it is a pickle only if it begins as one.
            return Contents("unknown", None, (), (_damage(first.fault),))
        problems = _problems(first) or [_damage("a bare pickle, without tensors")]
        return Contents("pickle", first.value, first.globals, tuple(problems))
    parts = [read_pickle(file) for _ in range(4)]  # version, system, content, keys
    pickle = parts[2]
    problems = [problem for part in parts for problem in _problems(part)]
    kind = "torch.save file of the old kind"
    if not problems:
        keys, sizes = parts[3].value, {}
        try:
            assert isinstance(keys, list)
            for key in keys:
                (count,) = struct.unpack("<q", file.read(8))
                sizes[str(key)] = count * _item_bytes(pickle, key)
                file.seek(sizes[str(key)], 1)
            if file.tell() != size:
                raise ValueError("the file is cut short, or something follows")
            problems += _storage_problems(pickle, sizes)
        except Exception as error:
            problems.append(_damage(describe(error)))
    seen = tuple(dict.fromkeys(name for part in parts for name in part.globals))
    return Contents(kind, pickle.value, seen, tuple(problems))


def _item_bytes(pickle: Pickle, key: object) -> int:
    for place in pickle.stored:
        if isinstance(place, tuple) and len(place) > 2 and place[2] == key:
            return _ITEM_BYTES.get(_storage_kind(place), 1)
    raise ValueError(f"numbers {key!r} that no tensor has")


def _storage_kind(place: object) -> str:
    """``Float`` of ``("storage", torch.FloatStorage, key, device, count, …)``."""
    name = _name(place[1]) if isinstance(place, tuple) and len(place) > 1 else ""
    return name.rpartition(".")[2].removesuffix("Storage")


def _storage_problems(pickle: Pickle, sizes: Mapping[str, int]) -> Iterator[str]:
    """Tensors that claim more numbers than there are: torch takes their word for it."""
    for place in pickle.stored:
        if not (
            isinstance(place, tuple) and len(place) >= 5 and place[0] in ("storage", b"storage")
        ):
            yield f"asks for something outside of the file: {printable(str(place), 80)}"
            return
        key, count = str(place[2]), place[4]
        fits = isinstance(count, int) and count * _ITEM_BYTES.get(_storage_kind(place), 1)
        if sizes.get(key) != fits:
            yield _damage(f"a tensor of {count} numbers where {sizes.get(key, 0)} bytes are")
            return
    claimed = sum(
        math.prod(facts.shape) for call in pickle.calls if (facts := _safe_facts(call)) is not None
    )
    if claimed > 16 * sum(sizes.values()) + (1 << 20):
        yield _damage(f"tensors of {claimed} numbers in all")


def _safe_facts(call: Call) -> TensorFacts | None:
    facts = tensor_facts(call)
    if facts and not all(isinstance(extent, int) and extent >= 0 for extent in facts.shape):
        raise ValueError(f"a tensor of shape {printable(str(facts.shape), 80)}")
    return facts


def _problems(pickle: Pickle) -> list[str]:
    for name in pickle.globals:
        if not is_allowed(name):
            return [
                f"is a pickle that calls for {printable(name, 80)}, and loading it could run any "
                f"code: {SAVE_ADVICE}"
            ]
    if pickle.fault:
        return [_damage(pickle.fault)]
    for call in pickle.calls:
        if not isinstance(call.function, Global):
            return [
                "is a pickle that calls what it has computed, and is not loaded: " + SAVE_ADVICE
            ]
        # Other codecs make much of little: hex doubles it, again and again.
        if call.function.name == "_codecs.encode" and not _is_latin(call.arguments):
            return ["is a pickle that calls for codecs, and is not loaded: " + SAVE_ADVICE]
    return []


def _is_latin(arguments: Any) -> bool:
    return (
        isinstance(arguments, tuple)
        and len(arguments) == 2
        and isinstance(arguments[0], str)
        and arguments[1] == "latin1"
    )


def _damage(what: str) -> str:
    return (
        "is not a whole weights file: expected safetensors, or what torch.save makes of a state "
        f"dict ({printable(what, 120)})"
    )
