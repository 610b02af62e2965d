"""Whether neurons are found and masked in a stranger's network."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from bench_files import options
from shapprune.errors import InputError
from shapprune.running.runner import read
from shapprune_bench.studies import architectures
from shapprune_bench.studies.architectures import (
    Network,
    measure,
    randomise,
    report,
    study,
    try_out,
)
from shapprune_bench.studies.families import TIMM, TORCHVISION

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results" / "architectures"
ALL = [Network("torchvision", name) for name in TORCHVISION.split()]
ALL += [Network("timm", name) for name in TIMM.split()]


def net() -> nn.Module:
    layers = [nn.Conv2d(3, 40, 3, padding=1), nn.BatchNorm2d(40), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(160, 10)).eval()


class Secretive(nn.Module):
    """Counts its passes in a buffer: it is not left as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = net()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes += 1
        return self.inner(x)


def test_a_network_passes():
    facts = try_out(net(), 8)
    assert facts["reason"] is None
    assert (facts["neurons"], facts["removed"], facts["fx"]) == (40, 2, True)
    assert facts["float32"] <= 1e-5 < facts["effect"]


def test_a_network_that_is_changed_does_not_pass():
    assert try_out(Secretive(), 8)["reason"] == "the network was changed"


def test_a_network_whose_logits_are_not_finite_does_not_pass():
    broken = net()
    broken[-1].bias.data[0] = torch.inf
    with pytest.raises(InputError, match="NaN or infinite logits"):
        try_out(broken, 8)


def test_no_constants_are_left():
    network = net()
    network[0].bias.data.zero_()
    randomise(network)
    tensors = [*network.parameters(), network[1].running_mean, network[1].running_var]
    assert all(float(tensor.detach().std()) > 0 for tensor in tensors)


def test_what_a_network_raises_is_the_reason(monkeypatch):
    def build(task):
        raise RuntimeError("no such\n network")

    monkeypatch.setattr(architectures, "build", build)
    monkeypatch.setattr(architectures, "version", lambda library: "1")
    result = measure(Network("timm", "none"))
    assert result == {"reason": "RuntimeError: no such network", "libraries": {"timm": "1"}}


def test_results_that_there_are():
    done = [(task, read(RESULTS, task)) for task in ALL]
    text = report(done)["README.md"].decode()
    assert "134 of 134 pass; attention heads in 39; torch.fx traces 118" in text
    assert "| timm:cait_xxs24_224 | 224 | 30248 | 104 | 0e+00 |  | yes |" in text
    assert (RESULTS / "README.md").read_text(encoding="utf-8") == text


@pytest.mark.skipif(find_spec("timm") is not None, reason="timm is installed")
def test_a_library_that_is_missing_is_told():
    with pytest.raises(InputError, match=r"needs timm: pip install 'shapprune\[timm\]'"):
        study(options("architectures", rows=["timm:resnet18"]))
