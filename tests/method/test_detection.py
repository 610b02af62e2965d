"""What is made of evidence: scores, bounds, the three verdicts."""

import json
from dataclasses import FrozenInstanceError, replace
from math import exp, log

import pytest

from evidences import evidence, next_class
from shapprune.errors import InputError
from shapprune.method.detection import (
    Calibration,
    Score,
    judge,
    read_calibration,
    shipped,
    verdict_on,
)
from shapprune.method.evidence import features
from shapprune.method.rates import wilson
from shapprune.method.settings import RULES

CLEAN = tuple((-5 + 0.1 * i,) for i in range(50))  # up to -0.1
RULE = Calibration(
    {"margin": Score(-3.0, {"margin": 0.5}), "window": Score(-4.0, {"window": 0.5})},
    Score(-9.0, {"spread": 10.0}),
    CLEAN,
    {},
)


def test_the_odds_of_all_kinds_of_evidence_add_up():
    found = evidence([4.0] + [1.0] * 19, windows=[1.0] + [0.0] * 19)
    said = judge(found, calibration=RULE)
    row = features(found)[0]
    # Twenty classes: each has half the odds that one of ten has.
    assert said.parts["margin"][0] == pytest.approx(-3 + 0.5 * row["margin"] - log(2))
    assert said.parts["window"][0] == pytest.approx(-4 + 0.5 * row["window"] - log(2))
    for c, score in enumerate(said.scores):
        assert exp(score) == pytest.approx(sum(exp(part[c]) for part in said.parts.values()))
    assert said.ranking[0] == 0
    assert said.score == said.scores[0]


def test_a_class_far_above_the_bound_is_the_target():
    said = judge(evidence([8.0, 1.0, 1.0], windows=[9.0, 0.0, 0.0]), calibration=RULE)
    assert (said.verdict, said.targets, said.mapping) == ("backdoored", (0,), None)
    assert (said.as_high.hits, said.as_high.of) == (0, 50)


def test_a_model_like_the_clean_ones_is_clean_and_names_no_target():
    said = judge(evidence([1.1, 1.0, 1.0]), calibration=RULE)
    assert (said.verdict, said.targets, said.mapping) == ("clean", (), None)
    assert said.as_high.share > 0.02


def test_between_the_bounds_it_is_suspicious_and_names_the_class():
    between = (RULE.bound(0.05) + RULE.bound(0.02)) / 2 + log(4 / 10)  # of four classes
    rule = Calibration({"margin": Score(between, {"margin": 1.0})}, None, CLEAN, {})
    said = judge(evidence([1.0, 1.0, 1.0, 0.5]), calibration=rule)
    assert said.verdict == "suspicious"
    assert said.targets == (0, 1, 2)
    assert said.suspicious < said.score <= said.backdoored


def test_all_to_all_is_backdoored_without_a_target_and_with_its_map():
    said = judge(evidence([1.0] * 4, answers=next_class(4)), calibration=RULE)
    assert said.verdict == "backdoored"
    assert said.targets == ()
    assert said.mapping == (1, 2, 3, 0)
    assert said.untargeted == pytest.approx(1.0)


def test_fewer_false_alarms_need_a_higher_score():
    bounds = [RULE.bound(rate) for rate in (0.5, 0.1, 0.02)]
    assert bounds == sorted(bounds)
    for rate in (0.02, 0.05, 0.1, 0.5):
        assert sum(score > RULE.bound(rate) for (score,) in CLEAN) == int(50 * rate)


@pytest.mark.parametrize("rate", [0.0, 0.01, 1.0, -1, float("nan")])
def test_a_rate_that_the_clean_models_cannot_vouch_for_is_an_error(rate):
    with pytest.raises(InputError, match="false alarms must be"):
        RULE.bound(rate)


def test_margins_alone_are_judged_by_a_calibration_of_their_own():
    rule = Calibration({"margin": Score(-3.0, {"margin": 5.0})}, None, CLEAN, {})
    found = evidence([9.0, 1.0, 1.0])
    bare = type(found)(found.classes, found.margins)
    said = judge(bare, basis="margins", calibration=rule)
    assert (said.verdict, said.targets, said.basis) == ("backdoored", (0,), "margins")
    assert said.untargeted is None
    assert not said.conclusive


def test_without_a_finding_margins_alone_are_never_clean():
    rule = Calibration({"margin": Score(-30.0, {"margin": 1.0})}, None, CLEAN, {})
    found = evidence([1.0, 1.0, 1.0])
    assert judge(found, calibration=rule).verdict == "clean"
    bare = judge(type(found)(found.classes, found.margins), basis="margins", calibration=rule)
    assert (bare.verdict, bare.targets, bare.undecided) == ("suspicious", (), True)
    assert bare.score <= bare.suspicious


def test_images_whose_recovery_failed_are_never_clean():
    found = evidence([1.0, 1.0, 1.0])
    said = {share: judge(found, recognised=share, calibration=RULE) for share in (0.5, 0.49)}
    assert [one.verdict for one in said.values()] == ["clean", "suspicious"]
    assert [one.conclusive for one in said.values()] == [True, False]


def test_scores_that_are_no_numbers_are_an_error_and_not_clean():
    with pytest.raises(InputError, match="no finite numbers"):
        judge(evidence([1.0, 1.0, 1.0], windows=[float("nan"), 0.0, 0.0]), calibration=RULE)


def test_a_calibration_of_other_rules_is_refused():
    with pytest.raises(InputError, match=f"rules 1.0, and these are {RULES}"):
        read_calibration({"rules": "1.0"}, "images")


def test_a_calibration_without_the_basis_is_refused():
    with pytest.raises(InputError, match="nothing for verdicts on recovered"):
        read_calibration({"rules": RULES, "bases": {}}, "recovered")


@pytest.mark.parametrize("basis", ["images", "recovered", "margins"])
def test_the_shipped_calibration_vouches_for_the_default_rate(basis):
    rules = shipped(basis)
    assert len(rules.clean) >= 48
    assert rules.bound(0.02) >= rules.bound(0.05)
    assert all(weight > 0 for score in rules.single.values() for weight in score.weights.values())
    json.dumps(rules.provenance)


def test_wilsons_interval_is_that_of_the_textbook():
    rate = wilson(8, 10)
    assert (rate.low, rate.high) == pytest.approx((0.490, 0.943), abs=1e-3)
    assert wilson(0, 0).high == 1


# Where exactly the bounds are


def at(score: float, *, step: float = 0.0) -> Calibration:
    """Ten classes of the same margin have this score, a class of a larger one so much more."""
    return Calibration({"margin": Score(score, {"margin": step})}, None, CLEAN, {})


LEVEL = evidence([1.0] * 10)
STANDING = features(evidence([*[1.0] * 9, 4.0]))[9]["margin"]


@pytest.mark.parametrize(
    ("rate", "verdict"),
    [(0.02, "suspicious"), (0.05, "clean")],  # at the bound of the one, and of the other
)
def test_a_score_on_a_bound_is_not_above_it(rate, verdict):
    said = judge(LEVEL, calibration=at(RULE.bound(rate)))
    assert said.score == RULE.bound(rate)
    assert said.verdict == verdict
    assert (said.targets == ()) == (verdict == "clean")


def test_a_class_on_the_bound_is_not_named():
    rule = at(RULE.bound(0.05), step=0.05 / STANDING)
    said = judge(evidence([*[1.0] * 9, 4.0]), calibration=rule)
    assert said.scores[0] == said.suspicious < said.scores[9] < said.backdoored
    assert (said.verdict, said.targets) == ("suspicious", (9,))


def test_beside_a_target_no_class_is_named_that_is_only_suspicious():
    rule = at(RULE.bound(0.02) - 0.05, step=9.0)
    said = judge(evidence([*[1.0] * 9, 4.0]), calibration=rule)
    assert said.suspicious < said.scores[0] < said.backdoored < said.scores[9]
    assert (said.verdict, said.targets) == ("backdoored", (9,))


def test_targets_and_ranking_begin_with_the_highest():
    said = judge(evidence([3.0, 1.0, 9.0, 1.5, 1.0, 1.0]), calibration=at(5.0, step=1.0))
    assert said.targets == (2, 0, 3, 1, 4, 5)
    assert said.ranking == said.targets


def test_the_looser_bound_stands_for_half_of_the_clean_models_at_most():
    said = judge(LEVEL, false_alarms=0.3, calibration=RULE)
    assert (said.suspicious, said.backdoored) == (RULE.bound(0.5), RULE.bound(0.3))


@pytest.mark.parametrize(
    ("score", "verdict", "is_mapped"),
    [
        (RULE.bound(0.02) + 1, "backdoored", True),
        ((RULE.bound(0.02) + RULE.bound(0.05)) / 2, "suspicious", True),
        (RULE.bound(0.05), "clean", False),
        (RULE.bound(0.05) - 1, "clean", False),
    ],
)
def test_a_map_is_told_where_what_has_no_target_is_above_a_bound(score, verdict, is_mapped):
    rule = Calibration(
        {"margin": Score(-30.0, {"margin": 0.0})}, Score(score, {"spread": 0.0}), CLEAN, {}
    )
    said = judge(evidence([1.0] * 4, answers=next_class(4)), calibration=rule)
    assert said.untargeted == said.score == score
    assert (said.verdict, said.targets) == (verdict, ())
    assert said.mapping == ((1, 2, 3, 0) if is_mapped else None)


def test_undecided_is_what_is_suspicious_without_a_finding():
    clean = judge(LEVEL, calibration=at(-30.0))
    found = judge(LEVEL, calibration=at((RULE.bound(0.02) + RULE.bound(0.05)) / 2))
    bare = judge(type(LEVEL)(LEVEL.classes, LEVEL.margins), calibration=at(-30.0))
    on_the_bound = replace(bare, suspicious=bare.score)
    assert [one.verdict for one in (clean, found, bare)] == ["clean", "suspicious", "suspicious"]
    assert [one.undecided for one in (clean, found, bare, on_the_bound)] == [
        *(False, False),
        *(True, True),
    ]


def test_without_a_word_on_the_data_they_are_enough():
    assert verdict_on(-1, suspicious=0, backdoored=1) == "clean"
    assert verdict_on(-1, suspicious=0, backdoored=1, conclusive=False) == "suspicious"


# What a calibration knows

KNOWN = Calibration(
    {}, None, ((0.0, 1.0), (2.0, 3.0)), {}, {"a": ((1.0, 2.0), (3.0,)), "b": ((2.0,),)}
)


@pytest.mark.parametrize(
    ("rate", "hits", "of", "cases"),
    [
        (KNOWN.as_high(2.0), 2, 4, 2),
        (KNOWN.clean_above(2.0), 1, 4, 2),
        (KNOWN.clean_above(0.5), 3, 4, 2),
        (KNOWN.poisoned_above(2.0), 1, 4, 3),
        (KNOWN.poisoned_above(1.5), 3, 4, 3),
        (KNOWN.poisoned_above(1.5, "a"), 2, 3, 2),
        (KNOWN.poisoned_above(1.5, "b"), 1, 1, 1),
    ],
)
def test_how_many_get_past_a_bound(rate, hits, of, cases):
    assert (rate.hits, rate.of) == (hits, of)
    assert rate == wilson(hits, of, cases=cases)


def test_the_least_rate_is_told():
    with pytest.raises(InputError, match=r"share from 0\.020, which is one of the 50 clean"):
        RULE.bound(0.01)


def test_a_calibration_of_later_rules_is_refused():
    with pytest.raises(InputError, match="rules 99"):
        read_calibration({"rules": "99"}, "images")


@pytest.mark.parametrize(
    ("given", "read"), [({"clean": 3}, {"clean": 3}), ("words", {}), (None, {})]
)
def test_where_a_calibration_comes_from_is_kept(given, read):
    empty = {"single": {}, "untargeted": None, "clean": [[0.0]]}
    content = {"rules": RULES, "bases": {"images": empty}, "provenance": given}
    assert read_calibration(content, "images").provenance == read


def test_what_is_judged_is_not_written_over():
    said = judge(LEVEL, calibration=RULE)
    for record, name in ((said, "verdict"), (RULE, "clean"), (RULE.single["margin"], "intercept")):
        with pytest.raises(FrozenInstanceError):
            setattr(record, name, None)
