"""The one rule, by hand."""

from dataclasses import FrozenInstanceError, replace

import pytest

from shapprune.method.evaluation import Proxies, Share
from shapprune.method.selection import Candidate, choose
from shapprune.method.settings import SelectionSettings

SETTINGS = SelectionSettings(asr=0.05, least_kept=0.8)


def candidate(kept: float, asr: float, high: float) -> Candidate:
    share = Share(kept, kept, kept)
    return Candidate("tuned", 0, (), Proxies(share, share, share, Share(asr, 0, high), ()))


WORKS = candidate(1, 1, 1).proxies  # of the original


@pytest.mark.parametrize(
    ("cases", "chosen", "sufficient"),  # kept, ASR, its upper end
    [
        ([(1, 0.5, 0.6), (0.9, 0.01, 0.04), (0.8, 0, 0)], 1, True),  # loses least of what is enough
        ([(1, 0.01, 0.04), (0.98, 0, 0)], 1, True),  # a rest of ASR counts as lost answers do
        ([(1, 0.5, 0.6), (0.9, 0.01, 0.06), (0.8, 0, 0)], 2, True),  # the upper end counts
        ([(0.9, 0.01, 0.02), (0.9, 0, 0.02)], 0, True),  # level: the earlier
        ([(0.9, 0.3, 0.5), (0.9, 0.2, 0.4), (0.8, 0.25, 0.3)], 2, False),  # none: the least ASR
        ([(0.7, 0, 0), (0.9, 0.1, 0.2)], 1, False),  # what keeps too little is no repair
        ([(0.7, 0, 0), (0.6, 0, 0)], 0, True),  # unless there is nothing else
        ([(0.4, 0, 0), (0.3, 0, 0)], 0, True),
        ([(0.9, 0, 0.06), (0.8, 0, 0.05)], 1, True),  # on the bound is low enough
        ([(0.82, 0, 0.05), (0.8, 0, 0.02)], 1, True),  # a point of ASR is one of answers
    ],
)
def test_the_rule(cases, chosen, sufficient):
    found = choose([candidate(*case) for case in cases], original=WORKS, settings=SETTINGS)
    assert found == (chosen, sufficient)


@pytest.mark.parametrize(
    ("asr", "sufficient"),
    [(1.0, True), (0.01, False)],  # triggers that do not work on the original show nothing
)
def test_triggers_that_do_not_work_show_nothing(asr, sufficient):
    original = candidate(1, asr, asr).proxies
    found = choose([candidate(0.9, 0, 0)], original=original, settings=SETTINGS)
    assert found == (0, sufficient)


def several(*highs: float) -> Proxies:
    """Of several maps: all together low, and each of its own."""
    each = tuple(Share(0, 0, high) for high in highs)
    return replace(candidate(0.9, 0, 0.04).proxies, asr_by_map=each)


def test_each_of_several_maps_must_be_gone_and_have_been_there():
    both, one = (
        Candidate("tuned", 0, (), several(0.05, 0)),
        Candidate("tuned", 0, (), several(0, 1)),
    )
    there = replace(WORKS, asr_by_map=(Share(1, 1, 1),) * 2)
    assert choose([one, both], original=there, settings=SETTINGS) == (1, True)
    assert choose([one], original=there, settings=SETTINGS) == (0, False)
    half = replace(WORKS, asr_by_map=(Share(1, 1, 1), Share(0, 0, 0.05)))
    assert choose([both], original=half, settings=SETTINGS) == (0, False)


def test_candidates_are_not_written_over():
    with pytest.raises(FrozenInstanceError):
        candidate(1, 0, 0).pruned = (1,)  # type: ignore[misc]
