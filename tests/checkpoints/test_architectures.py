"""Networks built from what the user names."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from shapprune.checkpoints.architectures import build_network
from shapprune.errors import InputError
from shapprune.model.classifier import check_classifier

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


def fails(message: str):
    """Every refusal is one line, on the point."""
    return pytest.raises(InputError, match=rf"(?s)\A[^\n]*{message}[^\n]*\Z")


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
        ("resnet18", "got 'resnet18': did you mean torchvision:resnet18 or timm:resnet18"),
        ("nowhere.py:Net", "no such file: nowhere.py"),
        ("torchvison:resnet18", "No module named 'torchvison': did you mean 'torchvision'"),
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


@pytest.mark.parametrize(
    ("options", "num_classes", "message"),
    [
        ({}, 4, "has 10000100000 numbers, and the file 12"),
        ({"img_size": 10**6}, 4, "states img_size 1000000"),
        ({}, 10**6, "states num_classes 1000000"),
    ],
)
def test_a_small_file_that_names_a_giant(monkeypatch, options, num_classes, message):
    """What a stranger's config names is counted before it is made: this one would take 40 GB."""
    giant = SimpleNamespace(
        list_models=lambda: ["giant"], create_model=lambda *_, **__: nn.Linear(100_000, 100_000)
    )
    monkeypatch.setitem(sys.modules, "timm", giant)
    weights = {"head.weight": torch.ones(4, 3)}
    with fails(message):
        build_network("timm:giant", num_classes, options=options, weights=weights)
