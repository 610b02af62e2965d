"""What a repair works with and what it tunes, by hand and on the toy."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from evidences import evidence as evidence_with
from shapprune.method import repair
from shapprune.method.case import check_case
from shapprune.method.evaluation import Proxies, Share
from shapprune.method.repair import _starts, interpolated, repair_triggers
from shapprune.method.selection import Candidate
from shapprune.method.settings import SELECTION, KindSettings, RefineSettings
from shapprune.method.triggers import Perturbation, Trigger, all_to_all, all_to_one
from shapprune.utils.progress import Clock
from toys import CLASSES, TARGET, backdoored_net, toy_images

CASE = check_case(backdoored_net(), *toy_images())


def candidate(removed: int, kept: float, asr: float) -> Candidate:
    share = Share(kept, kept, kept)
    proxies = Proxies(share, share, share, Share(asr, asr, asr), ())
    return Candidate("pruned", 0, tuple(range(removed)), 1, proxies)


def test_tuned_is_the_best_that_keeps_enough():
    points = [candidate(0, 1, 1), candidate(1, 0.95, 0.4), candidate(2, 0.91, 0.2)]
    points.append(candidate(3, 0.85, 0.0))
    ((pruned, share),) = _starts(points, None)
    assert len(pruned.pruned) == 2
    least, most = SELECTION.least_stamped, SELECTION.most_stamped
    assert share == pytest.approx(least + 0.2 * (most - least))


def test_the_original_is_tuned_twice_where_pruning_costs_too_much():
    starts = _starts([candidate(0, 1, 1), candidate(1, 0.5, 0)], None)
    assert [len(start.pruned) for start, _ in starts] == [0, 0]
    assert [share for _, share in starts] == [SELECTION.least_stamped, SELECTION.most_stamped]


def test_of_a_number_that_was_asked_for_one_is_tuned():
    points = [candidate(0, 1, 1), candidate(2, 0.5, 0.5), candidate(2, 0.5, 0.1)]
    ((only, _),) = _starts([point for point in points if len(point.pruned) == 2], 2)
    assert only.proxies.asr.value == 0.1


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_weights_between(weight):
    one, other = nn.Linear(1, 1), nn.Linear(1, 1)
    nn.init.constant_(one.weight, 2.0)
    nn.init.constant_(other.weight, 6.0)
    between = interpolated(one, other, weight)
    assert float(between.weight.detach()) == pytest.approx(2 + 4 * weight)
    assert (float(one.weight.detach()), float(other.weight.detach())) == (2, 6)


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(repair, "REFINEMENT", RefineSettings(steps=40, images=8))
    monkeypatch.setattr(repair, "KINDS_OF_TRIGGER", KindSettings(steps=60))


def found(evidence, *maps):
    return repair_triggers(CASE, maps, evidence=evidence, seed=0, clock=Clock(None))


@pytest.mark.usefixtures("fast")
def test_only_kinds_whose_triggers_are_small_are_refined():
    """A perturbation of the toy's target is as large as any: the class itself."""
    bare = replace(
        evidence_with([1.0] * CLASSES), windows=None, perturbations=None, untargeted=None
    )
    for target, kinds in ((TARGET, {Trigger}), (0, {Trigger, Perturbation})):
        triggers = found(bare, all_to_one(target, CLASSES))
        assert {type(trigger.stamp) for trigger in triggers} == kinds
        assert len(triggers) == 2 * len(kinds)


@pytest.mark.usefixtures("fast")
def test_the_scans_window_joins_where_it_moves_nearly_all():
    evidence = replace(evidence_with([1.0] * CLASSES), perturbations=None)
    assert evidence.windows is not None
    place = evidence.windows.classes.index(TARGET)
    for share, more in ((1.0, 1), (0.9, 0)):
        shares = list(evidence.windows.shares)
        shares[place] = share
        windows = replace(evidence.windows, shares=tuple(shares))
        triggers = found(replace(evidence, windows=windows), all_to_one(TARGET, CLASSES))
        assert len(triggers) == 2 + more
        assert (triggers[-1].stamp is windows.triggers[place]) == bool(more)


def test_a_map_has_the_scans_triggers_without_a_target():
    evidence = evidence_with([1.0] * CLASSES)
    triggers = found(evidence, all_to_all(CLASSES))
    assert evidence.untargeted is not None
    known = [trigger.stamp for trigger in evidence.untargeted.triggers]
    assert [trigger.stamp for trigger in triggers] == known
    assert {trigger.mapping for trigger in triggers} == {all_to_all(CLASSES)}
    torch.testing.assert_close(
        torch.tensor([trigger.norm for trigger in triggers]),
        torch.tensor([trigger.norm for trigger in evidence.untargeted.triggers]),
    )
