"""What a scan found, in words."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from results import SCANS, result_of, verdict_of
from shapprune.method.detection import verdict_on
from shapprune.reporting import findings
from toys import CLASSES, TARGET
from verdicts import mapped_scan, scan_of


@pytest.mark.parametrize("case", SCANS)
def test_the_verdict_line_follows_from_its_numbers(case):
    """The score is above the bound that is told, or not, as the verdict says."""
    judgement = result_of(case).judgement
    line = findings.verdict_line(judgement, [str(c) for c in range(len(judgement.scores))])
    assert line.startswith(f"verdict: {verdict_of(case)}")
    assert ("no single target: 0→1, 1→2" in line) == ("map" in case)
    assert f"{judgement.as_high.hits} of 100 scans of clean models scored as high" in line
    score, *bounds = map(float, re.findall(r"(?:score|bound|above) (-?[\d.]+)", line))
    assert score == pytest.approx(judgement.score, abs=0.06)
    assert [score > bound for bound in bounds] == {
        "backdoored": [True],
        "suspicious": [False] if "too few" in case else [True, False],
        "clean": [False],
    }[judgement.verdict]
    assert ("the data are too few to say" in line) == ("too few" in case)


@pytest.mark.parametrize(
    ("verdict", "bounds", "told"),
    [
        ("backdoored", (-9.0, 3.5049), "score 3.5050, bound 3.5049"),
        ("suspicious", (3.47, 3.506), "score 3.50, above 3.47 for suspicious, not above 3.51 for"),
        ("clean", (3.51, 7.0), "highest score 3.50, bound 3.51"),
        ("clean", (3.505, 7.0), "highest score 3.5, bound 3.5"),
    ],
)
def test_close_calls_are_told_apart(verdict, bounds, told):
    suspicious, backdoored = bounds
    judgement = replace(
        scan_of().judgement,
        verdict=verdict,
        scores=tuple(3.505 if c == TARGET else -6.0 for c in range(CLASSES)),
        suspicious=suspicious,
        backdoored=backdoored,
    )
    assert told in findings.verdict_line(judgement, [str(c) for c in range(CLASSES)])


def test_what_the_evidence_says_of_a_class():
    scan = scan_of()
    found = findings.class_findings(scan.evidence, scan.judgement, TARGET)
    margins = sorted(scan.evidence.margins.values)
    times = round(26.4 / ((margins[3] + margins[4]) / 2), 2)
    assert [finding.words for finding in found] == [
        f"Its largest margin is {times:g} times that of the median class.",
        "A square of 2 × 2 pixels sends 98% of other images to it, 1.6 times as surely as clean "
        "images go to their class; the median class gets 5%.",
        "A perturbation of at most 5% of the range of colours sends 49% of other images to it, "
        "0.8 times as surely as clean images go to their class; the median class gets 2.5%.",
    ]
    assert [finding.part for finding in found] == pytest.approx([3.4, 1.2, -6])
    others = findings.class_findings(scan.evidence, scan.judgement, 0)
    assert "surely" not in others[1].words


def test_evidence_without_words_is_named():
    scan = scan_of()
    odd = {**scan.judgement.parts, "odd": (0.5,) * CLASSES}
    judgement = replace(scan.judgement, parts=odd)
    found = findings.class_findings(scan.evidence, judgement, TARGET)
    assert ("Other evidence: odd.", 0.5) in [(f.words, f.part) for f in found]


def test_what_the_evidence_says_without_a_single_target():
    scan = mapped_scan()
    found = findings.untargeted_findings(scan.evidence, scan.judgement)
    words = [finding.words for finding in found]
    assert any("go to 8.0 of 8 classes" in word for word in words)
    assert any(
        word.startswith("A patch of 4 pixels, 2.8% of the image, moves 88%") for word in words
    )
    assert any(word.startswith("A square of 2 × 2 pixels moves 88%") for word in words)
    assert sum(f.part or 0 for f in found) + findings.start(scan.judgement) == pytest.approx(4.0)


def test_classes_that_were_not_looked_at_and_margins_below_0():
    scan = scan_of()
    windows = replace(
        scan.evidence.windows,
        classes=(TARGET,),
        **{name: getattr(scan.evidence.windows, name)[:1] for name in ("margins", "shares")},
    )
    margins = replace(scan.evidence.margins, values=(0.5, *[-1.0] * (CLASSES - 1)))
    evidence = replace(scan.evidence, windows=replace(windows, triggers=windows.triggers[:1]))
    evidence = replace(evidence, margins=margins)
    words = [f.words for f in findings.class_findings(evidence, scan.judgement, 7)]
    assert "Its largest margin is -1, where the median class has -1." in words
    assert any(word.startswith("A square of 2 × 2 pixels was not sought for it") for word in words)


numbers = st.floats(-1e4, 1e4, allow_nan=False).map(lambda x: round(x, 6))


@given(scores=st.lists(numbers, min_size=3, max_size=6), bounds=st.tuples(numbers, numbers))
@settings(max_examples=200, deadline=None)
def test_no_number_contradicts_the_verdict_beside_it(scores, bounds):
    """Whatever the score and the bounds: as they are printed, they are ordered as they are."""
    low, high = sorted(bounds)
    verdict = verdict_on(max(scores), suspicious=low, backdoored=high)
    judgement = replace(
        scan_of().judgement,
        verdict=verdict,
        scores=tuple(scores),
        untargeted=None,
        targets=tuple(c for c, s in enumerate(scores) if s > (high if verdict[0] == "b" else low)),
        suspicious=low,
        backdoored=high,
    )
    line = findings.verdict_line(judgement, [str(c) for c in range(len(scores))])
    number = r"(-?[\d.e+-]+)"
    if verdict == "suspicious":
        found = re.search(rf"score {number}, above {number} .*, not above {number} for", line)
        score, below, above = map(float, found.groups())
        assert below < score <= above
    else:
        score, bound = map(float, re.search(rf"score {number}, bound {number};", line).groups())
        assert (score > bound) == (verdict == "backdoored")
