"""Hostile and broken files, each through the command line: one line, exit code 2, nothing run.

All files are built here. Each is given to a process of its own, whose time and memory are measured.
"""

import argparse
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save as to_safetensors

from shapprune.checkpoints.inspection import look_into
from shapprune.checkpoints.pickle_scan import read_pickle
from toys import CLASSES, backdoored_net

ARCH = f"{Path(__file__).parents[1] / 'toys.py'}:backdoored_net"
SECONDS, BYTES = 10, 1 << 30
CANARY = "canary"

# One process that has torch loaded forks one for each command: the kernel measures each by itself.
DRIVER = """
import json, os, resource, signal, sys, time
from shapprune.cli.main import main
for name, arguments in json.load(sys.stdin):
    read, write = os.pipe()
    start, child = time.monotonic(), os.fork()
    if not child:
        signal.alarm(60)
        os.dup2(write, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            import traceback; traceback.print_exc(); code = 99
        sys.stderr.flush(); os._exit(code)
    os.close(write)
    with os.fdopen(read, errors="replace") as errors:
        said = errors.read()
    _, status, usage = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    print(json.dumps([name, code, said, time.monotonic() - start, usage.ru_maxrss * 1024]))
"""


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


def rezipped(
    change: Callable[[dict[str, bytes]], None], compression: int = zipfile.ZIP_STORED
) -> bytes:
    """A good checkpoint's archive with its entries changed."""
    with zipfile.ZipFile(io.BytesIO(saved(weights()))) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def with_pickle(code: bytes) -> bytes:
    return rezipped(lambda entries: entries.update({"archive/data.pkl": code}))


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]


def tensors(header: object, size: int = 64) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


def entry(start: int, stop: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


class Outside(pickle.Pickler):
    """Puts what it is given behind a persistent id."""

    def persistent_id(self, value: object) -> object:
        return ("storage", touch(), "0", "cpu", 4) if value == "outside" else None


def outside() -> bytes:
    buffer = io.BytesIO()
    Outside(buffer, protocol=2).dump({"w": "outside"})
    return buffer.getvalue()


GLOBAL = b"c%s\n%s\n"
OVERSIZED = pickle.dumps(weights(), protocol=2)  # no torch archive
CODECS = b"\x80\x02c_codecs\nencode\nX\x04\x00\x00\x00aaaaX\x03\x00\x00\x00hex\x86R."
STORAGE = (
    b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage"
    b"ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu%stQK\x00%s%sNtRs."
)


def strided(size: bytes, stride: bytes, count: bytes = b"J\xd8\x00\x00\x00") -> bytes:
    return with_pickle(STORAGE % (count, size, stride))


def bomb() -> bytes:
    return rezipped(lambda e: e.update({"archive/data/0": bytes(200 << 20)}), zipfile.ZIP_DEFLATED)


def lies_about_size() -> bytes:
    """The table of contents declares ten times as many bytes as are there."""
    data = bytearray(saved(weights()))
    place = data.rindex(b"PK\x01\x02")
    data[place + 24 : place + 28] = struct.pack("<I", 1 << 31)
    return bytes(data)


def not_finite(value: float, dtype: torch.dtype = torch.float32) -> bytes:
    changed = weights()
    changed["head.bias"] = torch.full_like(changed["head.bias"], value).to(dtype)
    return saved(changed)


WEIGHTS: dict[str, Callable[[], bytes]] = {
    "os.system": lambda: saved({"state_dict": weights(), "x": touch()}),
    "os.system, plain": lambda: pickle.dumps(touch()),
    "os.system, protocol 0": lambda: pickle.dumps(touch(), protocol=0),
    "os.system, old kind": lambda: saved(touch(), _use_new_zipfile_serialization=False),
    "eval": lambda: saved(Calls(eval, f"open({CANARY!r}, 'w')")),
    "exec": lambda: saved([Calls(exec, f"open({CANARY!r}, 'w')")]),
    "importlib": lambda: saved(Calls(__import__("importlib").import_module, "antigravity")),
    "open": lambda: saved({"w": Calls(open, CANARY, "w")}),
    "a chain": lambda: saved(Calls(getattr, Calls(__import__, "os"), "system")),
    "subprocess": lambda: saved(Calls(subprocess.Popen, ["touch", CANARY])),
    "nested in tuples": lambda: saved({"w": (1, (2, (3, [touch()])))}),
    "as a key": lambda: saved({"state_dict": weights(), "args": argparse.Namespace(x=touch())}),
    "behind a persistent id": lambda: with_pickle(outside()),
    "behind an unknown id": lambda: with_pickle(b"\x80\x02X\x04\x00\x00\x00evilQ."),
    "by INST": lambda: with_pickle(b"\x80\x02(X\x0c\x00\x00\x00touch canaryios\nsystem\n."),
    "by STACK_GLOBAL": lambda: with_pickle(
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch canary\x85R."
    ),
    "torch.load inside": lambda: saved(Calls(torch.load, "other.pt")),
    "numpy objects": lambda: saved({"w": np.array([touch()], dtype=object)}),
    "a whole module": lambda: saved(backdoored_net()),
    "codecs": lambda: with_pickle(CODECS),
    "bytearray": lambda: saved({"w": bytearray(5)}),
    "computed call": lambda: with_pickle(b"\x80\x02ccollections\nOrderedDict\n)R)R."),
    "a second pickle": lambda: rezipped(
        lambda e: e.update({"archive/more.pkl": pickle.dumps(touch())})
    ),
    "a second data.pkl": lambda: rezipped(
        lambda e: e.update({"other/data.pkl": pickle.dumps(touch())})
    ),
    "path traversal": lambda: rezipped(lambda e: e.update({"archive/../../harmed": b"x"})),
    "an absolute path": lambda: rezipped(lambda e: e.update({"/harmed": b"x"})),
    "no pickle": lambda: rezipped(lambda e: e.pop("archive/data.pkl") and None),
    "a zip bomb": bomb,
    "lies about its size": lies_about_size,
    "zip cut short": lambda: saved(weights())[:-100],
    "zip with a tail": lambda: saved(weights()) + b"more",
    "zip, flipped bit": lambda: flipped(saved(weights()), len(saved(weights())) // 2),
    "old kind, cut short": lambda: saved(weights(), _use_new_zipfile_serialization=False)[:-9],
    "old kind, a wrong size": lambda: (
        saved(weights(), _use_new_zipfile_serialization=False) + bytes(8)
    ),
    "no archive": lambda: OVERSIZED,
    "empty": lambda: b"",
    "text": lambda: b"<html>404 not found</html>",
    "a huge string": lambda: b"\x80\x02X\xff\xff\xff\x7fabc.",
    "a huge memo": lambda: with_pickle(b"\x80\x02Nr\xff\xff\xff\x7f0."),
    "tuples, deep": lambda: with_pickle(b"\x80\x02)" + b"\x85" * 200_000 + b"."),
    "more numbers than there are": lambda: strided(
        b"J\x00\x00\x00\x40\x85", b"K\x01\x85", b"J\x00\x00\x00\x40"
    ),
    "a huge stride-0 tensor": lambda: strided(b"J\x00\x00\x00\x40\x85", b"K\x00\x85"),
    "a negative shape": lambda: strided(b"J\xff\xff\xff\xff\x85", b"K\x01\x85"),
    "NaN": lambda: not_finite(float("nan")),
    "infinity": lambda: not_finite(float("inf"), torch.float16),
    "complex": lambda: saved({**weights(), "head.bias": torch.zeros(CLASSES) * 1j}),
    "whole numbers": lambda: saved({**weights(), "head.bias": torch.zeros(CLASSES).long()}),
    "float8": lambda: not_finite(1.0, torch.float8_e4m3fn),
    "sparse": lambda: saved({**weights(), "head.bias": torch.zeros(CLASSES).to_sparse()}),
    "no tensors": lambda: saved({"epoch": 3}),
    "ONNX": lambda: b"\x08\x07\x12\x07pytorch",
}
SAFETENSORS: dict[str, Callable[[], bytes]] = {
    "overlap": lambda: tensors({"a": entry(0, 64, [16]), "b": entry(32, 64, [8])}),
    "gap": lambda: tensors({"a": entry(0, 16, [4]), "b": entry(32, 64, [8])}),
    "shape lies": lambda: tensors({"a": entry(0, 64, [1 << 40])}),
    "negative shape": lambda: tensors({"a": entry(0, 64, [-16])}),
    "beyond the end": lambda: tensors({"a": entry(0, 1 << 40, [1 << 38])}),
    "unknown type": lambda: tensors({"a": entry(0, 64, [16], "EVIL")}),
    "no offsets": lambda: tensors({"a": {"dtype": "F32", "shape": [16]}}),
    "a list": lambda: tensors([1, 2]),
    "deep JSON": lambda: tensors(b'{"a":' + b"[" * 100_000),
    "no JSON": lambda: tensors(b"{nothing"),
    "header of 2 GB": lambda: struct.pack("<Q", 2 << 30) + b"{}" + bytes(64),
    "header of 16 EB": lambda: struct.pack("<Q", (1 << 64) - 1) + b"{}",
    "cut short": lambda: to_safetensors(weights())[:-8],
    "header bit": lambda: flipped(to_safetensors(weights()), 9),
    "four bytes": lambda: b"abcd",
    "nothing inside": lambda: tensors({}, 0),
    "NaN": lambda: to_safetensors({**weights(), "head.bias": torch.full((CLASSES,), torch.nan)}),
    "a pickle": lambda: pickle.dumps(touch()),
}


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


LABELS = np.zeros(4, np.int64)
IMAGES: dict[str, Callable[[], bytes]] = {
    "bomb.png": lambda: png(60_000, 60_000),
    "large.png": lambda: png(9_000, 9_000),
    "cut.png": lambda: png(12, 12)[:60],
    "wide.png": wide,
    "text.jpg": lambda: b"no picture",
    "script.png": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n(touch canary) run\n",
    "objects.npz": lambda: npz(
        train_images=np.array([touch()] * 4, dtype=object), train_labels=LABELS
    ),
    "bomb.npz": lambda: npz(
        True, train_images=np.zeros((4, 6000, 6000, 3), np.uint8), train_labels=LABELS
    ),
    "float.npz": lambda: npz(train_images=np.zeros((4, 12, 12, 3)), train_labels=LABELS),
    "labels.npz": lambda: npz(
        train_images=np.zeros((4, 12, 12, 3), np.uint8), train_labels=LABELS + 99
    ),
    "cut.npz": lambda: npz(train_images=np.zeros((4, 12, 12), np.uint8), train_labels=LABELS)[:99],
    "pickle.npz": lambda: pickle.dumps(touch()),
    "empty.npz": lambda: b"",
}


def cases(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Writes the files and gives the commands that read them."""
    good = folder / "good.pth"
    good.write_bytes(saved(weights()))
    for label in range(2):  # enough for a scan, were the weights taken
        (folder / "plain" / str(label)).mkdir(parents=True)
        Image.new("RGB", (12, 12)).save(folder / "plain" / str(label) / "0.png")
    options = ["--arch", ARCH, "--num-classes", str(CLASSES), "--device", "cpu", "--images"]
    files = [(f"weights: {name}", ".pth", make) for name, make in WEIGHTS.items()]
    files += [(f"safetensors: {name}", ".safetensors", make) for name, make in SAFETENSORS.items()]
    for number, (name, suffix, make) in enumerate(files):
        path = folder / f"{number}{suffix}"
        path.write_bytes(make())
        command = ["repair", str(path), "--out", str(folder / "out")]
        yield name, [*command, *options, str(folder / "plain")]
    sparse = folder / "sparse.safetensors"
    with open(sparse, "wb") as file:  # 2 GB of header declared and there, if only as a hole
        file.write(struct.pack("<Q", 2 << 30) + b"{")
        file.truncate((2 << 30) + 100)
    yield "safetensors: a hole of 2 GB", ["scan", str(sparse), *options, str(folder / "plain")]
    yield "weights: a device", ["scan", "/dev/zero", *options, str(folder / "plain")]
    os.mkfifo(folder / "pipe")
    yield "weights: a pipe", ["scan", str(folder / "pipe"), *options, str(folder / "plain")]
    for name, make in IMAGES.items():
        path = folder / name
        if not name.endswith("npz"):
            path = folder / name.replace(".", "-") / "0" / name
            path.parent.mkdir(parents=True)
        path.write_bytes(make())
        given = path if name.endswith("npz") else path.parents[1]
        yield f"images: {name}", ["scan", str(good), *options, str(given)]


NAMES = [
    *(f"weights: {name}" for name in [*WEIGHTS, "a device", "a pipe"]),
    *(f"safetensors: {name}" for name in [*SAFETENSORS, "a hole of 2 GB"]),
    *(f"images: {name}" for name in IMAGES),
]


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict[str, tuple[int, str, float, int]]:
    """What each command did: exit code, standard error, seconds, peak of memory."""
    folder = tmp_path_factory.mktemp("hostile")
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(list(cases(folder))),
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    results = {name: rest for name, *rest in map(json.loads, done.stdout.splitlines())}
    assert not list(folder.rglob(CANARY)), "code of a file ran"
    assert not list(folder.parent.rglob("harmed"))
    return {name: tuple(rest) for name, rest in results.items()}


def test_there_are_enough_of_them():
    assert len(NAMES) >= 40


@pytest.mark.parametrize("name", NAMES)
def test_is_refused_in_one_line(name, told):
    code, said, seconds, memory = told[name]
    lines = [line for line in said.splitlines() if "note: " not in line]
    assert code == 2, said
    assert len(lines) == 1, said
    assert lines[0].startswith("shapprune: error: ")
    assert lines[0].isprintable()
    assert "/plain" not in lines[0], "the file itself must be refused"
    assert "unexpected" not in lines[0]
    assert seconds < SECONDS
    assert memory < BYTES


def test_the_canary_sings_where_nobody_takes_care(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pth").write_bytes(WEIGHTS["os.system"]())
    torch.load("evil.pth", weights_only=False)
    assert Path(CANARY).exists()


def test_reading_a_pickle_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    read = read_pickle(io.BytesIO(pickle.dumps([touch(), Calls(eval, "1/0")], protocol=4)))
    assert read.globals == ("posix.system", "builtins.eval")
    assert read.fault is None
    assert not Path(CANARY).exists()


def test_good_files_have_no_problems(tmp_path):
    content = {"net": weights(), "args": argparse.Namespace(lr=0.1), "acc": np.float64(0.5)}
    for zipped in (True, False):
        path = tmp_path / "good.pth"
        path.write_bytes(saved(content, _use_new_zipfile_serialization=zipped))
        assert look_into(path).problems == ()
