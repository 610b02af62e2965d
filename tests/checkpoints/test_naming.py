"""Names of wrappers, and what lies beside a network: found by names and shapes."""

import tracemalloc

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from shapprune.checkpoints.loading import load_classifier
from shapprune.checkpoints.naming import match
from shapprune.checkpoints.source import read_source
from shapprune.errors import InputError

ARCH = f"{__file__}:Net"


class Net(nn.Module):
    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten())
        self.fc = nn.Linear(72, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))


class Wrapped(nn.Module):
    """The user's own code may wrap the network, too."""

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        self.inner = Net(num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def prefixed(prefix: str):
    return lambda w: {prefix + k: v for k, v in w.items()}


def beside(**more: Tensor):
    return lambda w: {**{f"net.{k}": v for k, v in w.items()}, **more}


LAYOUTS = {
    "plain": prefixed(""),
    "lightning": prefixed("model."),
    "nested": prefixed("model.net.module._orig_mod."),
    "fsdp": prefixed("_fsdp_wrapped_module."),
    "compiled, inside": lambda w: {f"model._orig_mod.{k}": v for k, v in w.items()},
    "parallel features": lambda w: {k.replace("features.", "features.module."): w[k] for k in w},
    "backbone and head": lambda w: {
        (f"backbone.{k}" if k[:3] != "fc." else f"head.{k}"): v for k, v in w.items()
    },
    "backbone alone": lambda w: {
        (f"backbone.{k}" if k[:3] != "fc." else k): v for k, v in w.items()
    },
    "averaged": lambda w: {"n_averaged": torch.tensor(3), **prefixed("module.")(w)},
    "a loss": beside(**{"criterion.weight": torch.ones(4)}),
    "metrics": beside(**{"train_f1.tp": torch.ones(4), "acc.total": torch.tensor(1)}),
    "another head": beside(**{"projector.0.weight": torch.ones(9, 72)}),
    "counted operations": lambda w: {
        **w,
        "total_ops": torch.zeros(1),
        "features.0.total_params": torch.zeros(1),
    },
    "a loss, no prefix": lambda w: {**w, "loss_fn.weight": torch.ones(4), "epoch": torch.tensor(1)},
    "another order": lambda w: dict(reversed(prefixed("model.")(w).items())),
    "other things among them": lambda w: {"state_dict": {**w, "fc._extra_state": None}, "epoch": 1},
    "behind keys of their own": lambda w: {"run": {"best": w}},
    "an average first": lambda w: {**prefixed("ema.")({k: v * 0 for k, v in w.items()}),
                                   **prefixed("online_network.")(w)},
}  # fmt: skip


@pytest.mark.parametrize("arch", ["Net", "Wrapped"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_finds_the_tensors(name, arch, tmp_path):
    torch.manual_seed(0)
    weights = {k: torch.rand_like(v) if v.ndim else v for k, v in Net().state_dict().items()}
    torch.save(LAYOUTS[name](weights), tmp_path / "m.ckpt")
    source = read_source(tmp_path / "m.ckpt")
    network = load_classifier(source, arch=f"{__file__}:{arch}").network  # neither classes
    loaded = {k.removeprefix("inner."): v for k, v in network.state_dict().items()}
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[k], weights[k]) for k in weights)
    files = source.repaired(network)
    (tmp_path / "again.ckpt").write_bytes(files["repaired.ckpt"])
    again = torch.load(tmp_path / "again.ckpt")
    assert again.keys() == LAYOUTS[name](weights).keys(), "the layout that came in"


def test_what_is_ignored_is_told(tmp_path):
    torch.save(LAYOUTS["a loss"](Net().state_dict()), tmp_path / "m.ckpt")
    notes = read_source(tmp_path / "m.ckpt").notes_on(Net())
    assert notes[0] == "the weights' names begin with 'net.'"
    assert "ignored: 'criterion.weight'" in notes[1]


def test_weights_of_another_network_first(tmp_path):
    content = {"discriminator": {"a.weight": torch.ones(3, 3)}, "generator": Net().state_dict()}
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(InputError, match="also has weights under 'generator': see --entry"):
        load_classifier(tmp_path / "m.pt", arch=ARCH, num_classes=4)
    load_classifier(read_source(tmp_path / "m.pt", entry="generator"), arch=ARCH, num_classes=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {**w, "features.3.weight": torch.ones(8)}, "unexpected: 'features.3.weight'"),
        (lambda w: prefixed("module.")({**w, "layer.weight": torch.ones(8, 8)}), "'layer.weight'"),
        (lambda w: prefixed("m.")({**w, "layer.weight": torch.ones(8, 8)}), "'m.layer.weight'"),
        (lambda w: prefixed("m.")({k: v for k, v in w.items() if k != "fc.bias"}), "'fc.bias'"),
        # The same name and shape twice, in parts that carry prefixes of their own.
        (lambda w: {**{f"a.{k}": v for k, v in w.items() if k[0] == "f" and k != "fc.bias"},
                    "b.fc.bias": w["fc.bias"], "c.fc.bias": w["fc.bias"]}, "missing: 'fc.bias'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(change, message, tmp_path):
    torch.save(change(Net().state_dict()), tmp_path / "m.pt")
    with pytest.raises(InputError, match=message):
        load_classifier(tmp_path / "m.pt", arch=ARCH, num_classes=4)


def test_a_wrappers_normalisation_is_followed(tmp_path):
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6])
    for scale in (1, 255):
        named = {f"1.{k}": v for k, v in Net().state_dict().items()}
        named |= {"0.mean": mean.view(1, 3, 1, 1) * scale, "0.std": std * scale}
        torch.save(named, tmp_path / "m.pt")
        model = load_classifier(tmp_path / "m.pt", arch=ARCH)
        assert torch.allclose(model.mean.flatten(), mean)
        assert torch.allclose(model.std.flatten(), std)
        (_, note, *_) = read_source(tmp_path / "m.pt").notes_on(Net())
        assert "own mean and std are used" in note
        given = load_classifier(tmp_path / "m.pt", arch=ARCH, mean=0.5, std=0.5)
        assert given.mean.flatten().tolist() == [0.5]


def test_two_sets_of_weights():
    own = Net().state_dict()
    found = match(own, {**prefixed("a.")(own), **prefixed("momentum_a.")(own)})
    assert found.prefix == "a."
    assert list(found.copies) == ["momentum_a."]
    assert found.ignored == found.foreign == ()


@pytest.mark.parametrize("arch", [ARCH, None])
def test_names_of_many_dots_take_little_memory(arch, tmp_path):
    """Their ends together are hundreds of times as long as they are."""
    names = ["a." * 490 + str(i) for i in range(2_000)]
    save_file({name: torch.zeros(4) for name in names}, tmp_path / "m.safetensors")
    source = read_source(tmp_path / "m.safetensors")
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            load_classifier(source, arch=arch, num_classes=4)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 20 * (tmp_path / "m.safetensors").stat().st_size
