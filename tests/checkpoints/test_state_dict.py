"""Weights files: what is read, what is refused, and what is written."""

import argparse
import os
import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from shapprune.checkpoints.architectures import build_network
from shapprune.checkpoints.loading import load_classifier
from shapprune.checkpoints.state_dict import read_weights_file, save_weights
from shapprune.errors import InputError

ARCH = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, num_classes=10):
        super().__init__(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
            nn.Linear(4 * 6 * 6, num_classes),
        )
"""


@pytest.fixture
def arch(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(ARCH)
    return f"{tmp_path / 'net.py'}:Net"


@pytest.fixture
def weights(arch: str) -> dict[str, Tensor]:
    return build_network(arch, 10).state_dict()


def fails(message: str):
    """Every refusal is one line, on the point."""
    return pytest.raises(InputError, match=rf"(?s)\A[^\n]*{message}[^\n]*\Z")


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"epoch": 3, "optimizer": {"state": {}, "lr": 0.1}, "state_dict": w},
        lambda w: {"model": w, "args": argparse.Namespace(lr=0.1), "acc": np.float64(0.5)},
        lambda w: {"net": {f"module.{k}": v for k, v in w.items()}, "acc": 84.6},
        lambda w: {f"_orig_mod.module.{k}": v for k, v in w.items()},
        lambda w: {"module._orig_mod." + k: v for k, v in w.items()},
        lambda w: {"ema": {k: v * 0 for k, v in w.items()}, "model_state_dict": w},
        lambda w: {"step": torch.tensor(1), "my_own_key": w},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_reads_checkpoints(wrap, zipped, weights, tmp_path):
    path = tmp_path / "model.pth.tar"
    torch.save(wrap(weights), path, _use_new_zipfile_serialization=zipped)
    assert_same(read_weights_file(path).weights, weights)


@pytest.mark.parametrize("zipped", [True, False])
def test_empty_bytes_are_read_and_no_others_are_made(zipped, weights, tmp_path):
    """Protocol 2 has no empty bytes: it calls bytes, which of a number would take its memory."""
    path, legacy = tmp_path / "model.pth", {"_use_new_zipfile_serialization": zipped}
    torch.save({"net": weights, "idx": np.array([]), "b": b"", "s": np.str_("")}, path, **legacy)
    file = read_weights_file(path)
    assert_same(file.weights, weights)
    assert isinstance(file.content, dict)
    assert file.content["b"] == b""
    assert file.content["s"] == ""
    torch.save(file.content, path)
    back = torch.load(path, weights_only=False)["idx"]
    assert (back.shape, back.dtype) == ((0,), np.float64)
    for arguments in ((5,), ("x", "utf-8"), ([1, 2],)):
        torch.save({"net": weights, "b": Made(arguments)}, path, **legacy)
        with fails("a call of __builtin__.bytes with what no weights have"):
            read_weights_file(path)


class Made:
    """Bytes that a pickle makes of something."""

    def __init__(self, arguments: tuple[object, ...]) -> None:
        self.arguments = arguments

    def __reduce__(self):
        return bytes, self.arguments


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.array(["2026-01-01"], "M8[D]"), "holds numpy values of type datetime64: expected real"),
        (np.zeros(2, [("a", "f4")]), r"holds numpy values of type \|V4: expected real numbers"),
        (np.array(["a", None], dtype=object), "a numpy array of objects"),
    ],
)
def test_numpy_values_that_are_not_read_are_told_by_their_type(value, reason, weights, tmp_path):
    torch.save({"net": weights, "extra": value}, tmp_path / "model.pth")
    with fails(reason):
        read_weights_file(tmp_path / "model.pth")


def test_reads_safetensors_under_any_name(weights, tmp_path):
    for name in ("model.safetensors", "model.bin"):
        save_file({f"module.{k}": v for k, v in weights.items()}, tmp_path / name)
        assert_same(read_weights_file(tmp_path / name).weights, weights)


def test_keeps_a_prefix_that_not_all_names_carry(tmp_path):
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "model.pt")
    assert set(read_weights_file(tmp_path / "model.pt").weights) == {"module.a", "b"}


class Hostile:
    """Creates the canary file when a pickle of it is loaded without care."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("make", ["pickle", "pickle-2", "zip", "legacy", "beside-weights"])
def test_a_hostile_pickle_never_runs(make, weights, tmp_path):
    path, hostile = tmp_path / "model.pth", Hostile(tmp_path / "canary")
    match make:
        case "pickle":
            path.write_bytes(pickle.dumps(hostile))
        case "pickle-2":
            path.write_bytes(pickle.dumps(hostile, protocol=2))
        case "zip":
            torch.save(hostile, path)
        case "legacy":
            torch.save(hostile, path, _use_new_zipfile_serialization=False)
        case "beside-weights":
            torch.save({"state_dict": weights, "extra": hostile}, path)
    with fails("is malicious: .* calls for posix.mkdir"):
        read_weights_file(path)
    assert not hostile.canary.exists()
    with suppress(RuntimeError):  # a bare pickle is none of torch's, which shows when it has run
        torch.load(path, weights_only=False)
    assert hostile.canary.exists(), "the canary must be able to sing"


def test_refuses_a_whole_network(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    with fails("calls for torch.nn.modules.linear.Linear, .*state_dict"):
        read_weights_file(tmp_path / "whole.pt")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_refuses_torchscript(tmp_path):
    torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(str(tmp_path / "script.pt"))
    with fails("TorchScript"):
        read_weights_file(tmp_path / "script.pt")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.onnx", b"\x08\x07\x12\x07pytorch", "ONNX"),
        ("model.pth", b"\x08\x07\x12\x07pytorch", "ONNX"),
        ("model.pth", b"", "is empty"),
        ("model.pth", b"<html>404 not found</html>", "is a web page"),
        ("model.safetensors", b"\x00" * 20, "no whole safetensors file"),
        ("model.safetensors", b"\x02\0\0\0\0\0\0\0{}", "no tensors"),
        ("model.pth", pickle.dumps([1, 2], protocol=2), "not a whole weights file"),
    ],
)
def test_refuses_other_files(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with fails(message):
        read_weights_file(tmp_path / name)


def test_refuses_what_is_not_there(tmp_path):
    with fails("cannot read .*missing.pth: No such file"):
        read_weights_file(tmp_path / "missing.pth")
    with fails("cannot read"):
        read_weights_file(tmp_path)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_refuses_files_cut_short(kind, weights, tmp_path):
    path = tmp_path / "model"
    if kind == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for length in (1, 7, 40, len(whole) // 3, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            read_weights_file(path)


def test_refuses_checkpoints_without_weights(tmp_path):
    for content, found in (({"epoch": 3}, "a dict with 'epoch'"), ([1], "a list"), ({}, "a dict")):
        torch.save(content, tmp_path / "model.pt")
        with fails(f"no weights: .*{found}"):
            read_weights_file(tmp_path / "model.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_names_the_tensor_that_is_not_finite(value, weights, tmp_path):
    weights["1.running_var"][2] = value
    torch.save(weights, tmp_path / "model.pt")
    with fails("'1.running_var' holds NaN or infinite"):
        read_weights_file(tmp_path / "model.pt")


def test_terminal_codes_in_names_do_not_reach_the_message(tmp_path):
    torch.save({"\x1b[31mred\n": torch.tensor(float("nan"))}, tmp_path / "model.pt")
    with pytest.raises(InputError) as caught:
        read_weights_file(tmp_path / "model.pt")
    assert str(caught.value).isprintable()


def test_saves_what_loads_again(arch, tmp_path):
    network = build_network(arch, 10)
    network[0].weight.data = network[0].weight.data.to(memory_format=torch.channels_last)
    save_weights(network, tmp_path / "repaired.safetensors")
    assert_same(load_file(tmp_path / "repaired.safetensors"), network.state_dict())
    model = load_classifier(tmp_path / "repaired.safetensors", arch=arch, num_classes=10)
    assert_same(model.network.state_dict(), network.state_dict())


def test_saves_shared_tensors(tmp_path):
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    save_weights(network, tmp_path / "tied.safetensors")
    assert_same(load_file(tmp_path / "tied.safetensors"), network.state_dict())
