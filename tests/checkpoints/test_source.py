"""Checkpoints of other tools: read, and written back so that their own code loads them."""

import argparse
import json
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from shapprune.checkpoints.architectures import build_network
from shapprune.checkpoints.loading import count_classes, load_classifier
from shapprune.checkpoints.source import read_source
from shapprune.checkpoints.state_dict import read_weights_file
from shapprune.cli.main import main
from shapprune.errors import InputError
from shapprune.networks.cifar import preactresnet18, resnet18, resnet34

ZOO = Path(__file__).parents[2] / "../shared/zoo"


class Net(nn.Sequential):
    def __init__(self, num_classes: int = 4) -> None:
        super().__init__(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, num_classes)
        )


ARCH = f"{Path(__file__)}:Net"


def changed(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.5)
    return network


def written(path: Path, **given: object) -> tuple[nn.Module, Path]:
    """Loads a source, halves its parameters, writes it into a folder."""
    source = read_source(path)
    network = changed(load_classifier(source, **given).network)
    out = path.parent / "out"
    out.mkdir()
    for name, data in source.repaired(network).items():
        (out / name).write_bytes(data)
    return network, out


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("keys", [(), ("net",), ("state_dict",), ("state", "model")])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_the_layout_comes_back(keys, prefix, tmp_path):
    weights = OrderedDict((prefix + k, v) for k, v in Net().state_dict().items())
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1).state_dict()
    content: object = weights
    for key in reversed(keys):
        content = {key: content, "epoch": 3, "optimizer": optimizer, "acc": np.float64(0.5)}
        content["args"] = argparse.Namespace(lr=0.1)
    torch.save(content, tmp_path / "model.th")
    network, out = written(tmp_path / "model.th", arch=ARCH, num_classes=4)
    back = torch.load(out / "repaired.th", weights_only=False)
    for key in keys:
        assert back["args"] == argparse.Namespace(lr=0.1)
        assert back["acc"] == 0.5
        assert back["optimizer"]["param_groups"][0]["lr"] == 0.1
        back = back[key]
    assert list(back) == list(weights)
    assert type(back) is OrderedDict
    assert same({k.removeprefix(prefix): v for k, v in back.items()}, network.state_dict())
    assert same(load_file(out / "repaired.safetensors"), network.state_dict())


@pytest.mark.parametrize("value", [np.dtype(">f4"), np.dtype("U5"), np.arange(3.0), np.int64(3)])
def test_what_numpy_made_comes_back(value, tmp_path):
    torch.save({"model": Net().state_dict(), "x": {"y": value}}, tmp_path / "model.pth")
    _, out = written(tmp_path / "model.pth", arch=ARCH, num_classes=4)
    read_weights_file(out / "repaired.pth")
    back = torch.load(out / "repaired.pth", weights_only=False)["x"]["y"]
    assert type(back) is type(value)
    assert np.array_equal(back, value)


def test_safetensors_keep_prefix_and_metadata(tmp_path):
    named = {f"module.{k}": v for k, v in Net().state_dict().items()}
    save_file(named, tmp_path / "a.safetensors", metadata={"format": "pt"})
    network, out = written(tmp_path / "a.safetensors", arch=ARCH, num_classes=4)
    assert [file.name for file in out.iterdir()] == ["repaired.safetensors"]
    back = load_file(out / "repaired.safetensors")
    assert same({k.removeprefix("module."): v for k, v in back.items()}, network.state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_come_back(dtype, tmp_path):
    weights = {k: v.to(dtype) for k, v in Net().state_dict().items()}  # the counter too
    torch.save(weights, tmp_path / "model.pt")
    source = read_source(tmp_path / "model.pt")
    network = load_classifier(source, arch=ARCH, num_classes=4).network
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    (tmp_path / "back.pt").write_bytes(source.repaired(network)["repaired.pt"])
    back = torch.load(tmp_path / "back.pt")
    assert same(back, weights), "unchanged weights come back to the bit"
    assert {tensor.dtype for tensor in back.values()} == {dtype}


def test_other_weights_beside_are_told(tmp_path):
    torch.save({"model": Net().state_dict(), "ema": Net().state_dict()}, tmp_path / "m.pt")
    note, warning = read_source(tmp_path / "m.pt").notes
    assert "under 'model' alone, not those under 'ema'" in note
    assert "--entry ema" in warning


# BackdoorBench, ANP


def attack_result(name: str, network: nn.Module) -> dict[str, object]:
    """As BackdoorBench's save_attack_result lays it out."""
    index = np.arange(6, dtype=np.int64)
    part = {"original_index_array": index, "poison_indicator": index[::-1] > 2}
    return {
        "model_name": name,
        "num_classes": 7,
        "model": network.state_dict(),
        "data_path": "../data",
        "img_size": (32, 32, 3),
        "clean_data": "cifar10",
        "bd_train": {**part, "bd_data_container": {"data_dict": {0: {"path": "a.png"}}}},
        "bd_test": part,
    }


@pytest.mark.parametrize(
    ("name", "make"), [("preactresnet18", preactresnet18), ("resnet18", resnet18)]
)
def test_backdoorbench_needs_no_arch(name, make, tmp_path):
    torch.save(attack_result(name, make(7)), tmp_path / "attack_result.pt")
    source = read_source(tmp_path / "attack_result.pt")
    model = load_classifier(source)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 7)
    assert source.stated.input_size == (3, 32, 32)
    assert model.mean.flatten().tolist() == pytest.approx([0.4914, 0.4822, 0.4465])
    (tmp_path / "r.pt").write_bytes(source.repaired(changed(model.network))["repaired.pt"])
    back = torch.load(tmp_path / "r.pt", weights_only=False)
    assert same(back["model"], model.network.state_dict())
    assert back["bd_train"]["original_index_array"].tolist() == list(range(6))
    assert back["bd_test"]["poison_indicator"].dtype == bool
    assert isinstance(back["bd_test"]["poison_indicator"], np.ndarray)


def test_backdoorbenchs_resnet18_of_torchvision(tmp_path):
    pytest.importorskip("torchvision")
    network = build_network("torchvision:resnet18", 7)
    torch.save(attack_result("resnet18", network), tmp_path / "attack_result.pt")
    model = load_classifier(tmp_path / "attack_result.pt")
    assert same(model.network.state_dict(), network.state_dict())


def test_a_defense_result_states_less(tmp_path):
    content = {"model_name": "preactresnet18", "num_classes": 7, "acc": 0.9}
    torch.save({**content, "model": preactresnet18(7).state_dict()}, tmp_path / "d.pt")
    source = read_source(tmp_path / "d.pt")
    assert load_classifier(source).network.linear.out_features == 7
    assert source.stated.mean is None


@pytest.mark.parametrize("make", [resnet18, resnet34, preactresnet18])
def test_built_in_networks_are_found_by_their_names(make, tmp_path):
    network = make(5).eval()
    torch.save(network.state_dict(), tmp_path / "model_last.th")
    model = load_classifier(tmp_path / "model_last.th")
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model(images), network(images))


def test_names_count_not_positions(tmp_path):
    weights = dict(preactresnet18(7).state_dict())
    names = list(weights)
    weights = {**weights, names[1]: weights.pop(names[1])}
    weights["layer1.0.first.weight"] = weights.pop("layer1.0.conv1.weight")
    torch.save({**attack_result("preactresnet18", nn.Linear(1, 1)), "model": weights},
               tmp_path / "a.pt")  # fmt: skip
    with pytest.raises(InputError, match=r"layer1\.0\.conv1\.weight"):
        load_classifier(tmp_path / "a.pt")


@pytest.mark.parametrize("classes", [3, 1, 10**9, "7", True, -7])
def test_a_false_number_of_classes(classes, tmp_path):
    content = {**attack_result("preactresnet18", preactresnet18(7)), "num_classes": classes}
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(InputError, match="classes"):
        load_classifier(tmp_path / "a.pt")


def test_what_is_not_stated_must_be_given(tmp_path):
    torch.save(Net().state_dict(), tmp_path / "a.pt")
    with pytest.raises(InputError, match="--arch"):
        load_classifier(tmp_path / "a.pt")
    with pytest.raises(InputError, match="--num-classes"):
        load_classifier(tmp_path / "a.pt", arch=f"{__file__}:fixed")
    with pytest.raises(InputError, match=r"knows no model|needs torchvision"):
        load_classifier(tmp_path / "a.pt", arch="torchvision:resnet0")


def fixed() -> nn.Module:
    return Net(4)


class Linear(nn.Module):
    """Of the layer called ``linear`` one might think that it is the last."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.linear, self.out = nn.Linear(12, 9), nn.Linear(9, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.linear(x.flatten(1)).relu())


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_the_last_layer_of_the_architecture_tells_the_classes(num_classes, tmp_path):
    network = Linear(num_classes)
    torch.save(network.state_dict(), tmp_path / "a.pt")
    source = read_source(tmp_path / "a.pt")
    assert count_classes(source, arch=f"{__file__}:Linear") == num_classes
    images = torch.rand(2, 3, 2, 2)
    model = load_classifier(source, arch=f"{__file__}:Linear")
    assert torch.equal(model(images), network(images))
    with pytest.raises(InputError, match="no built-in one fits"):
        count_classes(source)


# TrojanZoo


def trojanzoo_names(weights: dict[str, torch.Tensor]) -> OrderedDict[str, torch.Tensor]:
    """As TrojanZoo names the tensors of torchvision's ResNets, and saves them: bare."""
    parts = {"fc": "classifier"}
    return OrderedDict((f"{parts.get(k.split('.')[0], 'features')}.{k}", v)
                       for k, v in weights.items())  # fmt: skip


@pytest.mark.parametrize(("name", "comp"), [("resnet18", True), ("resnet18", False)])
def test_resnets_of_trojanzoo(name, comp, tmp_path):
    pytest.importorskip("torchvision")
    whole = build_network(f"torchvision:{name}", 6).eval()
    if comp:  # what TrojanZoo does for images of CIFAR-10
        whole.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        whole.maxpool = nn.Identity()
    weights = trojanzoo_names(whole.state_dict())
    torch.save(weights, tmp_path / "resnet18_comp_badnet.pth")
    network, out = written(tmp_path / "resnet18_comp_badnet.pth")  # neither arch nor classes
    network.eval()
    back = torch.load(out / "repaired.pth")
    assert list(back) == list(weights)
    assert type(back) is OrderedDict
    changed(whole)
    images = torch.rand(2, 3, 32, 32)
    assert torch.allclose(network(images), whole(images), rtol=1e-4, atol=1e-5)
    named = f"shapprune.networks.trojanzoo:resnet?name={name}&comp={comp}"
    assert load_classifier(out / "repaired.pth", arch=named).network(images).shape == (2, 6)
    other = f"shapprune.networks.trojanzoo:resnet?name=resnet34&comp={comp}"
    with pytest.raises(InputError, match="missing"):
        load_classifier(out / "repaired.pth", arch=other)


def test_the_net_of_trojanzoo(tmp_path):
    """Two convolutions, pooled, and two linear layers: 1 × 28 × 28 pixels give 9,216 features."""
    shapes = {
        "features.conv1": (32, 1, 3, 3),
        "features.conv2": (64, 32, 3, 3),
        "classifier.fc1": (128, 9216),
        "classifier.fc2": (10, 128),
    }
    weights = OrderedDict()
    for layer, shape in shapes.items():
        weights[f"{layer}.weight"] = torch.randn(shape) / shape[-1]
        weights[f"{layer}.bias"] = torch.randn(shape[0])
    torch.save(weights, tmp_path / "net.pth")
    model = load_classifier(tmp_path / "net.pth")
    x = images = torch.rand(2, 1, 28, 28)
    for layer in ("features.conv1", "features.conv2"):
        x = F.conv2d(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"]).relu()
    x = F.max_pool2d(x, 2).flatten(1)
    x = F.linear(x, weights["classifier.fc1.weight"], weights["classifier.fc1.bias"]).relu()
    x = F.linear(x, weights["classifier.fc2.weight"], weights["classifier.fc2.bias"])
    assert torch.allclose(model(images), x, atol=1e-5)


@pytest.mark.parametrize(
    "value", [np.array([object()]), np.array([(1, 2)], dtype=[("a", "i4"), ("b", "O")])]
)
def test_numpy_objects_are_refused(value, tmp_path):
    with open(tmp_path / "a.pt", "wb") as file:
        try:
            torch.save({"model": Net().state_dict(), "x": value}, file)
        except Exception:
            pytest.skip("this value cannot be pickled")
    with pytest.raises(InputError):
        read_weights_file(tmp_path / "a.pt")


# Hugging Face folders


def test_a_timm_folder(tmp_path):
    timm = pytest.importorskip("timm")
    hub = pytest.importorskip("timm.models._hub")
    network = timm.create_model("resnet10t", num_classes=3).eval()
    config = {"label_names": ["ape", "bee", "cat"]}
    hub.save_for_hf(network, tmp_path / "m", model_config=config, safe_serialization=True)
    source = read_source(tmp_path / "m")
    model = load_classifier(source)
    assert source.stated.class_names == ("ape", "bee", "cat")
    assert source.stated.input_size == (3, 176, 176)
    assert model.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    repaired, out = written(tmp_path / "m")
    again = timm.create_model(
        "resnet10t", num_classes=3, checkpoint_path=str(out / "model.safetensors")
    )
    assert same(again.state_dict(), repaired.state_dict())


VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
       "intermediate_size": 64, "image_size": 32, "patch_size": 8}  # fmt: skip
CLASSIFIERS = {
    "ViTForImageClassification": VIT,
    "BeitForImageClassification": VIT,
    "DeiTForImageClassification": VIT,
    "DeiTForImageClassificationWithTeacher": VIT,
    "ResNetForImageClassification": {"embedding_size": 8, "hidden_sizes": [8, 16],
                                     "depths": [1, 1], "layer_type": "basic", "image_size": 32},
}  # fmt: skip


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_transformers_folder(kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    kind, sizes = getattr(transformers, kind), CLASSIFIERS[kind]
    theirs = kind(kind.config_class(id2label=dict(enumerate("abc")), **sizes)).eval()
    folder = tmp_path / "m"
    theirs.save_pretrained(folder)
    facts = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))
    source = read_source(folder)
    model = load_classifier(source)
    assert source.stated.class_names == ("a", "b", "c")
    assert source.stated.input_size == (3, 32, 32)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model(images), theirs((images - 0.5) / 0.25).logits)
    network, out = written(folder)
    again = kind.from_pretrained(out).eval()
    torch.testing.assert_close(again(images).logits, network(images))
    assert not torch.equal(again(images).logits, theirs(images).logits)
    for lie in ({"hidden_size": 10**9}, {"num_hidden_layers": 10**6}, {"model_type": "gpt2"}):
        changed_config = {**json.loads((folder / "config.json").read_text()), **lie}
        (folder / "config.json").write_text(json.dumps(changed_config))
        with pytest.raises(InputError):
            load_classifier(folder)


def test_channels_blue_first_and_a_crop(tmp_path):
    """All that a folder states, on the way from a photograph to the network."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        image_size=32, patch_size=8, id2label=dict(enumerate("abc")))  # fmt: skip
    folder = tmp_path / "m"
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    facts = {"image_processor_type": "MobileViTImageProcessor", "size": {"shortest_edge": 40},
             "crop_size": {"height": 32, "width": 32}, "do_flip_channel_order": True,
             "do_pad": True}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))
    source = read_source(folder)
    model = load_classifier(source)
    given = []
    model.network.vit.register_forward_pre_hook(
        lambda _, a, k: given.append(a[0] if a else k["pixel_values"]), with_kwargs=True
    )
    images = torch.rand(2, 3, 32, 32)
    model(images)
    assert torch.equal(given[0], images.flip(1))
    notes = source.stated.image_notes((3, 32, 32))
    assert "not followed: do_pad" in notes[0]
    assert "blue first" in notes[1]


def test_a_name_of_the_hub_without_its_prefix_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="a model of the hub is named hf:org/name"):
        read_source("org/name")
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "nam").touch()
    with pytest.raises(InputError, match="did you mean 'nam'"):
        read_source("org/name")


def test_a_missing_hub_library_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install 'shapprune\[hub\]'"):
        read_source("hf:org/name")


def test_no_network_is_told(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    def fails(*_, **__):
        raise OSError("no route to\nhost")

    monkeypatch.setattr(hub, "snapshot_download", fails)
    with pytest.raises(InputError, match="without a network, name a local folder"):
        read_source("hf:org/name")


# inspect


def test_inspect_lists(tmp_path, capsys):
    torch.save({"net": Net().state_dict(), "epoch": 3}, tmp_path / "a.pth")
    assert main(["inspect", str(tmp_path / "a.pth")]) == 0
    said = capsys.readouterr().out
    for line in ("epoch: int 3", "net.0.weight float32 (4, 3, 3, 3)", "not allowed: none"):
        assert line in said


def test_inspect_names_what_a_pickle_asks_for(tmp_path, capsys):
    torch.save(Net(), tmp_path / "whole.pth")
    assert main(["inspect", str(tmp_path / "whole.pth")]) == 2
    told = capsys.readouterr()
    assert "torch.nn.modules.conv.Conv2d" in told.out
    assert len(told.err.splitlines()) == 1


# The user's own loading code


def test_the_zoos_own_code_loads_what_comes_back(tmp_path):
    if not ZOO.is_dir():
        pytest.skip("../shared/zoo is missing")
    source = read_source(ZOO / "cifar10_badnets_target8.pth")
    arch = f"{ZOO / 'arch.py'}:SmallVGG"
    network = changed(load_classifier(source, arch=arch, num_classes=10).network)
    (tmp_path / "repaired.pth").write_bytes(source.repaired(network)["repaired.pth"])
    code = (
        "import sys, torch; sys.path.insert(0, sys.argv[1]); from arch import SmallVGG\n"
        "print(SmallVGG().load_state_dict(torch.load(sys.argv[2], weights_only=False)['net']))"
    )
    command = [sys.executable, "-c", code, str(ZOO), str(tmp_path / "repaired.pth")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "All keys matched" in done.stdout, done.stderr
