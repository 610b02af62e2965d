"""Hostile and broken files, each through the command line: one line, exit code 2, nothing run.

All files are built in `hostile`, from small generators. Each is given to a process of its own,
whose time and memory are measured.
"""

import argparse
import io
import json
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch._weights_only_unpickler import _blocklisted_modules, _get_allowed_globals

from invariants.hostile.archives import READABLE, SAFETENSORS, WEIGHTS
from invariants.hostile.bombs import BOMBS
from invariants.hostile.building import CANARY, Calls, Make, saved, touch, weights
from invariants.hostile.gadgets import GADGETS, HIDDEN, STRANGERS
from invariants.hostile.pictures import FOLDERS, IMAGES
from shapprune.checkpoints.inspection import is_allowed, look_into
from shapprune.checkpoints.malice import is_malicious
from shapprune.checkpoints.pickle_scan import read_pickle
from toys import CLASSES

# What we allow beside it, and give stand-ins for.
BOOKKEEPING = {"argparse.Namespace", "numpy.dtype", "numpy.ndarray"} | {
    f"numpy.{core}.multiarray.{name}"
    for core in ("core", "_core")
    for name in ("_reconstruct", "scalar")
}
BOOKKEEPING |= {"builtins.bytes", "__builtin__.bytes"}  # called without arguments
ARCH = f"{Path(__file__).parents[1] / 'toys.py'}:backdoored_net"
SECONDS, BYTES = 10, 1 << 30

# One process that has torch loaded forks one for each command: the kernel measures each by itself.
# Seconds are of the processor, so that other work beside the tests changes nothing.
DRIVER = """
import json, os, resource, signal, sys
from shapprune.cli.main import main
for name, arguments in json.load(sys.stdin):
    read, write = os.pipe()
    child = os.fork()
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
    seconds = usage.ru_utime + usage.ru_stime
    print(json.dumps([name, code, said, seconds, usage.ru_maxrss * 1024]))
"""

FILES: dict[str, tuple[str, Make]] = {
    **{f"malicious: {name}": (".pth", make) for name, make in (GADGETS | HIDDEN).items()},
    **{f"stranger: {name}": (".pth", make) for name, make in STRANGERS.items()},
    **{f"bomb: {name}": (".pth", make) for name, make in BOMBS.items()},
    **{f"weights: {name}": (".pth", make) for name, make in WEIGHTS.items()},
    **{f"readable: {name}": (".pth", make) for name, make in READABLE.items()},
    **{f"safetensors: {name}": (".safetensors", make) for name, make in SAFETENSORS.items()},
    "malicious: named .safetensors": (".safetensors", HIDDEN["named .safetensors"]),
}
NAMES = [
    *FILES,
    *(f"images: {name}" for name in IMAGES),
    *(f"folder: {name}" for name in FOLDERS),
    *("weights: a device", "weights: a pipe", "safetensors: a hole of 2 GB"),
]


def cases(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Writes the files and gives the commands that read them."""
    good = folder / "good.pth"
    good.write_bytes(saved(weights()))
    for label in range(2):  # enough for a scan, were the weights taken
        (folder / "plain" / str(label)).mkdir(parents=True)
        Image.new("RGB", (12, 12)).save(folder / "plain" / str(label) / "0.png")
    options = ["--arch", ARCH, "--num-classes", str(CLASSES), "--device", "cpu", "--images"]
    given = [*options, str(folder / "plain")]
    for number, (name, (suffix, make)) in enumerate(FILES.items()):
        path = folder / f"{number}{suffix}"
        path.write_bytes(make())
        # inspect shows what it can before it refuses; it says nothing against NaN or whole numbers.
        if name.startswith(("bomb", "readable")) or (number % 2 and "weights: " not in name):
            yield name, ["inspect", str(path)]
        else:
            yield name, ["repair", str(path), "--out", str(folder / "out"), *given]
    sparse = folder / "sparse.safetensors"
    with open(sparse, "wb") as file:  # 2 GB of header declared and there, if only as a hole
        file.write(struct.pack("<Q", 2 << 30) + b"{")
        file.truncate((2 << 30) + 100)
    yield "safetensors: a hole of 2 GB", ["scan", str(sparse), *given]
    yield "weights: a device", ["scan", "/dev/zero", *given]
    os.mkfifo(folder / "pipe")
    yield "weights: a pipe", ["scan", str(folder / "pipe"), *given]
    for name, make in IMAGES.items():
        path = folder / name
        if not name.endswith("npz"):
            path = folder / name.replace(".", "-") / "0" / name
            path.parent.mkdir(parents=True)
        path.write_bytes(make())
        images = path if name.endswith("npz") else path.parents[1]
        yield f"images: {name}", ["scan", str(good), *options, str(images)]
    for number, (name, files) in enumerate(FOLDERS.items()):
        path = folder / f"hub{number}"
        path.mkdir()
        for file, data in files().items():
            (path / file).write_bytes(data)
        yield f"folder: {name}", ["scan", str(path), "--images", str(folder / "plain")]


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
    results = {name: tuple(rest) for name, *rest in map(json.loads, done.stdout.splitlines())}
    assert not list(folder.rglob(CANARY)), "code of a file ran"
    assert not list(folder.parent.rglob("harmed"))
    right = sum(not faults(name, *rest) for name, rest in results.items())
    print(f"{right} of {len(NAMES)} hostile files refused in one line, or read safely")
    return results


def faults(name: str, code: int, said: str, seconds: float, memory: int) -> list[str]:
    """What is not as it should be."""
    lines = [line for line in said.splitlines() if "note: " not in line]
    line = lines[0] if len(lines) == 1 else ""
    refused = line.startswith("shapprune: error: ") and line.isprintable()
    readable = name.startswith("readable: ")
    wrong = {
        "exit code": code != (0 if readable else 2),
        "lines": bool(lines) if readable else not refused,
        "the file itself must be refused": "/plain" in line,
        "unexpected": "unexpected: --debug" in line,
        "seconds": seconds >= SECONDS,
        "memory": memory >= BYTES,
        "the word": ("malicious" in line) != name.startswith("malicious: "),
        "advice": "malicious" in line and not line.endswith("Do not load it"),
        "advice to load": any(words in line for words in ("save it", "load it with", "opens")),
    }
    return [what for what, is_so in wrong.items() if is_so]


def test_there_are_enough_of_them():
    assert len(NAMES) == len(set(NAMES)) >= 150


@pytest.mark.parametrize("name", NAMES)
def test_is_refused_in_one_line(name, told):
    assert not faults(name, *told[name]), told[name]


def test_the_canary_sings_where_nobody_takes_care(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("beside weights", "by INST", "a number in base 16", "memo after memo"):
        (tmp_path / "evil.pth").write_bytes(HIDDEN[name]())
        torch.load("evil.pth", weights_only=False)
        Path(CANARY).unlink()


def test_reading_a_pickle_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    read = read_pickle(io.BytesIO(pickle.dumps([touch(), Calls(eval, "1/0")], protocol=4)))
    assert read.globals == ("posix.system", "builtins.eval")
    assert read.fault is None
    assert not Path(CANARY).exists()


def test_good_files_have_no_problems(tmp_path):
    content = {
        **{"net": weights(), "args": argparse.Namespace(lr=0.1), "acc": np.float64(0.5)},
        **{"indices": np.arange(5), "seen": {1, 2}, "expanded": torch.ones(1).expand(1000)},
        **{"parameter": torch.nn.Parameter(torch.ones(2)), "half": torch.ones(2).half()},
        **{"sparse": torch.eye(3).to_sparse(), "size": torch.Size([1, 2]), "kind": torch.int8},
        **{"quantised": torch.quantize_per_tensor(torch.ones(4), 1.0, 0, torch.qint8)},
        **{"bytes": b"bytes", "device": torch.device("cpu"), "meta": torch.ones(2, device="meta")},
        **{"shared": [weights()] * 2, "optimiser": torch.optim.Adam([torch.ones(1)]).state_dict()},
    }
    for zipped in (True, False):
        path = tmp_path / "good.pth"
        path.write_bytes(saved(content, _use_new_zipfile_serialization=zipped))
        assert look_into(path).problems == ()


def test_torch_agrees_on_what_is_safe(tmp_path):
    """Its own list: nothing on it is called malicious; all that it misses, we do not allow."""
    assert not [name for name in _get_allowed_globals() if is_malicious(name)]
    assert all(is_malicious(f"{module}.anything") for module in _blocklisted_modules)
    compared = 0
    for name, (_, make) in FILES.items():
        path = tmp_path / "file.pth"
        path.write_bytes(make())
        try:
            unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        except Exception:
            continue  # not everything can be read by it
        refused = [known for known in unsafe if not is_allowed(known)]
        assert {known for known in unsafe if is_allowed(known)} <= BOOKKEEPING, name
        assert not refused or look_into(path).problems, name
        compared += bool(refused)
    assert compared > 100
