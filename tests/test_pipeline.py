"""The main path on the hand-wired network, and what it refuses."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace

import pytest
import torch
from torch import nn

from shapprune import pipeline
from shapprune.errors import InputError, InputWarning
from shapprune.method import attribution, case, inversion
from shapprune.method import repair as repair_module
from shapprune.method import scan as scan_module
from shapprune.method.detection import Judgement, shipped
from shapprune.method.evaluation import Evaluator
from shapprune.method.evidence import Evidence
from shapprune.method.recovery import Recovery
from shapprune.model.masking import remove_neurons
from shapprune.model.metrics import accuracy, attack_success_rate
from shapprune.pipeline import repair, scan
from shapprune.utils.progress import Stage
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
from verdicts import judgement_of, ship

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
    assert repaired.repair.sufficient
    wanted = {"stamp": true_trigger().stamp, "target": TARGET}
    assert attack_success_rate(net, *UNSEEN, **wanted) > 0.9
    assert attack_success_rate(repaired.model, *UNSEEN, **wanted) < 0.05
    assert accuracy(repaired.model, *UNSEEN) > accuracy(net, *UNSEEN) - 0.05
    assert unchanged(net, before)


def test_only_what_was_tuned_can_be_given_back(net, monkeypatch):
    """Pruned alone, a network may answer to none of our triggers, and to the attacker's."""
    seen = []

    def last(candidates, **_):
        seen.extend(candidates)
        return len(candidates) - 1, True

    monkeypatch.setattr("shapprune.method.repair.choose", last)
    found = repair(net, IMAGES, LABELS, seed=0).repair
    assert {candidate.way for candidate in seen} == {"tuned"}
    assert found.candidates[found.chosen] is seen[-1]


def test_the_repaired_state_dict_fits_the_original(net, repaired):
    original, copy = net.state_dict(), repaired.model.state_dict()
    assert {k: v.shape for k, v in original.items()} == {k: v.shape for k, v in copy.items()}
    assert all(v.is_contiguous() for v in copy.values())


def test_a_repair_repeats_its_scan_and_counts_its_cost(net, repaired):
    again = scan(net, IMAGES, LABELS, seed=0)
    assert again.judgement == repaired.scan.judgement
    assert repaired.stages[: len(again.stages)] == repaired.scan.stages
    assert all(stage.seconds >= 0 for stage in repaired.stages)
    assert all(stage.passes for stage in again.stages)


def test_forced_plain_repair_of_a_network_without_backdoor(monkeypatch):
    # The last layer still weighs the neuron that is gone, which a signature sees.
    calibration = replace(shipped("images"), clean=tuple((score,) for score in range(100, 200)))
    ship(monkeypatch, calibration)
    net = backdoored_net()
    from shapprune.model.neurons import find_neurons

    clean = remove_neurons(net, find_neurons(net, IMAGES), [backdoor_neuron()])
    result = repair(clean, IMAGES, LABELS, force_targets=[1], unlearn=False, pruned=2, seed=0)
    assert result.repair.targets == (1,)
    assert not result.repair.unlearned
    assert len(result.repair.pruned) == 2
    assert result.scan.verdict == "clean"
    assert not result.unrepaired
    unforced = repair(clean, IMAGES, LABELS, seed=0)
    assert unforced.model is clean
    assert unforced.repair is None
    assert not unforced.unrepaired


def test_progress_tells_each_stage_to_its_end(net):
    seen: dict[str, float] = {}
    scan(net, IMAGES, LABELS, progress=lambda stage, share: seen.update({stage: share}))
    assert len(seen) >= 2
    assert set(seen.values()) == {1.0}


def test_a_scan_holds_no_repair(net, repaired, monkeypatch):
    monkeypatch.setattr(pipeline, "repair_case", lambda *_, **__: pytest.fail("a repair"))
    assert scan(net, IMAGES, LABELS, seed=0).judgement == repaired.scan.judgement


def says(
    verdict: str, targets: tuple[int, ...], mapping: tuple[int | None, ...] | None = None
) -> Callable[..., Judgement]:
    """A judge who says so whatever the evidence."""

    def judge(evidence: Evidence, **_: object) -> Judgement:
        said = judgement_of(evidence, targets)
        return replace(said, verdict=verdict, targets=targets, mapping=mapping)

    return judge


@pytest.mark.parametrize("verdict", ["backdoored", "suspicious"])
def test_what_is_found_or_suspected_is_repaired(net, monkeypatch, verdict):
    monkeypatch.setattr(scan_module, "judge", says(verdict, (2, TARGET)))
    result = repair(net, IMAGES, LABELS, pruned=1)
    assert result.scan.verdict == verdict
    assert result.repair.targets == (2, TARGET)
    assert not result.unrepaired
    forced = repair(net, IMAGES, LABELS, pruned=1, force_targets=[3])
    assert forced.repair.targets == (3,)
    first = repair(net, IMAGES, LABELS, pruned=1, force_targets=["first", 2])
    assert first.repair.targets == (2, TARGET)
    assert (forced.incomplete, first.incomplete) == (True, False)


def test_what_stands_out_most_is_repaired_whatever_the_verdict(net, monkeypatch):
    monkeypatch.setattr(scan_module, "judge", says("clean", ()))
    result = repair(net, IMAGES, LABELS, pruned=1, force_targets=["first"])
    assert result.repair.targets == result.scan.judgement.ranking[:1]
    assert result.forced
    assert not result.incomplete
    assert repair(net, IMAGES, LABELS, pruned=1).repair is None


@pytest.mark.parametrize("cut", [RuntimeError("no memory"), KeyboardInterrupt()])
def test_a_repair_that_is_cut_short_tells_the_verdict(net, monkeypatch, cut):
    def die(*_, **__):
        raise cut

    monkeypatch.setattr(scan_module, "judge", says("backdoored", (TARGET,)))
    monkeypatch.setattr(pipeline, "repair_case", die)
    said = rf"^not repaired; the scan before it said: backdoored, class {TARGET}$"
    with pytest.warns(InputWarning, match=said), pytest.raises(type(cut)):
        repair(net, IMAGES, LABELS)


@pytest.mark.parametrize("forced", [[], ["first"], ["y+1"], [(*range(1, CLASSES), 0)]])
def test_what_is_repaired_is_a_map(net, monkeypatch, forced):
    mapping = (*range(1, CLASSES), 0)
    monkeypatch.setattr(scan_module, "judge", says("backdoored", (), mapping))
    maps = []

    def carried_out(case, found, **_):
        maps.extend(found)
        raise InterruptedError

    monkeypatch.setattr(pipeline, "repair_case", carried_out)
    with pytest.raises(InterruptedError):
        repair(net, IMAGES, LABELS, force_targets=forced)
    assert maps == [mapping]


def test_a_map_of_which_nothing_is_known_is_left_unrepaired(net, monkeypatch):
    monkeypatch.setattr(scan_module, "judge", says("backdoored", (), (None,) * CLASSES))
    result = repair(net, IMAGES, LABELS)
    assert result.unrepaired
    assert result.model is net
    assert result.stages == result.scan.stages


def test_a_run_asks_once_whether_images_may_be_mirrored_and_checks_its_model_once(monkeypatch):
    """The evaluator is made once, too, and measures each network once."""
    counts: Counter[str] = Counter()

    def counted(module, name):
        original = getattr(module, name)

        def call(*given, **options):
            counts[name] += 1
            return original(*given, **options)

        monkeypatch.setattr(module, name, call)

    net, measured = backdoored_net(), []
    for module, name in ((case, "flip_allowed"), (case, "examine"), (repair_module, "Evaluator")):
        counted(module, name)
    for module in (inversion, attribution):
        monkeypatch.setattr(module, "flip_allowed", lambda *_: pytest.fail("asked again"))
    original = Evaluator._measure
    monkeypatch.setattr(
        Evaluator, "_measure", lambda self, model: measured.append(model) or original(self, model)
    )
    found = repair(net, IMAGES, LABELS, pruned=1)
    assert counts == {"flip_allowed": 1, "examine": 1, "Evaluator": 1}
    # The original as it is and without a neuron by each score, and the tuned one.
    orders = {found.repair.candidates[i].pruned for i in range(2)}
    assert len(measured) == 1 + len(orders) + 1


@pytest.mark.parametrize(
    ("layers", "basis", "found"), [(1, "recovered", True), (0, "margins", False)]
)
def test_what_a_verdict_without_images_stands_on(net, layers, basis, found):
    images = Recovery(IMAGES, LABELS, layers, 0.0, Stage("recover", 0.0))
    result = scan(net, recovered=images)
    assert result.judgement.basis == basis
    assert result.stages[0].name == "recover"
    evidence = result.evidence
    for some in (evidence.windows, evidence.perturbations, evidence.untargeted):
        assert (some is not None) == found
    assert (result.judgement.untargeted is not None) == found
    assert result.judgement.ranking[0] == TARGET
    assert result.judgement.conclusive == found


@pytest.mark.parametrize(("layers", "right"), [(0, True), (0, False), (1, True), (1, False)])
def test_what_cannot_show_a_model_clean_never_says_so(net, monkeypatch, layers, right):
    """Margins alone, and images whose recovery failed; with bounds above all scores."""
    calibration = shipped("recovered" if layers else "margins")
    ship(monkeypatch, replace(calibration, clean=tuple((score,) for score in range(1000, 1100))))
    labels = LABELS if right else (LABELS + 1) % CLASSES
    images = Recovery(IMAGES, labels, layers, 0.0, Stage("recover", 0.0))
    result = repair(net, recovered=images)
    conclusive = bool(layers) and right
    assert result.scan.judgement.conclusive == conclusive
    assert result.scan.verdict == ("clean" if conclusive else "suspicious")
    assert result.scan.judgement.undecided == result.unrepaired == (not conclusive)
    assert (result.scan.targets, result.scan.mapping) == ((), None)
    assert result.model is net
    forced = repair(net, recovered=images, pruned=1, force_targets=[3])
    assert not forced.unrepaired


def test_the_rate_of_false_alarms_sets_the_bounds_and_is_checked_first(net, monkeypatch):
    calibration = replace(shipped("images"), clean=tuple((score,) for score in range(-100, 0)))
    ship(monkeypatch, calibration)
    strict = scan(net, IMAGES, LABELS, false_alarms=0.01).judgement
    lax = scan(net, IMAGES, LABELS, false_alarms=0.1).judgement
    assert (strict.suspicious, strict.backdoored) == (-3, -2)
    assert (lax.suspicious, lax.backdoored) == (-26, -11)
    monkeypatch.setattr(scan_module, "gather", lambda *_, **__: pytest.fail("searched"))
    for rate in (0.001, 0.0, 1.0, float("nan")):
        with pytest.raises(InputError, match="false alarms"):
            scan(net, IMAGES, LABELS, false_alarms=rate)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES[0], LABELS, "images must be a float tensor"),
        ((IMAGES * 255).byte(), LABELS, "images must be a float tensor"),
        (IMAGES, LABELS.float(), "labels must be an int64 tensor"),
        (IMAGES, LABELS[:3], "expected as many"),
        (IMAGES[:0], LABELS[:0], "at least one image"),
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
    with pytest.raises(InputError, match="at least 3: it cannot be examined, which does not mean"):
        scan(nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 2)), IMAGES, LABELS % 2)
    with pytest.raises(InputError, match="cannot be a target"):
        repair(net, IMAGES, LABELS, force_targets=[CLASSES])
    with pytest.raises(InputError, match=r"names 2 classes, and the model has 8"):
        repair(net, IMAGES, LABELS, force_targets=[(1, 0)])


def pieces(result: object) -> Iterator[tuple[str, object]]:
    """Every result that hangs on this one, by its class's name."""
    if is_dataclass(result):
        yield type(result).__name__, result
        for field in fields(result):
            yield from pieces(getattr(result, field.name))
    elif isinstance(result, tuple | list):
        for part in result:
            yield from pieces(part)


def test_results_cannot_be_changed(repaired):
    """They are frozen all the way down, and hold no list that one could append to."""
    found = dict(pieces(repaired))
    assert found.keys() >= {
        *("RepairResult", "ScanResult", "Judgement", "Evidence", "Repair", "Candidate"),
        *("Proxies", "NeuronValues", "Neurons", "InvertedTrigger", "Windows", "Stage"),
    }
    for name, part in found.items():
        for field in fields(part):
            with pytest.raises(FrozenInstanceError):
                setattr(part, field.name, None)
            assert not isinstance(getattr(part, field.name), list | set), f"{name}.{field.name}"


def values(result: object) -> list[torch.Tensor]:
    """All tensors and weights in a result."""
    found = []
    for _, part in pieces(result):
        for field in fields(part):
            value = getattr(part, field.name)
            for one in value if isinstance(value, tuple) else (value,):
                if isinstance(one, nn.Module):
                    found += one.state_dict().values()
                elif isinstance(one, torch.Tensor):
                    found.append(one)
    return found


def test_later_runs_leave_earlier_results_as_they_were(net, repaired):
    before = [tensor.clone() for tensor in values(repaired)]
    assert len(before) > 30
    scan(repaired.model, IMAGES, LABELS, seed=1)
    repair(repaired.model, IMAGES, LABELS, force_targets=[TARGET], pruned=1, seed=1)
    assert all(map(torch.equal, values(repaired), before))
    assert len(values(repaired)) == len(before)
