"""The page and result.json, of results made by hand."""

import base64
import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import pytest
import torch
from PIL import Image

from shapprune.method.attribution import NeuronValues
from shapprune.method.detection import add_odds
from shapprune.method.evaluation import Proxies, Share
from shapprune.method.inversion import InvertedTrigger
from shapprune.method.pruning import CurvePoint, Pruning
from shapprune.method.rates import wilson
from shapprune.method.recovery import Recovery
from shapprune.method.repair import Repair
from shapprune.method.selection import Candidate
from shapprune.method.settings import RULES, SELECTION
from shapprune.method.triggers import Perturbation, Trigger, all_to_one
from shapprune.model.classifier import Classifier
from shapprune.model.neurons import find_neurons
from shapprune.pipeline import RepairResult, ScanResult
from shapprune.reporting import findings
from shapprune.reporting.charts import Bar, map_chart, score_chart
from shapprune.reporting.html import (
    images_picture,
    render_report,
    suspected_triggers,
    trigger_picture,
)
from shapprune.reporting.summary import summarise
from shapprune.shapley import ShapleyValues
from shapprune.utils.progress import Stage
from toys import CLASSES, TARGET, backdoored_net, seeded, toy_images, true_trigger
from verdicts import (
    POPULATION,
    calibration_of,
    mapped_scan,
    next_class,
    perturbation,
    scan_of,
    ship,
)

NEURONS = find_neurons(backdoored_net(), toy_images()[0])
MODEL = Classifier(backdoored_net())
REMOVED = (4, 12)
HOSTILE = "<script>alert('x')</script>\" onload=\"x&amp;\x1b[31m\u202e"
ABOUT = {
    "command": "shapprune repair weights.pth",
    "weights": f"downloads/{HOSTILE}.pth",
    "arch": "models.py:Net",
    "mean": [0.5],
    "std": [0.25],
    "notes": [f"3 images of {HOSTILE} were resized"],
    "device": "cpu",
}
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)


DOUBTFUL = calibration_of(3, 6)  # the scores of targets and maps lie between


@pytest.fixture(autouse=True)
def _calibration(monkeypatch) -> None:
    """The numbers that come with the package play no part here."""
    ship(monkeypatch)


def proxies(accuracy: float, agreement: float, asr: float, high: float = 0.03) -> Proxies:
    def share(value: float) -> Share:
        return Share(value, value - 0.05, min(1, value + 0.05))

    return Proxies(
        share(accuracy), share(agreement), share(agreement), Share(asr, 0, high), (0, 0, asr)
    )


def repair_of(target: int) -> Repair:
    values = torch.linspace(1, -1, len(NEURONS))
    shapley = ShapleyValues(values, values.abs(), torch.full((len(NEURONS),), 9), 9)
    curve = tuple(
        CurvePoint(k, proxies(0.9 - k / 50, 1 - k / 20, max(0, 1 - k)))
        for k in (0, 1, 2, 3, 4, 6, 8)
    )
    stamps = (true_trigger(), true_trigger().scaled(0.1), perturbation())
    # Layers have the names that they have inside a Classifier.
    neurons = replace(
        NEURONS, layers=tuple(replace(a, name=f"network.{a.name}") for a in NEURONS.layers)
    )
    mapping = all_to_one(target, CLASSES)
    after = proxies(0.88, 0.95, 0.01)
    return Repair(
        MODEL,
        (mapping,),
        tuple(InvertedTrigger(mapping, stamp, stamp.norm, 0.98, 200) for stamp in stamps),
        neurons,
        NeuronValues("multilinear", shapley, shapley, None, (values,), 9),
        Pruning(values, curve),
        (
            Candidate("pruned", 0, REMOVED, 1, curve[2].proxies),
            Candidate("tuned", 0, REMOVED, 1, after),
        ),
        1,
        True,
        True,
        proxies(0.9, 1.0, 1.0),
        after,
    )


def recovered_images(layers: int) -> Recovery:
    divergence = 0.1 if layers else float("nan")
    return Recovery(*toy_images(), layers, divergence, Stage("recover images", 2, 300))


def result_of(case: str) -> ScanResult | RepairResult:
    found, clean, mapped = scan_of(), scan_of(()), mapped_scan()
    doubtful, guided = scan_of(calibration=DOUBTFUL), recovered_images(2)
    unguided, few = recovered_images(0), scan_of((), basis="margins")
    failed = scan_of((), basis="recovered", untargeted=-2.5, failed=True)
    return {
        "scan": found,
        "clean scan": clean,
        "suspicious scan": doubtful,
        "map scan": mapped,
        "suspicious map scan": mapped_scan(calibration=DOUBTFUL),
        "two targets": scan_of((TARGET, 1)),
        "repair": RepairResult(MODEL, found, repair_of(TARGET), found.stages),
        "clean": RepairResult(MODEL, clean, None, clean.stages),
        "suspicious": RepairResult(MODEL, doubtful, repair_of(TARGET), found.stages),
        "map": RepairResult(MODEL, mapped, None, mapped.stages),
        "forced": RepairResult(MODEL, found, repair_of(2), found.stages),
        "forced, clean": RepairResult(MODEL, clean, repair_of(2), found.stages),
        "forced, map": RepairResult(MODEL, mapped, repair_of(2), mapped.stages),
        "recovered": replace(found, recovered=guided),
        "margins": replace(scan_of(basis="margins"), recovered=unguided),
        "too few": replace(few, recovered=unguided),
        "too few, repair": RepairResult(MODEL, few, None, few.stages),
        "too few, forced": RepairResult(MODEL, few, repair_of(2), few.stages),
        "too few, recovery failed": replace(failed, recovered=guided, accuracy=0.2),
        "43 classes": scan_of(classes=43),
        "200 classes": scan_of(classes=200),
        "43 classes, map": mapped_scan(43),
        "200 classes, map": mapped_scan(200),
    }[case]


SCANS = ["scan", "clean scan", "suspicious scan", "map scan", "suspicious map scan", "two targets"]
SCANS += ["recovered", "margins", "too few", "43 classes", "200 classes", "43 classes, map"]
SCANS += ["200 classes, map", "too few, recovery failed"]
CASES = [*SCANS, "repair", "clean", "suspicious", "map", "forced", "forced, clean", "forced, map"]
CASES += ["too few, repair", "too few, forced"]


def verdict_of(case: str) -> str:
    found = [word for word in ("clean", "suspicious") if word in case]
    found += ["suspicious"] if "too few" in case else []
    return found[0] if found else "backdoored"


def page_of(case: str, names: list[str] | None = None) -> str:
    images, labels = toy_images()
    return render_report(
        result_of(case), images=images, labels=labels, about=ABOUT, class_names=names
    )


def summary_of(case: str) -> dict[str, object]:
    result = summarise(result_of(case), about=ABOUT, class_names=None)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    return result


class Page(HTMLParser):
    """Tags, links, words and unclosed elements of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "srcset")]
        self.handlers += [name for name, _ in attributes if name.startswith("on")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words += data


# result.json


def test_summary_of_a_repair():
    run = summary_of("repair")
    assert run["verdict"] == "backdoored"
    assert run["target_classes"] == run["repaired_classes"] == [TARGET]
    assert run["mapping"] is None
    assert run["bounds"] == {"suspicious": -2, "backdoored": -1}
    assert run["scores"][TARGET] == max(run["scores"]) > run["bounds"]["backdoored"]
    assert run["untargeted_score"] < run["bounds"]["suspicious"]
    assert (run["rules"], run["false_alarms"], run["basis"]) == (RULES, 0.02, "images")
    assert run["as_high"] == {"hits": 0, "of": 100, "low": 0, "high": wilson(0, 100).high}
    assert run["calibration"]["population"] == POPULATION
    assert (run["repaired"], run["forced"]) == (True, False)
    assert run["pruned_neurons"][0] == {
        "layer": "bn1",
        "channel": 4,
        "value": pytest.approx(7 / 15),
        "asr_value": pytest.approx(7 / 15),
        "accuracy_value": pytest.approx(7 / 15),
    }
    assert run["pruned_by_layer"] == [
        {"layer": "bn1", "pruned": 1, "total": 8},
        {"layer": "bn2", "pruned": 1, "total": 8},
    ]
    assert run["neurons_total"] == len(NEURONS)
    rates = {"accuracy": 0.88, "agreement": 0.95, "kept": 0.95}
    point = run["curve"][1]
    assert point.items() >= {"removed": 1, **rates, "asr": 0, "asr_by_trigger": [0, 0, 0]}.items()
    assert point["intervals"]["accuracy"] == pytest.approx([0.83, 0.93])
    assert (run["sufficient"], run["asr_bound"]) == (True, SELECTION.asr)
    assert run["repaired_maps"] == [[5, 5, 5, 5, 5, None, 5, 5]]
    assert run["candidates"][run["chosen"]]["way"] == "tuned"
    after = {**rates, "asr": 0.01, "asr_by_trigger": [0, 0, 0.01]}
    assert run["after"].items() >= after.items()
    assert run["after"]["intervals"]["asr"] == [0, 0.03]
    assert [t["kind"] for t in run["triggers"]] == ["patch", "patch", "perturbation"]
    assert (run["seconds"], run["passes"], run["seed"]) == (1.75, 1000, 3)
    assert set(run["versions"]) == {"shapprune", "python", "torch"}
    assert run["arch"] == "models.py:Net"


def test_summary_of_the_evidence():
    """Lists of all classes are in their order, the others beside the classes they are of."""
    run = summary_of("scan")
    evidence = run["evidence"]
    assert evidence["margins"][TARGET] == max(evidence["margins"]) == pytest.approx(26.4)
    for kind, part in (("windows", 1), ("perturbations", 2)):
        assert evidence[kind]["classes"] == list(range(CLASSES))
        assert evidence[kind]["shares"][TARGET] == pytest.approx(0.98 / part)
        assert evidence[kind]["margins"][TARGET] == 8 / part
    kinds = [trigger["kind"] for trigger in evidence["untargeted"]]
    assert kinds == ["patch", "perturbation", "window"]
    assert evidence["untargeted"][0] | {"mapping": 0} == {
        **{"kind": "patch", "norm": 4, "moved": 0.875, "mapping": 0},
        **{"spread": pytest.approx(1), "agreement": pytest.approx(0.875)},
    }
    for c, score in enumerate(run["scores"]):
        assert score == pytest.approx(add_odds([values[c] for values in run["parts"].values()]))
    assert set(run["untargeted_parts"]) == {"spread", "window spread"}


def test_summary_of_a_map():
    run = summary_of("map scan")
    assert run["target_classes"] == []
    assert run["mapping"] == [1, 2, 3, 4, 5, 6, 7, 0]
    assert run["untargeted_score"] > run["bounds"]["backdoored"]
    answers = next_class(CLASSES)
    answers[2] = 0  # of which there was no image
    scan = scan_of((), answers=answers, untargeted=4.0)
    some = summarise(scan, about=ABOUT, class_names=None)
    assert some["mapping"] == [1, 2, None, 4, 5, 6, 7, 0]


def test_summary_of_margins_alone():
    run = summary_of("margins")
    assert run["basis"] == "margins"
    assert (run["evidence"]["windows"], run["evidence"]["untargeted"]) == (None, None)
    assert (run["evidence"]["perturbations"], run["untargeted_score"]) == (None, None)


@pytest.mark.parametrize("case", CASES)
def test_summary_of_other_cases(case):
    run, verdict = summary_of(case), verdict_of(case)
    assert run["verdict"] == verdict
    targets = [TARGET, 1] if case == "two targets" else [TARGET]
    named = verdict != "clean" and "map" not in case and "too few" not in case
    assert run["target_classes"] == (targets if named else [])
    assert (run["mapping"] is None) == ("map" not in case)
    assert run.get("forced", False) == ("forced" in case)
    repaired = "forced" in case or case in ("repair", "suspicious")
    assert run.get("repaired") == (None if case in SCANS else repaired)
    unrepaired = case in ("map", "too few, repair")
    assert run.get("unrepaired") == (None if case in SCANS else unrepaired)
    assert run["conclusive"] == ("margins" not in case and "too few" not in case)


def test_numbers_that_json_lacks():
    scan = scan_of()
    endless = replace(scan.evidence.margins, values=(float("inf"), *[1.0] * (CLASSES - 1)))
    scan = replace(scan, evidence=replace(scan.evidence, margins=endless), accuracy=float("nan"))
    run = summarise(scan, about={"low": float("-inf")}, class_names=None)
    assert run["evidence"]["margins"][0] == "Infinity"
    assert float(run["evidence"]["margins"][0]) == float("inf")
    assert (run["accuracy"], run["low"]) == (None, "-Infinity")
    json.dumps(run, allow_nan=False)


# Words


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


# The page


@pytest.mark.parametrize("case", CASES)
def test_pages_stand_alone(case):
    page = page_of(case)
    parsed = Page(page)
    assert not parsed.open
    assert not {"script", "link", "iframe", "object"} & set(parsed.tags)
    assert parsed.links
    assert all(link.startswith("data:image/png;base64,") for link in parsed.links)
    assert not re.search(r"https?:|//\w+\.|url\(|@import", page)


CARRIES = "This model carries a backdoor"


@pytest.mark.parametrize(
    ("case", "verdict", "words"),
    [
        ("scan", f"{CARRIES}; its target is class 5 “name”.", "Do not use these weights"),
        ("two targets", f"{CARRIES}; its targets are classes 5 “name”, 1 “name”.", "Do not use"),
        ("repair", f"{CARRIES}; its target is class 5 “name”.", "A repaired copy is in"),
        ("map scan", f"{CARRIES} without a single target.", "to another one: 0→1, 1→2"),
        ("map", f"{CARRIES} without a single target.", "told: the weights were left as they were"),
        ("clean scan", "No backdoor was found.", "A clean verdict is no proof."),
        (
            "clean",
            "No backdoor was found, and the weights were left as they were.",
            "Not looked for: triggers that work on images of one class alone",
        ),
        ("forced, clean", "No backdoor was found.", "The repair was told to treat class 2"),
        (
            "suspicious scan",
            "This model is suspicious: class 5 “name” stands out.",
            "with other images and another --seed",
        ),
        (
            "suspicious",
            "This model is suspicious: class 5 “name” stands out.",
            "It was repaired on suspicion",
        ),
        (
            "suspicious map scan",
            "This model is suspicious: it may carry a backdoor without a single target.",
            "Ask for the model's origin",
        ),
        *(
            (case, "This model is suspicious: the data are too few to say.", words)
            for case, words in (
                ("too few", "the weights alone can show a backdoor, but not that there is"),
                (
                    "too few, repair",
                    "The weights were left as they were: there is nothing to repair",
                ),
                ("too few, forced", "The repair was told to treat class 2"),
                ("too few, recovery failed", "the recovery failed, and such images cannot show"),
            )
        ),
    ],
)
def test_verdicts_come_first(case, verdict, words):
    page = page_of(case, names=["name"] * CLASSES)
    assert f"<h1>{verdict}</h1>" in page
    assert f'<section class="verdict {verdict_of(case)}">' in page
    told = " ".join(Page(page).words.split())
    assert words in told
    loaded = case in ("repair", "suspicious", "forced, clean", "too few, forced")
    assert ("Load the repaired copy" in page) == loaded


@pytest.mark.parametrize(
    ("case", "marks"),
    [
        ("scan", ["target"]),
        ("clean scan", []),
        ("suspicious scan", ["suspected"]),
        ("map scan", []),
        ("two targets", ["target", "target"]),
        ("200 classes", ["target"]),
    ],
)
def test_marks_of_classes(case, marks):
    page = page_of(case)
    assert re.findall(r'<strong class="w">\((\w+)\)</strong>', page) == marks
    assert re.findall(r'class="bar (\w+)"', page) == ["found"] * (case == "map scan") + marks


def test_how_often_a_clean_model_looks_like_that():
    words = " ".join(Page(page_of("scan")).words.split())
    assert f"0 of 100 scans of clean models of the population “{POPULATION}” score as high" in words
    assert "0% to 3.7% of such models" in words
    assert "at most 2% (backdoored) and 5% (suspicious) of clean models pass" in words


def test_the_map_is_drawn():
    assert "Where the images go" not in page_of("scan")
    page = page_of("map scan")
    assert "Where the images go" in page
    assert page.count('class="cell"') == 3 * CLASSES  # squares, and two shares a row
    assert page.count('class="cell own"') == CLASSES
    assert "0 → 1: 88%" in page
    assert "Every class, patch" in page
    many = page_of("200 classes, map")
    assert many.count("data:image/png") == 1 + page_of("43 classes, map").count("data:image/png")
    assert "Classes 0 to 199 from the top" in many


def test_the_map_of_a_thousand_classes_keeps_every_answer():
    """Several classes share a pixel, and none is lost in it."""
    images, labels = toy_images()
    page = render_report(
        mapped_scan(1000), images=images, labels=labels, about=ABOUT, class_names=None
    )
    assert "from the left (answers), 3 a pixel" in page
    found = re.search(r'class="sheet framed" src="data:image/png;base64,([^"]+)"', page)
    picture = Image.open(BytesIO(base64.b64decode(found[1])))
    assert picture.size == (334, 334)
    assert all(picture.getpixel((k, k)) == 32 for k in range(333))  # 7 of 8 images are moved


def test_of_many_classes_the_highest_are_shown():
    page = page_of("200 classes")
    assert "The evidence of the 100 classes of the highest scores as numbers" in page
    assert "All 200 classes are in <code>result.json</code>" in page
    body = page[page.index("of the highest scores") : page.index("Triggers without a target")]
    rows = re.findall(r"<tr><td>(\d+)", body)
    assert rows == [str(TARGET), *map(str, range(101, 200))]
    assert "The evidence of every class as numbers" in page_of("43 classes")
    words = findings.verdict_line(
        replace(scan_of(classes=200).judgement, targets=tuple(range(20, 60))),
        [str(c) for c in range(200)],
    )
    assert "classes 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, … (40 in all)" in words


@pytest.mark.parametrize("case", sorted(set(CASES) - {"margins", "too few", "too few, repair"}))
def test_triggers_are_told_to_be_no_attackers(case):
    words = " ".join(Page(page_of(case)).words.split())
    no_single = ("map" in case and "forced" not in case) or case == "too few, recovery failed"
    theirs = "resembles it" if no_single else "trigger resembles them"
    assert f"An attacker's {theirs} in place and effect, but seldom in its looks." in words


def test_margins_alone_say_so():
    words = " ".join(Page(page_of("too few")).words.split())
    stands = "The verdict stands on the largest margins and the weights of the last layer alone."
    assert stands in words
    assert "without a single target were not looked for" in words
    assert "a verdict on so little is never clean" in words
    assert "A margin of" in words
    assert "stands on the largest margins" not in Page(page_of("recovered")).words


def test_a_forced_repair_says_so():
    assert "which is not what the scan found" not in page_of("repair")
    assert "which is not what the scan found" in page_of("forced, clean")
    assert "still carries the backdoor" not in page_of("forced, clean")
    assert "still carries the backdoor" in page_of("forced")
    assert "still carries the backdoor" in page_of("forced, map")


def test_what_was_recovered_is_shown():
    words = Page(page_of("recovered")).words
    assert "No data were used" in words
    assert "on the recovered images" in words
    assert "hint at most" not in words
    assert "hint at most" in Page(page_of("margins")).words
    assert "recovered" not in Page(page_of("scan")).words
    assert summary_of("recovered")["recovered"]["layers"] == 2


@pytest.mark.parametrize(("n", "shape"), [(1, (3, 8, 8)), (7, (1, 12, 12)), (86, (3, 5, 9))])
def test_sheets_of_images(n, shape):
    picture = Image.open(BytesIO(images_picture(torch.rand(n, *shape, generator=seeded()))))
    assert picture.width * picture.height >= n * shape[1] * shape[2]
    assert picture.mode == ("RGB" if shape[0] == 3 else "L")


@pytest.mark.parametrize("case", ["repair", "clean", "forced"])
def test_strangers_words_stay_words(case):
    parsed = Page(page_of(case, names=[HOSTILE] * CLASSES))
    assert "script" not in parsed.tags
    assert not parsed.handlers
    assert "<script>alert('x')" in parsed.words
    assert "\x1b" not in parsed.words
    assert "\u202e" not in parsed.words


def test_the_snippet_loads_what_was_given():
    words = Page(page_of("repair")).words
    assert 'arch="models.py:Net",\n    num_classes=8,\n    mean=[0.5],\n    std=[0.25],' in words


def test_warnings_stand_above_the_verdict():
    warning = "the model gives only 1 of 16 images their label: <b>BGR</b>"
    scan = replace(scan_of(()), warnings=(warning,))
    images, labels = toy_images()
    page = render_report(scan, images=images, labels=labels, about={}, class_names=None)
    place = page.index("only 1 of 16 images their label: &lt;b&gt;BGR&lt;/b&gt;")
    assert place < page.index('<section class="verdict')
    assert "Warning:" not in page_of("clean scan")
    run = summarise(scan, about={}, class_names=None)
    assert (run["warnings"], summary_of("clean scan")["warnings"]) == ([warning], [])


def test_images_that_a_model_does_not_know_are_told():
    scan = scan_of((), untargeted=-2.5)
    judgement = replace(scan.judgement, verdict="suspicious", conclusive=False)
    images, labels = toy_images()
    page = render_report(
        replace(scan, judgement=judgement, accuracy=0.1),
        images=images,
        labels=labels,
        about={},
        class_names=None,
    )
    words = " ".join(Page(page).words.split())
    assert "knows the given images no better than guesses would" in words


def test_bad_repairs_are_told():
    result = result_of("repair")
    bad = replace(result.repair, after=proxies(0.5, 0.6, 0.4, 0.5), sufficient=False)
    images, labels = toy_images()
    page = render_report(
        replace(result, repair=bad), images=images, labels=labels, about={}, class_names=None
    )
    assert "The repair is not sufficient" in page
    assert "The repair cost much" in page
    assert "The repair is not sufficient" not in page_of("repair")


# Pictures and charts


@pytest.mark.parametrize(
    ("case", "targets", "strength"),
    [
        ("scan", [5], 1),
        ("repair", [5], 0.1),  # the smallest of the two refined patches
        ("suspicious scan", [5], 1),
        ("clean", [], 1),
        ("map", [], 1),
        ("margins", [], 1),
        ("forced", [2], 0.1),
    ],
)
def test_triggers_of_targets(case, targets, strength):
    triggers = suspected_triggers(result_of(case))
    assert [target for target, _ in triggers] == targets
    assert all(float(stamp.mask.max()) == pytest.approx(strength) for _, stamp in triggers)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("side", [5, 300])
def test_pictures_of_patches(channels, side):
    mask = torch.zeros(1, side, side)
    mask[0, 0, 0] = 0.5
    picture = Image.open(BytesIO(trigger_picture(Trigger(mask, torch.ones(channels, side, side)))))
    assert min(picture.size) >= 250
    assert picture.mode == ("L" if channels == 1 else "RGB")
    assert picture.convert("L").getpixel((0, 0)) == 255  # as if opaque
    assert picture.convert("L").getpixel((picture.width - 1, 0)) == 128


def test_pictures_of_perturbations():
    delta = torch.zeros(1, 4, 4)
    delta[0, 0, 0], delta[0, 3, 3] = 0.01, -0.005
    picture = Image.open(BytesIO(trigger_picture(Perturbation(delta))))
    assert picture.getpixel((0, 0)) == 255
    assert picture.getpixel((picture.width - 1, picture.height - 1)) == 64
    assert picture.getpixel((picture.width - 1, 0)) == 128


def test_pictures_of_nothing():
    empty = Perturbation(torch.zeros(3, 4, 4))
    assert Image.open(BytesIO(trigger_picture(empty))).getextrema() == ((128, 128),) * 3


@pytest.mark.parametrize(
    "scores", [[3.0, 3.0, 3.0], [-1e4, 2.0, 2.0, 1e5], [0.0], [1.0, float("-inf")]]
)
def test_charts_of_odd_scores(scores):
    bars = [Bar(str(c), f"class {c}", score) for c, score in enumerate(scores)]
    chart = score_chart(bars, bounds={"low": 1.0, "high": 1.0})
    assert chart.count("<rect") == len(scores)
    assert "nan" not in chart
    assert "inf" not in chart


def test_charts_of_scores_keep_the_highest():
    bars = [Bar(str(c), f"class {c}", float(-c), "target" * (c == 0)) for c in range(200)]
    chart = score_chart(bars, bounds={"suspicious": -2.5, "backdoored": -1.5}, clean=[-3.0] * 7)
    assert re.findall(r"<title>class (\d+): ", chart) == [str(c) for c in range(30)]
    assert "170 others" in chart
    assert chart.count('class="stroke"') == 7
    assert "class 0: 0.00, target" in chart
    ends = [float(end) for end in re.findall(r'<rect x="0" width="([\d.]+)%"', chart)]
    bounds = [float(x) for x in re.findall(r'<line class="bound" x1="([\d.]+)%"', chart)]
    assert ends == sorted(ends, reverse=True)
    assert ends[3] < bounds[0] < ends[2] < bounds[1] < ends[1]


def test_maps_of_few_and_many_classes():
    answers = [[0, 3, 1], [0, 0, 0], [4, 0, 0]]
    chart = map_chart(answers)
    assert re.findall(r"<title>(.*?)</title>", chart) == ["0 → 1: 75%", "0 → 2: 25%", "2 → 0: 100%"]
    assert chart.count('class="cell own"') == 0
    assert map_chart(next_class(43).tolist()).count("<title>") == 86


# In a browser


def browse(folder, *options: str) -> str:
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={folder / 'profile'}",
            *options,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_show_in_a_browser(tmp_path, width):
    (tmp_path / "report.html").write_text(page_of("repair", [HOSTILE] * CLASSES), encoding="utf-8")
    shot = tmp_path / "shot.png"
    file = (tmp_path / "report.html").as_uri()
    browse(tmp_path, f"--screenshot={shot}", f"--window-size={width},2000", file)
    picture = Image.open(shot).convert("L")
    assert picture.size == (width, 2000)
    assert len(picture.getcolors()) > 50


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
def test_pages_fit_a_phone(tmp_path):
    """Every case in a frame 390 pixels wide, details unfolded: what stands out at the right?"""
    names = ["W" * 40, "a longer name of a class", *map(str, range(2, 200))]
    pages = [page_of(case, names).replace("<details>", "<details open>") for case in CASES]
    frames = [
        f'<iframe width="390" height="900" srcdoc="{html.escape(p)}"></iframe>' for p in pages
    ]
    script = (
        "<script>onload = () => { document.title = 'widths ' + [...document.querySelectorAll("
        "'iframe')].map(f => f.contentDocument.documentElement.scrollWidth).join(' ') }</script>"
    )
    file = tmp_path / "frames.html"
    file.write_text("<!doctype html>" + "".join(frames) + script, encoding="utf-8")
    found = browse(tmp_path, "--dump-dom", "--virtual-time-budget=5000", file.as_uri())
    widths = re.search(r"<title>widths ([\d ]+)</title>", found)
    assert widths
    fits = [int(width) <= 390 for width in widths[1].split()]
    assert dict(zip(CASES, fits, strict=True)) == dict.fromkeys(CASES, True)
