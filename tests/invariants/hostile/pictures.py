"""Images, npz files and JSON that lie, break or blow up."""

import io
import json
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image
from safetensors.torch import save as to_safetensors

from invariants.hostile.building import Make, touch, weights


def png(width: int, height: int) -> bytes:
    """A small file that declares many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def npz(compressed: bool = False, **arrays: object) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def wide() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3000, 3000)).save(buffer, "PNG")
    return buffer.getvalue()


def scans() -> bytes:
    """A progressive JPEG, each of whose thousands of scans passes over all pixels."""
    buffer = io.BytesIO()
    Image.new("L", (4000, 4000), 128).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * 5_000 + b"\xff\xd9"


def npy(shape: str, data: bytes = bytes(64), descr: str = "'|u1'") -> bytes:
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


def claiming(images: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("train_images.npy", images)
        archive.writestr("train_labels.npy", npy("(4,)", np.zeros(4, np.int64).tobytes(), "'<i8'"))
    return buffer.getvalue()


def many_entries() -> bytes:
    buffer = io.BytesIO(npz(train_images=PIXELS, train_labels=LABELS))
    with zipfile.ZipFile(buffer, "a") as archive:
        for number in range(30_000):
            archive.writestr(f"{number}.npy", b"")
    return buffer.getvalue()


LABELS = np.zeros(4, np.int64)
PIXELS = np.zeros((4, 12, 12, 3), np.uint8)
IMAGES: dict[str, Make] = {
    "bomb.png": lambda: png(60_000, 60_000),
    "large.png": lambda: png(9_000, 9_000),
    "cut.png": lambda: png(12, 12)[:60],
    "wide.png": wide,
    "scans.jpg": scans,
    "text.jpg": lambda: b"no picture",
    "script.png": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n(touch canary) run\n",
    "objects.npz": lambda: npz(
        train_images=np.array([touch()] * 4, dtype=object), train_labels=LABELS
    ),
    "bomb.npz": lambda: npz(
        True, train_images=np.zeros((4, 6000, 6000, 3), np.uint8), train_labels=LABELS
    ),
    "claims.npz": lambda: claiming(npy("(4, 100000, 100000, 3)")),
    "claims-text.npz": lambda: claiming(npy("(4,)", descr="'<U1000000000'")),
    "deep.npz": lambda: claiming(npy("(" * 5000)),
    "negative.npz": lambda: claiming(npy("(-4, 12, 12)")),
    "lzma.npz": lambda: claiming(npy("(4, 4, 4)"), zipfile.ZIP_LZMA),
    "entries.npz": many_entries,
    "float.npz": lambda: npz(train_images=np.zeros((4, 12, 12, 3)), train_labels=LABELS),
    "labels.npz": lambda: npz(train_images=PIXELS, train_labels=LABELS + 99),
    "cut.npz": lambda: npz(train_images=PIXELS, train_labels=LABELS)[:99],
    "tail.npz": lambda: npz(train_images=PIXELS, train_labels=LABELS) + bytes(99),
    "array.npz": lambda: npy("(100000, 100000)"),
    "pickle.npz": lambda: b"\x80\x02cos\nsystem\nX\x0c\x00\x00\x00touch canary\x85R.",
    "empty.npz": lambda: b"",
}

CONFIG = {"architecture": "resnet18", "num_classes": 4}
FIRST, SECOND = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))


def folder(config: object = CONFIG, preprocessor: object = None):
    """A Hugging Face folder's files."""
    files = {"model.safetensors": to_safetensors(weights())}
    for name, content in {"config.json": config, "preprocessor_config.json": preprocessor}.items():
        if content is not None:
            files[name] = content if isinstance(content, bytes) else json.dumps(content).encode()
    return files


def in_parts(index: object = None, **changes: object):
    """The same in two parts; ``changes``: where the index says that a tensor is."""
    tensors = weights()
    held = {FIRST: {"head.weight": tensors.pop("head.weight")}, SECOND: tensors}
    places = {name: file for file, part in held.items() for name in part} | changes
    content = {"weight_map": places} if index is None else index
    return {
        **{file: to_safetensors(part) for file, part in held.items()},
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors.index.json": (
            content if isinstance(content, bytes) else json.dumps(content).encode()
        ),
    }


def without(files: dict[str, bytes], *names: str) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name not in names}


FOLDERS = {
    "deep config": lambda: folder(b"[" * 200_000),
    "deep config, closed": lambda: folder(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "a long number": lambda: folder(b'{"num_classes":' + b"9" * 100_000 + b"}"),
    "a name twice": lambda: folder(b'{"architecture": "resnet18", "architecture": "x"}'),
    "not UTF-8": lambda: folder(b'{"architecture": "\xff\xfe"}'),
    "a billion classes": lambda: folder({**CONFIG, "num_classes": 10**9}),
    "a million classes": lambda: folder({**CONFIG, "num_classes": 10**6}),
    "a size of 10^6": lambda: folder(
        {**CONFIG, "pretrained_cfg": {"input_size": [3, 10**6, 10**6]}}
    ),
    "NaN as mean": lambda: folder(b'{"architecture": "resnet18", "num_classes": 4, "mean": [NaN]}'),
    "code as architecture": lambda: folder({"architecture": "os.system", "num_classes": 4}),
    "code as type": lambda: folder({"model_type": "../../evil", "num_labels": 4}),
    "auto_map": lambda: folder({"model_type": "vit", "auto_map": {"AutoModel": "evil.Evil"}}),
    "an index to elsewhere": lambda: in_parts(a="../../etc/passwd"),
    "an index to elsewhere, by another bar": lambda: in_parts(a="..\\x.safetensors"),
    "an index to a device": lambda: in_parts({"weight_map": {"a": "/dev/zero"}}),
    "an index to a pickle": lambda: in_parts(a="evil.bin"),
    "an index to itself": lambda: in_parts(a="model.safetensors.index.json"),
    "an index without end": lambda: in_parts(a="x" * 100_000 + ".safetensors"),
    "an index of numbers": lambda: in_parts(a=7),
    "an index that is a list": lambda: in_parts([1]),
    "an index, deep": lambda: in_parts(b'{"weight_map":' + b"[" * 100_000),
    "an index of 7 MB": lambda: in_parts(
        {"weight_map": {str(n): f"{n}.safetensors" for n in range(200_000)}}
    ),
    "an index with a name twice": lambda: in_parts(
        b'{"weight_map": {"a": "' + FIRST.encode() + b'"}, "weight_map": {}}'
    ),
    "an index of tensors that are not there": lambda: in_parts(a=FIRST),
    "a part that is missing": lambda: without(in_parts(), SECOND),
    "parts without an index": lambda: without(in_parts(), "model.safetensors.index.json"),
    "a tensor in two parts": lambda: {**in_parts(), FIRST: to_safetensors(weights())},
    "a part with more than the index says": lambda: {
        **in_parts(),
        FIRST: to_safetensors({**weights(), "more": weights()["head.bias"]}),
    },
    "a part that is cut": lambda: {**in_parts(), SECOND: in_parts()[SECOND][:-8]},
    "parts that swap": lambda: {**in_parts(), FIRST: in_parts()[SECOND], SECOND: in_parts()[FIRST]},
    "a preprocessor, deep": lambda: folder(preprocessor=b"{" * 100),
    "a config of 9 MB": lambda: folder(b'{"a": "' + b"a" * (9 << 20) + b'"}'),
}
