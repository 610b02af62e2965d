"""Models of strangers: what loads, what is refused, and that nothing of theirs ever runs."""

import argparse
import os
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from shapprune.checkpoints.architectures import build_network
from shapprune.checkpoints.loading import load_classifier
from shapprune.checkpoints.state_dict import read_weights, save_weights
from shapprune.errors import InputError
from shapprune.model.classifier import Classifier, check_classifier, check_input, in_channels_last
from shapprune.model.inference import cast_like, copy_of, in_full_precision
from shapprune.utils.files import write_whole

SHARED = Path(__file__).parents[1] / "../shared"

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


# Reading weights


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
    assert_same(read_weights(path), weights)


def test_reads_safetensors_under_any_name(weights, tmp_path):
    for name in ("model.safetensors", "model.bin"):
        save_file({f"module.{k}": v for k, v in weights.items()}, tmp_path / name)
        assert_same(read_weights(tmp_path / name), weights)


def test_keeps_a_prefix_that_not_all_names_carry(tmp_path):
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "model.pt")
    assert set(read_weights(tmp_path / "model.pt")) == {"module.a", "b"}


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
    with fails("could run any code"):
        read_weights(path)
    assert not hostile.canary.exists()
    if make == "zip":
        torch.load(path, weights_only=False)
        assert hostile.canary.exists(), "the canary must be able to sing"


def test_refuses_a_whole_network(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    with fails("calls for torch.nn.modules.linear.Linear, .*state_dict"):
        read_weights(tmp_path / "whole.pt")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_refuses_torchscript(tmp_path):
    torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(str(tmp_path / "script.pt"))
    with fails("TorchScript"):
        read_weights(tmp_path / "script.pt")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.onnx", b"\x08\x07\x12\x07pytorch", "ONNX"),
        ("model.pth", b"\x08\x07\x12\x07pytorch", "ONNX"),
        ("model.pth", b"", "is empty"),
        ("model.pth", b"<html>404 not found</html>", "not a whole weights file"),
        ("model.safetensors", b"\x00" * 20, "no whole safetensors file"),
        ("model.safetensors", b"\x02\0\0\0\0\0\0\0{}", "no tensors"),
        ("model.pth", pickle.dumps([1, 2], protocol=2), "not a whole weights file"),
    ],
)
def test_refuses_other_files(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with fails(message):
        read_weights(tmp_path / name)


def test_refuses_what_is_not_there(tmp_path):
    with fails("cannot read .*missing.pth: No such file"):
        read_weights(tmp_path / "missing.pth")
    with fails("cannot read"):
        read_weights(tmp_path)


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
            read_weights(path)


def test_refuses_checkpoints_without_weights(tmp_path):
    for content, found in (({"epoch": 3}, "a dict with 'epoch'"), ([1], "a list"), ({}, "a dict")):
        torch.save(content, tmp_path / "model.pt")
        with fails(f"no weights: .*{found}"):
            read_weights(tmp_path / "model.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_names_the_tensor_that_is_not_finite(value, weights, tmp_path):
    weights["1.running_var"][2] = value
    torch.save(weights, tmp_path / "model.pt")
    with fails("'1.running_var' holds NaN or infinite"):
        read_weights(tmp_path / "model.pt")


def test_terminal_codes_in_names_do_not_reach_the_message(tmp_path):
    torch.save({"\x1b[31mred\n": torch.tensor(float("nan"))}, tmp_path / "model.pt")
    with pytest.raises(InputError) as caught:
        read_weights(tmp_path / "model.pt")
    assert str(caught.value).isprintable()


# Building networks


def user_file(folder: Path, code: str) -> str:
    (folder / "user.py").write_text(code)
    return str(folder / "user.py")


def test_builds_from_a_file_with_imports_beside_it(tmp_path):
    (tmp_path / "my_width.py").write_text("WIDTH = 7")
    file = user_file(
        tmp_path,
        "from torch import nn\nfrom my_width import WIDTH\n"
        "def takes(num_classes): return nn.Linear(WIDTH, num_classes)\n"
        "def passes(**options): return takes(**options)\n"
        "def fixed(): return nn.Linear(WIDTH, 5)\n",
    )
    for name, classes in (("takes", 3), ("passes", 3), ("fixed", 5)):
        network = build_network(f"{file}:{name}", 3)
        assert isinstance(network, nn.Linear)
        assert (network.in_features, network.out_features) == (7, classes)


def test_leaves_nothing_beside_the_file(arch, tmp_path):
    build_network(arch, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["net.py"]


def test_builds_from_a_module_in_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "shapprune_test_nets.py").write_text(ARCH)
    monkeypatch.chdir(tmp_path)
    assert build_network("shapprune_test_nets:Net", 4)[-1].out_features == 4


def test_two_files_of_one_name_do_not_meet(tmp_path):
    for folder, width in (("a", 2), ("b", 3)):
        (tmp_path / folder).mkdir()
        code = (
            f"from torch import nn\ndef make(num_classes): return nn.Linear({width}, num_classes)"
        )
        file = user_file(tmp_path / folder, code)
        assert build_network(f"{file}:make", 2).in_features == width


def test_building_leaves_the_generator_alone(arch):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    build_network(arch, 10)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def make(: pass", r"user.py:1: SyntaxError"),
        ("import nothing_of_this_name", r"user.py:1: ModuleNotFoundError"),
        ("x = 1\ny = x / 0", r"user.py:2: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)", r"user.py:2: SystemExit: 3"),
        ("def make():\n  raise KeyError('a\\nb')", r"user.py:2: KeyError"),
        ("import torch\ndef make():\n  return torch.ones(2) @ torch.ones(3)", r"user.py:3: Runt"),
        ("def make(num_classes, depth): pass", "TypeError: .*depth"),
        ("make = 3", "'make' in .*user.py is a int"),
        ("from torch import nn\nmake = nn.Linear(1, 1)", "is a network: name the class"),
        ("def make(): return 3", "gave a int: expected a torch.nn.Module"),
        ("def maker(): pass", "has no 'make': did you mean 'maker'"),
    ],
)
def test_errors_of_user_code_are_one_line(code, message, tmp_path):
    with fails(message):
        build_network(f"{user_file(tmp_path, code)}:make", 2)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet18", "arch must be torchvision:NAME"),
        ("torchvision:", "arch must be torchvision:NAME"),
        ("nowhere.py:Net", "no such file: nowhere.py"),
        ("nowhere.at.all:Net", "ModuleNotFoundError"),
        ("torch.nn:Linaer", "did you mean 'Linear'"),
    ],
)
def test_refuses_other_specs(spec, message):
    with fails(message):
        build_network(spec, 2)


def test_refuses_fewer_than_two_classes(arch):
    with fails("num_classes must be at least 2"):
        build_network(arch, 1)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_missing_library_is_told_with_its_command(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)  # makes the import fail
    with fails(re.escape(f"pip install 'shapprune[{library}]'")):
        build_network(f"{library}:resnet18", 2)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_library_networks(library):
    pytest.importorskip(library)
    network = build_network(f"{library}:resnet18", 7)
    check_classifier(network, images=torch.rand(1, 3, 64, 64), num_classes=7)
    with fails(r"no model 'resnet_18': did you mean .*'resnet18'"):
        build_network(f"{library}:resnet_18", 7)


# The normalising wrapper


def test_normalises_inside():
    images = torch.rand(2, 3, 4, 4)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 0.125]
    for m, s in ((None, None), (0.5, 0.25), (mean, std), (0.5, std), (mean, None), ([0.5], [2])):
        wrapped = Classifier(nn.Identity(), m, s)
        expected_mean = torch.tensor(0.0 if m is None else m).reshape(1, -1, 1, 1)
        expected_std = torch.tensor(1.0 if s is None else s).reshape(1, -1, 1, 1)
        assert torch.equal(wrapped(images), (images - expected_mean) / expected_std)
        assert wrapped.state_dict() == {}


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (0.5, 0.0, "std must be positive"),
        (0.5, [1, 1, -1], "std must be positive"),
        ([0.5, 0.5], [1, 1, 1], "mean has 2 numbers and std 3"),
        ([], 1, "mean must be"),
        (float("nan"), 1, "mean must be"),
        (0.5, "wide", "std must be"),
        ([[0.5]], 1, "mean must be"),
        ([123.7, 116.3, 103.5], 1, r"mean must be for images in \[0, 1\]"),
    ],
)
def test_refuses_other_normalisation(mean, std, message):
    with fails(message):
        Classifier(nn.Identity(), mean, std)


# Loading a classifier


def test_loads_a_classifier(arch, weights, tmp_path):
    torch.save({"net": {f"module.{k}": v for k, v in weights.items()}}, tmp_path / "model.pth")
    model = load_classifier(tmp_path / "model.pth", arch=arch, num_classes=10, mean=0.5, std=0.5)
    assert not model.training
    assert not model.network.training
    assert_same(model.network.state_dict(), weights)
    check_classifier(model, images=torch.rand(2, 3, 8, 8), num_classes=10)


def test_old_checkpoints_lack_the_batch_counter(arch, weights, tmp_path):
    del weights["1.num_batches_tracked"]
    torch.save(weights, tmp_path / "model.pth")
    load_classifier(tmp_path / "model.pth", arch=arch, num_classes=10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w | {"4.weight": torch.ones(43, 144), "4.bias": torch.ones(43)},
         r"the weights are for 43 classes, but num_classes is 10 \('4.weight'\)"),
        (lambda w: {k: v for k, v in w.items() if not k.startswith("4")},
         "2 missing: '4.weight', '4.bias'"),
        (lambda w: w | {"5.weight": torch.ones(1)}, "1 unexpected: '5.weight'"),
        (lambda w: w | {"0.weight": torch.ones(4, 1, 3, 3)},
         r"1 of another shape: '0.weight' is \(4, 1, 3, 3\) in the file and \(4, 3, 3, 3\)"),
        (lambda w: {"a": torch.ones(1)}, "8 missing: .*; 1 unexpected: 'a'"),
    ],
)  # fmt: skip
def test_names_what_does_not_match(change, message, arch, weights, tmp_path):
    torch.save(change(dict(weights)), tmp_path / "model.pth")
    with fails(f"does not fit .*{message}"):
        load_classifier(tmp_path / "model.pth", arch=arch, num_classes=10)


# The dry run


class Returns(nn.Module):
    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output

    def forward(self, images: Tensor) -> object:
        return self.output


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.zeros(1, 3), "tells 3 classes apart, but num_classes is 10"),
        (torch.zeros(10), r"shape \(10,\)"),
        (torch.zeros(2, 10), r"shape \(2, 10\)"),
        (torch.zeros(1, 10, 2), r"shape \(1, 10, 2\)"),
        (torch.zeros(1, 10, dtype=torch.int64), "int64"),
        ((torch.zeros(1, 10), None), "returns a tuple: expected float logits"),
        (None, "returns a NoneType"),
        (torch.full((1, 10), float("nan")), "NaN"),
    ],
)
def test_dry_run_wants_logits(output, message):
    with fails(message):
        check_classifier(Returns(output), images=torch.rand(1, 3, 8, 8), num_classes=10)


def test_dry_run_tells_wrong_images(arch):
    network = build_network(arch, 10)
    for shape in ((1, 8, 8), (3, 9, 9)):
        with fails(re.escape(f"fails on an image of shape {shape}")):
            check_classifier(network, images=torch.rand(1, *shape), num_classes=10)
    with fails("mean and std are for 3 channels, but the images have 1"):
        model = Classifier(network, [0.5] * 3, [0.5] * 3)
        check_classifier(model, images=torch.rand(1, 1, 8, 8), num_classes=10)


def test_dry_run_changes_nothing(arch):
    network = build_network(arch, 10).double().train()
    network[1].eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    check_classifier(network, images=torch.rand(1, 3, 8, 8), num_classes=10)
    with pytest.raises(InputError):
        check_classifier(network, images=torch.rand(1, 1, 8, 8), num_classes=10)
    assert_same(network.state_dict(), before)
    assert [m.training for m in network.modules()] == [True, True, False, True, True, True]


# The layout in memory


def test_channels_last_is_a_copy_that_answers_the_same(arch):
    network = build_network(arch, 10).eval()
    images = torch.rand(4, 3, 8, 8)
    copy = in_channels_last(network, images)
    assert copy is not network
    assert copy[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert network[0].weight.is_contiguous()
    torch.testing.assert_close(copy(images), network(images))


def test_a_network_that_views_its_memory_keeps_its_layout():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 10)

        def forward(self, x):
            return self.head(self.conv(x).view(len(x), -1))

    network = Flat()
    assert in_channels_last(network, torch.rand(1, 3, 8, 8)) is network


# Saving


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


def test_writes_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "result"
    write_whole(path, b"old")

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    write_whole(path, b"new")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"new"]
    for folder in ("missing", "result"):  # not there; a file
        with fails("cannot write"):
            write_whole(tmp_path / folder / "result", b"new")


# Checkpoints that other people trained


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("cifar10_badnets_target8", 10),
        ("cifar10_l2inv_target0", 10),
        ("gtsrb_trojan_wm_target2", 43),
    ],
)
def test_loads_the_zoo(name, classes):
    zoo = SHARED / "zoo"
    if not zoo.is_dir():
        pytest.skip("../shared/zoo is missing")
    spec = f"{zoo / 'arch.py'}:SmallVGG"
    model = load_classifier(zoo / f"{name}.pth", arch=spec, num_classes=classes)
    check_classifier(model, images=torch.rand(1, 3, 32, 32), num_classes=classes)
    with fails(f"the weights are for {classes} classes, but num_classes is 7"):
        load_classifier(zoo / f"{name}.pth", arch=spec, num_classes=7)


def test_a_model_of_several_inputs_is_refused():
    class Two(nn.Module):
        def forward(self, image, mask, scale=1.0):
            return (image * mask * scale).mean((2, 3))

    for model in (Two(), Classifier(Two())):
        with pytest.raises(InputError, match=r"several inputs \(image, mask\)"):
            check_classifier(model, images=torch.rand(1, 3, 8, 8))


def test_inputs_with_defaults_are_no_hindrance():
    class Optional(nn.Module):
        def forward(self, image, mask=None, *, scale=1.0):
            return image.mean((2, 3)) * scale

    assert check_classifier(Optional(), images=torch.rand(1, 3, 8, 8)) == 3


# What is done to a model of a stranger's, and what is not


class Writes(nn.Module):
    """Into its images and its statistics; a dropout in it draws numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.register_buffer("calls", torch.zeros(()))
        self.head = nn.Linear(3, 4)

    def forward(self, images: Tensor) -> Tensor:
        images.mul_(0.5)
        self.calls = self.calls + 1
        norm = self.norm
        images = nn.functional.batch_norm(
            images, norm.running_mean, norm.running_var, None, None, True
        )
        return self.head(nn.functional.dropout(images.mean((2, 3))))


def test_the_dry_run_leaves_no_trace():
    model = Writes().train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    calls, images = model.calls, torch.rand(2, 3, 8, 8)
    before, random = images.clone(), torch.random.get_rng_state()
    assert check_classifier(model, images=images) == 4
    assert check_input(model, images, torch.tensor([0, 1]))[2] == 4
    assert torch.equal(images, before)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert_same(model.state_dict(), state)
    assert model.calls is calls
    assert all(module.training for module in model.modules())


def test_a_model_without_eval_mode_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    exported = torch.export.export(model, (torch.rand(1, 1, 2, 2),)).module()
    with fails("cannot be set to eval mode, .*NotImplementedError"):
        check_classifier(exported, images=torch.rand(1, 1, 2, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_worked_on_in_a_float32_copy(dtype):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(dtype)
    whole = in_full_precision(model)
    assert {t.dtype for t in whole.state_dict().values()} == {torch.float32, torch.int64}
    assert model[0].weight.dtype == dtype
    cast_like(whole, model)
    assert_same(whole.state_dict(), model.state_dict())


def test_a_float32_model_with_a_float64_buffer_is_worked_on_itself():
    model = nn.Linear(2, 3)
    model.register_buffer("mean", torch.zeros((), dtype=torch.float64))
    assert in_full_precision(model) is model


def test_a_model_that_cannot_be_copied_is_told():
    model = nn.Linear(2, 3).double()
    model.activations = model(torch.ones(1, 2).double())  # holds a graph
    for copy in (copy_of, in_full_precision):
        with fails("cannot be copied, .* keeping no tensor with a graph in it .*deepcopy"):
            copy(model)
