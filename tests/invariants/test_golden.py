"""Scan and repair of the hand-wired network, number by number, as they were before the rooms.

Run as a script, it writes the numbers anew: do so where the method changes, and nowhere else.
"""

import json
from pathlib import Path

import pytest
import torch

from shapprune import pipeline
from shapprune.model.metrics import accuracy, attack_success_rate
from toys import TARGET, backdoored_net, toy_images, true_trigger

GOLDEN = Path(__file__).with_name("golden.json")


def numbers() -> dict[str, object]:
    """What came out: any other draw, order of draws or sum shows in the repaired weights."""
    torch.manual_seed(0)
    net = backdoored_net()
    result = pipeline.repair(net, *toy_images(), seed=0)
    unseen = toy_images(per_class=10, seed=1)
    judgement = result.scan.judgement
    return {
        "verdict": judgement.verdict,
        "targets": list(judgement.targets),
        "scores": [float(score) for score in judgement.scores],
        "accuracy": accuracy(result.model, *unseen),
        "asr": attack_success_rate(
            result.model, *unseen, stamp=true_trigger().stamp, target=TARGET
        ),
        "weights": {
            name: float(tensor.double().abs().sum())
            for name, tensor in result.model.state_dict().items()
        },
    }


def test_scan_and_repair_give_what_they_gave():
    now, before = numbers(), json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert now.keys() == before.keys()
    assert (now["verdict"], now["targets"]) == (before["verdict"], before["targets"])
    for name in ("scores", "accuracy", "asr", "weights"):  # other machines add in another order
        assert now[name] == pytest.approx(before[name], rel=1e-2, abs=1e-3), name


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(numbers(), indent=1) + "\n", encoding="utf-8")
