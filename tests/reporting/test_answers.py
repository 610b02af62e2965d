"""What an engineer asks first."""

from dataclasses import replace

import pytest

from results import CASES, MODEL, proxies, repair_of, result_of, verdict_of
from shapprune.method import detection
from shapprune.pipeline import RepairResult
from shapprune.reporting.answers import Answers, answer, attack_rates, error_rates
from shapprune.reporting.exits import MEANINGS, exit_code
from toys import CLASSES, TARGET
from verdicts import POPULATION, USUAL, scan_of


def answers_of(result, per_class=(2,) * CLASSES) -> Answers:
    scan = getattr(result, "scan", result)
    names = [str(c) for c in range(scan.evidence.classes)]
    return answer(result, names=names, per_class=per_class)


@pytest.mark.parametrize("case", CASES)
def test_every_question_is_answered(case):
    found = answers_of(result_of(case))
    assert found.headline.endswith(".")
    for told in (found.ship, found.sure, found.evidence, found.then):
        assert told
        assert all(words[0] == words[0].upper() or words[0] == "`" for words in told)
        assert all(words[-1] in ".:" for words in told)
    short = {"backdoored": {"No."}, "suspicious": {"Not yet.", "Not on this evidence."}}
    clean = {"Nothing that was looked for speaks against it."}
    assert found.ship[0] in short.get(verdict_of(case), clean)


def test_what_is_found_in_a_backdoored_model():
    found = answers_of(scan_of())
    assert found.ship == ("No.", "Do not use these weights as they are.")
    assert found.evidence[0].startswith(f"Class {TARGET}: its largest margin is 2.4")
    assert found.evidence[-1].startswith("16 images were given, 2 of a class")
    assert "`shapprune repair` takes the backdoor out" in found.then[0]


def test_error_rates_in_words():
    """Of the hand-made population 2 of 100 clean and 20 of 34 poisoned models pass the bound."""
    said = " ".join(answers_of(scan_of()).sure)
    assert "0 of 100 scans of clean models (0%; 0% to 3.7%) are called backdoored, too" in said
    assert "20 of 34 scans of poisoned models (59%; 42% to 74%) are called backdoored." in said
    assert f"the population “{POPULATION}”" in said
    assert "On the population “others”, which played no part" in said
    assert "2 of 4 scans of poisoned models (50%; 15% to 85%) are called backdoored." in said


def test_a_clean_verdict_says_what_is_missed():
    said = " ".join(answers_of(scan_of(())).sure)
    assert "10 of 34 scans of poisoned models (29%; 17% to 46%) stay below the bounds" in said
    assert "Found more often than not: badnets, blended. Missed more often than not: sig." in said


def test_rates_of_recovered_images_are_said_to_be_of_given_ones():
    scan = scan_of(basis="recovered")
    assert "of recovered ones the rates are not known" in answers_of(scan).sure[-1]
    assert "of recovered ones" not in answers_of(scan_of()).sure[-1]


def test_without_rates_of_poisoned_models_none_are_told(monkeypatch):
    bare = replace(USUAL, poisoned={})
    monkeypatch.setattr(detection, "shipped", lambda basis: bare)
    monkeypatch.setattr("shapprune.reporting.answers._unseen", lambda judgement: [])
    for scan in (scan_of(), scan_of(())):
        assert "poisoned" not in " ".join(answers_of(scan).sure)
        assert error_rates(scan)["poisoned"].of == 0


def test_rates_by_attack():
    rates = attack_rates(USUAL, USUAL.bound(0.02))
    assert {name: (rate.hits, rate.of) for name, rate in rates.items()} == {
        **{"badnets": (20, 20), "blended": (0, 4), "sig": (0, 10)}
    }
    rates = attack_rates(USUAL, USUAL.bound(0.05))
    assert [rates[name].hits for name in ("badnets", "blended", "sig")] == [20, 4, 0]


def test_the_next_step_of_a_suspicious_model():
    said = " ".join(answers_of(result_of("suspicious scan")).then)
    assert "another draw of the images (`--seed 4`)" in said
    assert "(`--per-class`): at most 2 a class came in, and up to 10 are used" in said
    enough = " ".join(answers_of(result_of("suspicious scan"), (10,) * CLASSES).then)
    assert "--per-class" not in enough
    assert "clean images of your own" in answers_of(result_of("too few")).then[0]


def test_labels_that_do_not_fit_are_no_clean_bill():
    found = answers_of(replace(scan_of(()), accuracy=0.2))
    assert found.then[0].startswith("Check the labels of the images")
    assert found.ship[0] == "Not before the inputs are checked."
    assert "20% of the images their label" in found.ship[1]


def test_of_repaired_copies():
    good, bad = result_of("repair"), result_of("repair")
    bad = replace(bad, repair=replace(bad.repair, after=proxies(0.5, 0.6, 0.4), sufficient=False))
    assert answers_of(good).ship[-1].startswith("Measure it against the original")
    assert answers_of(bad).ship[-1].endswith("do not use the copy either.")
    assert "Give more images a class and repair again" in answers_of(bad).then[0]
    forgot = replace(good, repair=replace(good.repair, after=proxies(0.5, 0.4, 0.0)))
    assert "do not use the copy" in answers_of(forgot).ship[-1]
    assert "Give more images a class and repair again" in answers_of(forgot).then[0]
    for case in ("forced", "forced, map"):
        forced = answers_of(result_of(case))
        assert "still carries the backdoor that the scan found" in forced.ship[-1]
        assert "without `--force-target`" in forced.then[0]
    assert "still carries" not in " ".join(answers_of(result_of("forced, clean")).ship)


def test_a_repair_on_recovered_images_is_not_trusted():
    measured, good = result_of("recovered"), result_of("repair")
    assert measured.recovered
    found = answers_of(replace(good, scan=measured))
    assert "measured on recovered images, and on real ones it can be more" in found.ship[-1]


@pytest.mark.parametrize(
    ("case", "sufficient", "code"),
    [
        ("clean scan", None, 0),
        ("scan", None, 1),
        ("suspicious scan", None, 3),
        ("too few", None, 3),
        ("clean", None, 0),
        ("repair", True, 0),
        ("repair", False, 1),
        ("suspicious", True, 0),
        ("suspicious", False, 3),
        ("map", None, 1),
        ("too few, repair", None, 3),
        ("forced, clean", True, 0),
        ("forced, clean", False, 3),
        ("forced", True, 1),
        ("forced, map", True, 1),
    ],
)
def test_exit_codes(case, sufficient, code):
    result = result_of(case)
    if sufficient is not None:
        result = replace(result, repair=replace(result.repair, sufficient=sufficient))
    assert exit_code(result) == code
    assert code in MEANINGS


def test_many_targets_stay_a_few_lines():
    scan = scan_of(tuple(range(40)), classes=43)
    found = answers_of(scan, (1,) * 43)
    assert found.headline.endswith("(40 in all).")
    assert len(found.evidence) <= 6
    assert answers_of(RepairResult(MODEL, scan, repair_of(2), scan.stages), (1,) * 43)
