"""What a repair left, whatever was asked for."""

from types import SimpleNamespace

import pytest
from torch import nn

from shapprune.method.repaired import RepairResult
from shapprune.method.triggers import all_to_all, all_to_one
from shapprune.reporting.exits import exit_code

SEVEN, TWO, NEXT = all_to_one(7, 10), all_to_one(2, 10), all_to_all(10)


def result(
    verdict: str, named: list, repaired: list, kept: float = 0.95, undecided: bool = False
) -> RepairResult:
    """A sufficient repair of some maps, after a scan that names others."""
    judgement = SimpleNamespace(undecided=undecided)
    scan = SimpleNamespace(verdict=verdict, maps=tuple(named), judgement=judgement)
    after = SimpleNamespace(kept=SimpleNamespace(value=kept))
    repair = SimpleNamespace(maps=tuple(repaired), sufficient=True, after=after)
    return RepairResult(nn.Identity(), scan, repair, ())


@pytest.mark.parametrize(
    ("verdict", "named", "repaired", "code"),
    [
        ("backdoored", [SEVEN], [SEVEN], 0),
        ("backdoored", [SEVEN], [SEVEN, TWO], 0),  # more than what is named
        ("backdoored", [SEVEN], [TWO], 1),
        ("backdoored", [SEVEN], [NEXT], 1),  # has class 7 among its targets, and treats another
        ("backdoored", [SEVEN, TWO], [TWO], 1),
        ("backdoored", [NEXT], [TWO], 1),
        ("backdoored", [], [TWO], 1),  # a map of which nothing is known
        ("suspicious", [SEVEN], [TWO], 3),
        ("clean", [], [TWO], 0),
    ],
)
def test_what_the_scan_names_must_be_repaired(verdict, named, repaired, code):
    assert exit_code(result(verdict, named, repaired)) == code


@pytest.mark.parametrize(("kept", "code"), [(0.8, 0), (0.5, 1)])
def test_a_copy_that_forgot_is_no_repair(kept, code):
    found = result("backdoored", [SEVEN], [SEVEN], kept)
    assert found.spoiled == bool(code)
    assert exit_code(found) == code


def test_what_was_too_little_to_judge_by_is_not_clean_after_a_repair():
    found = result("suspicious", [], [TWO], undecided=True)
    assert not found.incomplete
    assert exit_code(found) == 3
