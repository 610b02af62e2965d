"""The main path on the hand-wired network, and what it refuses."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from shapprune import pipeline
from shapprune.detection import Detection
from shapprune.errors import InputError
from shapprune.metrics import accuracy, attack_success_rate
from shapprune.neurons import remove_neurons
from shapprune.pipeline import repair, scan
from shapprune.recovery import Recovery
from shapprune.stages import Stage
from toys import (
    CLASSES,
    TARGET,
    backdoor_neuron,
    backdoored_net,
    snapshot,
    toy_images,
    true_trigger,
    unchanged,
)

IMAGES, LABELS = toy_images()
UNSEEN = toy_images(per_class=10, seed=1)


@pytest.fixture(scope="module")
def net():
    return backdoored_net()


@pytest.fixture(scope="module")
def repaired(net):
    return repair(net, IMAGES, LABELS, seed=0)


def test_the_backdoor_is_found_and_removed(net, repaired):
    before = snapshot(net)
    assert repaired.scan.verdict == "backdoored"
    assert repaired.scan.targets == (TARGET,)
    assert repaired.repair.targets == (TARGET,)
    assert backdoor_neuron() in repaired.repair.pruning.removed
    wanted = {"stamp": true_trigger().stamp, "target": TARGET}
    assert attack_success_rate(net, *UNSEEN, **wanted) > 0.9
    assert attack_success_rate(repaired.model, *UNSEEN, **wanted) < 0.05
    assert accuracy(repaired.model, *UNSEEN) > accuracy(net, *UNSEEN) - 0.05
    assert unchanged(net, before)


def test_the_repaired_state_dict_fits_the_original(net, repaired):
    original, copy = net.state_dict(), repaired.model.state_dict()
    assert {k: v.shape for k, v in original.items()} == {k: v.shape for k, v in copy.items()}
    assert all(v.is_contiguous() for v in copy.values())


def test_a_repair_repeats_its_scan_and_counts_its_cost(net, repaired):
    again = scan(net, IMAGES, LABELS, seed=0)
    assert [i.norms for i in again.inversions] == [i.norms for i in repaired.scan.inversions]
    assert again.targets == repaired.scan.targets
    assert repaired.stages[: len(again.stages)] == repaired.scan.stages
    assert all(stage.seconds >= 0 for stage in repaired.stages)
    assert again.inversions[0].passes > 0


def test_forced_plain_repair_of_a_network_without_backdoor():
    net = backdoored_net()
    from shapprune.neurons import find_neurons

    clean = remove_neurons(net, find_neurons(net, IMAGES), [backdoor_neuron()])
    result = repair(clean, IMAGES, LABELS, force_targets=[1], unlearn=False, count=2, seed=0)
    assert result.repair.targets == (1,)
    assert not result.repair.unlearned
    assert len(result.repair.pruning.removed) == 2
    if not result.scan.targets:  # what a user gets without --force-target
        assert repair(clean, IMAGES, LABELS, seed=0).model is clean


def test_progress_tells_each_stage_to_its_end(net):
    seen: dict[str, float] = {}
    scan(net, IMAGES, LABELS, progress=lambda stage, share: seen.update({stage: share}))
    assert len(seen) >= 2
    assert set(seen.values()) == {1.0}


def test_another_repair_of_a_tried_class_starts_from_its_triggers(net, repaired, monkeypatch):
    monkeypatch.setattr(pipeline, "scan", lambda *_, **__: repaired.scan)
    monkeypatch.setattr(pipeline, "refine_triggers", lambda *_, **__: pytest.fail("done before"))
    plain = repair(net, IMAGES, LABELS, unlearn=False, count=1, seed=0)
    assert plain.repair.triggers == repaired.scan.trials[0].triggers
    assert not plain.repair.unlearned
    assert len(plain.repair.pruning.removed) == 1
    assert len(plain.stages) == len(repaired.scan.stages) + 3  # values, pruning, fine-tuning


@pytest.mark.parametrize(
    ("recovered", "rates", "tried", "targets"),  # rates: ASR before and after, agreement
    [
        (False, [(0.94, 0.0, 0.9)] * 3, [0, 1, 2], ()),  # triggers that cease to work
        (False, [(1.0, 0.11, 0.9)] * 3, [0, 1, 2], ()),  # that cannot be removed
        (False, [(1.0, 0.0, 0.74)] * 3, [0, 1, 2], ()),  # that are not alone removed
        (True, [(1.0, 0.0, 0.74)] * 3, [0, 1], (0, 1)),
        (False, [(0.95, 0.1, 0.75)] * 3, [0, 1], (0, 1)),  # the third is far below the first
        (False, [(1.0, 0.5, 0.9), *[(1.0, 0.0, 0.9)] * 2], [0, 1, 2], (1, 2)),  # not the second
    ],
)
def test_who_is_tried_and_convicted(net, monkeypatch, recovered, rates, tried, targets):
    found = Detection(
        (1.0,) * CLASSES, (4.0, 3.1, 2.9) + (0.0,) * (CLASSES - 3), 2, 1, 1, (0, 1, 2)
    )
    seen = []

    def mend(*_, **__) -> SimpleNamespace:
        before, after, agreement = rates[len(seen) - 1]
        return SimpleNamespace(
            before=SimpleNamespace(asr=before),
            after=SimpleNamespace(asr=after, agreement=agreement),
        )

    monkeypatch.setattr(pipeline, "find_suspects", lambda *_: found)
    monkeypatch.setattr(pipeline, "refine_triggers", lambda *_, targets, **__: seen.extend(targets))
    monkeypatch.setattr(pipeline, "mend", mend)
    images = Recovery(IMAGES, LABELS, 1, 0.0, Stage("recover", 0.0))
    result = scan(net, recovered=images) if recovered else scan(net, IMAGES, LABELS)
    assert seen == tried
    assert result.targets == targets
    assert result.verdict == ("backdoored" if targets else "clean")
    assert result.detection.targets == (0, 1, 2)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES[0], LABELS, "images must be a float tensor"),
        ((IMAGES * 255).byte(), LABELS, "images must be a float tensor"),
        (IMAGES, LABELS.float(), "labels must be an int64 tensor"),
        (IMAGES, LABELS[:3], "expected as many"),
        (IMAGES[:0], LABELS[:0], "expected as many"),
        (IMAGES * 2, LABELS, r"in \[0, 1\]"),
        (IMAGES * float("nan"), LABELS, r"in \[0, 1\]"),
        (IMAGES, LABELS + CLASSES, "labels must be in 0"),
        (IMAGES, LABELS - 1, "labels must be in 0"),
        (IMAGES, torch.zeros_like(LABELS), "two classes"),
    ],
)
def test_refused_input(net, images, labels, message):
    with pytest.raises(InputError, match=message):
        scan(net, images, labels)


def test_refused_models_and_targets(net):
    with pytest.raises(InputError, match="at least 3"):
        scan(nn.Sequential(nn.Flatten(), nn.LazyLinear(2)), IMAGES, LABELS % 2)
    with pytest.raises(InputError, match="cannot be a target"):
        repair(net, IMAGES, LABELS, force_targets=[CLASSES])
