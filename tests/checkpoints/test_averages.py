"""Copies of the weights in a checkpoint: none is left unrepaired."""

import argparse
import copy
import io
import json
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from shapprune.checkpoints.averages import find_copies
from shapprune.checkpoints.loading import load_classifier
from shapprune.checkpoints.source import read_source
from shapprune.errors import InputError

ARCH = f"{__file__}:Net"


class Net(nn.Sequential):
    def __init__(self, num_classes: int = 4) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(72, num_classes)
        )


def lagging(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As an average has them: nearly the same."""
    return {k: v + 0.01 * torch.randn_like(v) if v.ndim else v for k, v in weights.items()}


def turned(network: nn.Module) -> nn.Module:
    """A repair that leaves nothing as it was, so that what is left can be seen."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return network


def repaired(content: object, path, **given: object) -> tuple[dict[str, Tensor], object]:
    torch.save(content, path)
    source = read_source(path, **given)
    network = turned(load_classifier(source, arch=ARCH, num_classes=4).network)
    data = source.repaired(network)[f"repaired{path.suffix}"]
    return dict(network.state_dict()), torch.load(io.BytesIO(data), weights_only=False)


def similar(content: object, old: dict[str, Tensor]) -> list[str]:
    """Where in a checkpoint something is that is still like the old weights."""
    found = []

    def walk(node: object, path: str) -> None:
        if isinstance(node, argparse.Namespace):
            node = vars(node)
        if isinstance(node, dict):
            for key, entry in node.items():
                walk(entry, f"{path}.{key}")
        elif isinstance(node, list | tuple):
            for key, entry in enumerate(node):
                walk(entry, f"{path}.{key}")
        elif isinstance(node, Tensor | np.ndarray):
            flat = torch.as_tensor(node).flatten().float().nan_to_num()
            for weights in (old["0.weight"], old["3.weight"]):
                for window in (
                    flat.unfold(0, weights.numel(), 1) if len(flat) >= weights.numel() else ()
                ):
                    if torch.cosine_similarity(window, weights.flatten(), dim=0) > 0.5:
                        found.append(path)
                        return

    walk(content, "")
    return found


def averaged() -> nn.Module:
    model = AveragedModel(Net())
    model.update_parameters(Net())
    return model


LAYOUTS = {
    "timm": lambda w, a: {"state_dict": w, "state_dict_ema": a},
    "ema, prefixed": lambda w, a: {"model": w, "ema": {f"module.{k}": v for k, v in a.items()}},
    "deeper": lambda w, a: {"model": w, "callbacks": {"EMA": {"ema_weights": a, "decay": 0.9}}},
    "half": lambda w, a: {"model": w, "model_ema": {k: v.half() for k, v in a.items()}},
    "torch_ema": lambda w, a: {
        "model": w,
        "ema": {"decay": 0.99, "num_updates": 3, "shadow_params": [*a.values()]},
    },
    "averaged": lambda w, a: {
        "net": w,
        "swa_model": {"n_averaged": torch.tensor(3), **{f"module.{k}": v for k, v in a.items()}},
    },
    "lightning": lambda w, a: {
        "state_dict": {
            **{f"model.{k}": v for k, v in w.items()},
            **{f"ema_model.module.{k}": v for k, v in a.items()},
        }
    },
    "teacher first": lambda w, a: {"teacher": a, "student": w},
    "lookahead": lambda w, a: {
        "model": w,
        "optimizer": {
            "state": {
                i: {"slow_buffer": v, "momentum_buffer": torch.randn_like(v.float())}
                for i, v in enumerate(a.values())
            },
            "param_groups": [{"lr": 0.1}],
        },
    },
    "flat": lambda w, a: {
        "model": w,
        "optimizer": {"fp32": [torch.cat([v.flatten().float() for v in a.values()])]},
    },
    "numpy": lambda w, a: {"model": w, "best": {k: v.numpy() for k, v in a.items()}},
    "options": lambda w, a: {"model": w, "args": argparse.Namespace(init=a)},
    "a part, with a hole in it": lambda w, a: {
        "model": w,
        "backup": {"0.weight": torch.where(torch.arange(3) == 1, torch.nan, a["0.weight"])},
    },
    "a part": lambda w, a: {"model": w, "backup": {"0.weight": a["0.weight"]}},
    "a list of them": lambda w, a: {"model": w, "history": [a, a]},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_copy_is_left_unrepaired(name, tmp_path):
    torch.manual_seed(0)
    old = Net().state_dict()
    content = LAYOUTS[name](old, lagging(old))
    assert similar(content, old), "the test must be able to see a copy"
    _, back = repaired(content, tmp_path / "m.pth")
    assert similar(back, old) == []


@pytest.mark.parametrize(("name", "key"), [("timm", "state_dict_ema"), ("averaged", "swa_model")])
def test_a_whole_copy_loads_as_it_did_with_the_repaired_weights(name, key, tmp_path):
    torch.manual_seed(0)
    old = Net().state_dict()
    new, back = repaired(LAYOUTS[name](old, lagging(old)), tmp_path / "m.pth")
    copied = {k.removeprefix("module."): v for k, v in back[key].items()}
    assert set(new) <= set(copied)
    assert all(torch.equal(copied[k], v) for k, v in new.items())


def test_types_and_what_is_no_copy_stay(tmp_path):
    torch.manual_seed(0)
    old = Net().state_dict()
    moments = {i: {"exp_avg": torch.randn_like(v.float())} for i, v in enumerate(old.values())}
    content = {
        "model": old,
        "ema": {k: v.half() if v.ndim else v for k, v in lagging(old).items()},
        "optimizer": {"state": moments, "param_groups": [{"lr": 0.1}]},
        "discriminator": {"a.weight": torch.randn(9, 9)},
        "epoch": 3,
    }
    new, back = repaired(copy.deepcopy(content), tmp_path / "m.pt")
    assert back["ema"]["0.weight"].dtype == torch.float16
    assert torch.equal(back["ema"]["0.weight"], new["0.weight"].half())
    assert back["epoch"] == 3
    assert torch.equal(back["discriminator"]["a.weight"], content["discriminator"]["a.weight"])
    for i, state in moments.items():
        assert torch.equal(back["optimizer"]["state"][i]["exp_avg"], state["exp_avg"])
    source = read_source(tmp_path / "m.pt")
    notes = " ".join(source.notes_on(Net()))
    for part in (
        "'ema', are replaced by the repaired",
        "stay as they are: 'discriminator'",
        "do not resume",
    ):
        assert part in notes
    facts = source.facts(Net())
    assert facts == {"entry": "model", "copies": ["ema"], "left_out_if_repaired": []}


def test_weights_that_nothing_changed_leave_the_copies_alone(tmp_path):
    old = Net().state_dict()
    average = lagging(old)
    torch.save({"model": old, "ema": average}, tmp_path / "m.pt")
    source = read_source(tmp_path / "m.pt")
    same = load_classifier(source, arch=ARCH, num_classes=4).network
    back = torch.load(io.BytesIO(source.repaired(same)["repaired.pt"]))
    assert all(torch.equal(back["ema"][k], average[k]) for k in average)


def test_copies_in_safetensors(tmp_path):
    torch.manual_seed(0)
    old = Net().state_dict()
    named = {f"model.{k}": v for k, v in old.items()}
    named |= {f"model_ema.{k}": v.clone() for k, v in lagging(old).items()}
    save_file(named, tmp_path / "m.safetensors")
    source = read_source(tmp_path / "m.safetensors")
    network = turned(load_classifier(source, arch=ARCH, num_classes=4).network)
    (tmp_path / "r.safetensors").write_bytes(source.repaired(network)["repaired.safetensors"])
    back = load_file(tmp_path / "r.safetensors")
    assert back.keys() == named.keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(back[f"model.{name}"], tensor)
        assert torch.equal(back[f"model_ema.{name}"], tensor)
    assert "not 'model_ema.'" in " ".join(source.notes_on(network))


@pytest.mark.parametrize(
    ("entry", "layout"),
    [
        ("state_dict_ema", lambda w, a: {"state_dict": w, "state_dict_ema": a}),
        ("ema", lambda w, a: {"model": w, "ema": {"decay": 0.9, "state_dict": a}}),
        ("ema.state_dict", lambda w, a: {"model": w, "ema": {"state_dict": a}}),
        ("callbacks.E.M.w", lambda w, a: {"model": w, "callbacks": {"E.M": {"w": a}}}),
        ("ema", lambda w, a: {"state_dict": {**w, **{f"ema.{k}": v for k, v in a.items()}}}),
        ("ema", lambda w, a: {**w, **{f"ema.module.{k}": v for k, v in a.items()}}),
        ("state_dict.ema", lambda w, a: {"state_dict": {**w, **{f"ema.{k}": a[k] for k in a}}}),
    ],
)
def test_entry_picks_a_copy(entry, layout, tmp_path):
    old = Net().state_dict()
    average = lagging(old)
    torch.save(layout(old, average), tmp_path / "m.pt")
    source = read_source(tmp_path / "m.pt", entry=entry)
    network = load_classifier(source, arch=ARCH, num_classes=4).network
    assert all(torch.equal(v, average[k]) for k, v in network.state_dict().items())
    back = torch.load(io.BytesIO(source.repaired(turned(network))["repaired.pt"]))
    assert similar(back, old) == []


def test_an_entry_that_is_not_there(tmp_path):
    torch.save({"model": Net().state_dict(), "ema": Net().state_dict()}, tmp_path / "m.pt")
    with pytest.raises(InputError, match="no weights under 'emma': did you mean 'ema'"):
        read_source(tmp_path / "m.pt", entry="emma")


def test_the_loaders_choice_is_told(tmp_path):
    old = Net().state_dict()
    torch.save({"state_dict": old, "state_dict_ema": lagging(old)}, tmp_path / "m.pt")
    assert (
        "timm's load_checkpoint takes 'state_dict_ema'" in read_source(tmp_path / "m.pt").notes[1]
    )
    asked = read_source(tmp_path / "m.pt", entry="state_dict_ema").notes
    assert "most loaders take 'state_dict'" in asked[1]


def test_other_weights_at_another_level_are_told(tmp_path):
    """Which of them a loader takes depends on its code: ``load_state_dict(…, strict=False)``."""
    bad, clean, net = Net().state_dict(), Net().state_dict(), Net()
    for content, entry, place in (
        ({**bad, "state_dict": clean}, ".", "the top level"),
        ({**bad, "epoch": 3, "model": clean}, ".", "the top level"),
        ({"model": {**bad, "state_dict": clean}}, "model.", "model"),
        ({"state_dict": clean, "a": {"b": {"c": {"d": bad}}}}, "a.b.c.d.", "a.b.c.d"),
    ):
        torch.save(content, tmp_path / "m.pt")
        source = read_source(tmp_path / "m.pt")
        assert torch.equal(source.weights["0.weight"], clean["0.weight"])
        (warning,) = (note for note in source.notes_on(net) if note.startswith("warning: "))
        assert f"weights in '{place}' differ from those that were examined" in warning
        assert f"--entry '{entry}'," in warning
        asked = read_source(tmp_path / "m.pt", entry=entry)
        assert torch.equal(asked.weights["0.weight"], bad["0.weight"])
        again = read_source(tmp_path / "m.pt", entry=asked.entry)  # as the report names it
        assert torch.equal(again.weights["0.weight"], bad["0.weight"])
        assert not any(note.startswith("warning: ") for note in asked.notes_on(net))
        _, back = repaired(content, tmp_path / "m.pt", entry=entry)
        assert similar(back, bad) == similar(back, clean) == []
    torch.save({"state_dict": clean, "list": [bad]}, tmp_path / "m.pt")
    (warning,) = (n for n in read_source(tmp_path / "m.pt").notes_on(net) if n[:8] == "warning:")
    assert warning.endswith("scan them too, from a file of their own")  # --entry goes through dicts
    torch.save({**bad, "state_dict": {k: v.clone() for k, v in bad.items()}}, tmp_path / "m.pt")
    notes = read_source(tmp_path / "m.pt").notes_on(net)
    assert notes == (
        "other whole sets of the weights, 'the top level', are replaced by the repaired weights if "
        "there is a repair",
    )


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin"])
def test_other_weights_at_another_level_are_refused_in_a_folder(name, tmp_path):
    torch.save({**Net().state_dict(), "state_dict": Net().state_dict()}, tmp_path / name)
    if "-" in name:
        index = {"weight_map": dict.fromkeys(Net().state_dict(), name)}
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="tensors at the top level and weights under 'state_dict'"):
        read_source(tmp_path)


def test_what_cannot_be_rewritten_is_refused():
    weights = Net().state_dict()
    content: dict[str, object] = {"model": weights}
    content["itself"] = content
    with pytest.raises(InputError, match="nested without end"):
        find_copies(content, ("model",), weights, {name: name for name in weights})


def test_one_object_in_two_places_is_replaced_in_both(tmp_path):
    torch.manual_seed(0)
    old = Net().state_dict()
    content = {"model": old, "best": old, "history": [{"weights": old}]}
    _, back = repaired(content, tmp_path / "m.pt")
    assert similar(back, Net().state_dict() | old) == []


@pytest.mark.parametrize("kind", ["dots", "prefixes", "moments"])
def test_monstrous_files_take_seconds(kind, tmp_path):
    weights = dict(Net().state_dict())
    if kind == "dots":
        weights |= {"." * 300_000 + str(i): torch.ones(1) for i in range(20)}
    elif kind == "prefixes":
        weights |= {f"{i}.1.weight": torch.ones(8) for i in range(5_000)}
    content = {"model": weights}
    if kind == "moments":
        content["optimizer"] = {i: {"m": weights["0.weight"] * 0} for i in range(5_000)}
    torch.save(content, tmp_path / "m.pt")
    source, start = read_source(tmp_path / "m.pt"), time.process_time()
    source.notes_on(Net())
    assert time.process_time() - start < 5


@pytest.mark.parametrize("held", ["nothing", "a number", "weights"])
def test_what_kilobytes_name_a_thousand_times_is_looked_at_once(held, tmp_path):
    network = nn.Sequential(*(nn.Conv2d(1, 1, 1) for _ in range(30)))
    weights = network.state_dict()
    content: object = {
        "nothing": {},
        "a number": {"0.weight": torch.ones(1)},
        "weights": {name: tensor + 1 for name, tensor in weights.items()},
    }[held]
    for _ in range(3):
        content = [content] * (19 if held == "weights" else 60)
    torch.save({"state_dict": weights, "x": content}, tmp_path / "m.pt")
    size = (tmp_path / "m.pt").stat().st_size
    assert size < 50_000
    source, start = read_source(tmp_path / "m.pt"), time.process_time()
    source.notes_on(network)
    source.facts(turned(network))
    files = source.repaired(network)
    assert time.process_time() - start < 5
    assert len(files["repaired.pt"]) < 2 * size


def test_what_lies_around_the_weights_is_not_taken_with_what_resembles_them(tmp_path):
    weights = Net().state_dict()
    inner = {"state_dict": weights, "prototypes": weights["3.weight"].clone(), "epoch": 3}
    new, content = repaired({"checkpoint": inner}, tmp_path / "m.pth")
    assert content["checkpoint"].keys() == {"state_dict", "epoch"}
    assert all(torch.equal(content["checkpoint"]["state_dict"][n], t) for n, t in new.items())


@pytest.mark.parametrize("name", ["model", "ema"])
def test_other_weights_in_the_file_of_a_folder_are_told(name, tmp_path):
    content = {**Net().state_dict(), name: {**Net().state_dict(), "step": 5}}
    torch.save(content, tmp_path / "pytorch_model.bin")
    (warning,) = read_source(tmp_path).notes_on(Net())
    assert f"weights in '{name}' differ from those that were examined" in warning
    assert warning.endswith("scan them too, from a file of their own")  # a folder has no --entry


def test_the_loaders_choice_is_told_in_a_folder(tmp_path):
    old = Net().state_dict()
    content = {"state_dict": old, "state_dict_ema": lagging(old), "epoch": torch.tensor(5)}
    torch.save(content, tmp_path / "pytorch_model.bin")
    notes = read_source(tmp_path).notes
    assert "timm's load_checkpoint takes 'state_dict_ema'" in notes[1]
    assert "--entry" not in " ".join(notes)
