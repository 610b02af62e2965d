"""The page, of results made by hand."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import pytest
from PIL import Image

from results import ABOUT, CASES, HOSTILE, page_of, proxies, result_of, summary_of, verdict_of
from shapprune.method.evaluation import Share
from shapprune.pipeline import RepairResult
from shapprune.reporting import findings
from shapprune.reporting.exits import MEANINGS
from shapprune.reporting.html import render_report
from shapprune.reporting.summary import summarise
from toys import CLASSES, TARGET, toy_images
from verdicts import POPULATION, mapped_scan, scan_of


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
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words += data


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
        ("map scan", f"{CARRIES} without a single target.", "the images go 0→1, 1→2"),
        ("map", f"{CARRIES} without a single target.", "told: the weights were left as they were"),
        ("clean scan", "No backdoor was found.", "A clean verdict is no proof: some"),
        (
            "clean",
            "No backdoor was found, and the weights were left as they were.",
            "And what was not? Triggers that work on images of one class alone",
        ),
        ("forced, clean", "No backdoor was found.", "The repair was told to treat class 2"),
        (
            "suspicious scan",
            "This model is suspicious: class 5 “name” stands out.",
            "another draw of the images (--seed 4)",
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
    stands = "The verdict stands on the largest margins and the weights of the last layer alone: "
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
    page = shown(replace(result, repair=bad))
    assert "still works on 40.0% of the images, and it may be 50.0%" in page
    assert "The repair cost much" in page
    assert "The repair is not sufficient" not in page_of("repair")


def test_why_a_repair_is_not_sufficient():
    """All maps together hide one that is left; and triggers that never worked show nothing."""
    result = result_of("repair")
    by_map = (Share(0.01, 0, 0.02), Share(0.08, 0.04, 0.14))
    after = replace(result.repair.after, asr_by_map=by_map)
    page = shown(replace(result, repair=replace(result.repair, after=after, sufficient=False)))
    assert "of one target still works on 8.0% of the images, and it may be 14.0%" in page
    page = shown(replace(result, repair=replace(result.repair, sufficient=False)))
    assert "The trigger that was found hardly worked before the repair either" in page


def shown(result: RepairResult) -> str:
    """The words of its report, spaces made one."""
    images, labels = toy_images()
    page = render_report(result, images=images, labels=labels, about={}, class_names=None)
    return " ".join(Page(page).words.split())


FILE = {"name": "net.pth", "bytes": 44_812_345, "sha256": "ab" * 32}
FILE |= {"modified": "2026-03-01T12:30:00Z"}


def test_the_first_screen_tells_what_was_examined():
    words = " ".join(Page(page_of("scan", files=[FILE])).words.split())
    assert f"net.pth (44.8 MB, 2026-03-01 12:30:00 UTC)SHA-256 {'ab' * 32}" in words
    shards = " ".join(Page(page_of("scan", files=[FILE, FILE])).words.split())
    assert "2 files were examined" in shards
    assert shards.count("ab" * 32) == 2


def test_notes_stand_above_the_verdict():
    images, labels = toy_images()
    page = render_report(
        result_of("clean scan"), images=images, labels=labels, about=ABOUT, class_names=None
    )
    assert page.index("were resized") < page.index("<h1>")


def test_what_to_do_first_where_the_inputs_do_not_fit():
    images, labels = toy_images()
    scan = replace(result_of("clean scan"), accuracy=0.2)
    page = render_report(scan, images=images, labels=labels, about=ABOUT, class_names=None)
    assert "Not before the inputs are checked." in page


def test_every_suspected_class_is_explained():
    """Nine of ten: the first four at once, the others unfolded; each with its triggers."""
    images, labels = toy_images()
    scan = scan_of(tuple(range(9)), classes=10)
    page = render_report(scan, images=images, labels=labels, about={}, class_names=None)
    assert re.findall(r"<h3>Class (\d)</h3>", page) == [str(c) for c in range(9)]
    assert "The evidence of 5 more suspected classes" in page
    assert re.findall(r"<h3>Class (\d), window</h3>", page) == [str(c) for c in range(9)]
    assert page.count("ASR 98% on varied images of other classes.") == 9


def test_classes_between_the_bounds_are_explained_beside_the_targets():
    scan = scan_of((TARGET, 1))
    scores = [s if c != 1 else -1.5 for c, s in enumerate(scan.judgement.scores)]
    scan = replace(scan, judgement=replace(scan.judgement, scores=scores, targets=(TARGET,)))
    images, labels = toy_images()
    page = render_report(scan, images=images, labels=labels, about={}, class_names=None)
    assert set(re.findall(r"<h3>Class (\d)</h3>", page)) == {str(TARGET), "1"}


def test_the_triggers_own_asr_before_and_after_the_repair():
    page = page_of("repair")
    table = page[page.index("The triggers' own ASR") :]
    rows = re.findall(r"<tr><td>(\w+)</td>.*?</tr>", table[: table.index("</table>")])
    assert rows == ["Patch", "Patch", "Perturbation"]
    assert re.search(r"<td>Perturbation</td><td>class 5</td>.*98.0%.*100%.*1.0%", table)


def test_rates_by_attack_and_exit_codes_are_there():
    words = " ".join(Page(page_of("clean scan")).words.split())
    assert "badnetsa small square of one colour20100%84% to 100%100%84% to 100%" in words
    assert "labels stay right (SIG)100%0% to 28%0%0% to 28%" in words
    for code, (scanned, repaired) in MEANINGS.items():
        assert f"{code}{scanned.capitalize()}{repaired.capitalize()}" in words
