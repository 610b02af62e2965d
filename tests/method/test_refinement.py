"""The triggers that a repair works with."""

from dataclasses import replace

import pytest
import torch

from evidences import evidence as evidence_with
from shapprune.method import refinement
from shapprune.method.case import check_case
from shapprune.method.refinement import repair_triggers
from shapprune.method.settings import KindSettings, RefineSettings
from shapprune.method.triggers import Perturbation, Trigger, all_to_all, all_to_one
from shapprune.utils.progress import Clock
from toys import CLASSES, TARGET, backdoored_net, toy_images

CASE = check_case(backdoored_net(), *toy_images())


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(refinement, "REFINEMENT", RefineSettings(steps=40, images=8))
    monkeypatch.setattr(refinement, "KINDS_OF_TRIGGER", KindSettings(steps=60))


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
        if more:
            assert triggers[-1].stamp is windows.triggers[place]


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
