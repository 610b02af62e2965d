"""Models of half precision: examined in float32, given back in their own types."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from shapprune.cli.main import main
from shapprune.method.recovery import recover_images
from shapprune.model.classifier import Classifier
from shapprune.model.metrics import accuracy, attack_success_rate
from shapprune.pipeline import repair, scan
from toys import SIDE, TARGET, backdoored_net, seeded, snapshot, toy_images, true_trigger, unchanged

either = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])


def kinds(weights: dict[str, torch.Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()}


@either
def test_a_model_of_half_precision(dtype):
    model = Classifier(backdoored_net(), mean=0.25, std=0.5)
    model.network.to(dtype)  # the normalisation around it is float32
    images, labels = toy_images()
    images = images / 2 + 0.25
    before = snapshot(model)
    result = repair(model, images, labels)
    assert unchanged(model, before)
    assert result.scan.targets == (TARGET,)
    assert kinds(result.model.state_dict()) == kinds(model.state_dict())
    assert result.model.network.conv1.weight.dtype == dtype
    unseen, truth = toy_images(per_class=10, seed=1)
    wanted = {"stamp": lambda x: (true_trigger().stamp(x.float() * 2 - 0.5) / 2 + 0.25).to(dtype)}
    half = (unseen / 2 + 0.25).to(dtype)
    assert attack_success_rate(model, half, truth, **wanted, target=TARGET) > 0.9
    assert attack_success_rate(result.model, half, truth, **wanted, target=TARGET) < 0.05
    assert accuracy(result.model, half, truth) > accuracy(model, half, truth) - 0.05
    # Nothing was lost on the way: the scan is that of the same weights in float32.
    whole = scan(Classifier(backdoored_net().to(dtype).float(), 0.25, 0.5), images, labels)
    assert whole.judgement == result.scan.judgement


@either
def test_a_clean_model_comes_back_itself(dtype):
    model = backdoored_net()
    model.head.weight.data[TARGET, 16:20] = 0  # what reads the backdoor's channel
    model.to(dtype)
    result = repair(model, *toy_images())
    assert result.scan.verdict == "clean"
    assert result.model is model
    assert model.head.weight.dtype == dtype


@either
def test_images_recovered_from_half_precision(dtype):
    size = (3, SIDE, SIDE)
    found, whole = (
        recover_images(net, input_size=size, per_class=1, steps=4, generator=seeded())
        for net in (backdoored_net().to(dtype), backdoored_net().to(dtype).float())
    )
    assert found.images.dtype == torch.float32
    assert torch.equal(found.images, whole.images)


def test_a_checkpoint_of_half_precision(tmp_path):
    dtype = torch.float16
    images, labels = toy_images()
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "toys.npz", train_images=pixels, train_labels=labels.numpy())
    weights = {f"module.{k}": v.to(dtype) for k, v in backdoored_net().state_dict().items()}
    torch.save({"epoch": 7, "state_dict": weights}, tmp_path / "net.pth")
    arch = f"{Path(__file__).parents[1] / 'toys.py'}:backdoored_net"
    command = ["repair", tmp_path / "net.pth", "--arch", arch, "--num-classes", 8, "--images"]
    command += [tmp_path / "toys.npz", "--out", tmp_path / "out"]
    assert main([str(part) for part in command]) == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["target_classes"] == [TARGET]
    back = torch.load(tmp_path / "out" / "repaired.pth")
    assert back["epoch"] == 7
    assert kinds(back["state_dict"]) == kinds(weights)
    plain = load_file(tmp_path / "out" / "repaired.safetensors")
    assert kinds({f"module.{k}": v for k, v in plain.items()}) == kinds(weights)
    assert any(not torch.equal(back["state_dict"][k], weights[k]) for k in weights)
