"""The page and result.json, of results made by hand."""

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

from shapprune.charts import bound_norm, norm_chart
from shapprune.detection import Detection, combine, detect
from shapprune.estimation import NeuronValues
from shapprune.mending import Repair
from shapprune.models import Classifier
from shapprune.neurons import find_neurons
from shapprune.pipeline import RepairResult, ScanResult
from shapprune.proxies import Proxies
from shapprune.pruning import CurvePoint, Pruning
from shapprune.recovery import Recovery
from shapprune.report import images_picture, render_report, suspected_triggers, trigger_picture
from shapprune.shapley import ShapleyValues
from shapprune.stages import Stage
from shapprune.stamps import Perturbation, Trigger
from shapprune.summary import summarise
from shapprune.triggers import Inversion, InvertedTrigger
from toys import CLASSES, SIDE, TARGET, backdoored_net, seeded, toy_images, true_trigger

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


def perturbation(size: float = 0.05) -> Perturbation:
    return Perturbation(size * torch.randn(3, SIDE, SIDE, generator=seeded()))


def scan_of(classes: int = CLASSES, targets: tuple[int, ...] = (TARGET,)) -> ScanResult:
    """A scan in which the class `TARGET` stands out, by either kind of trigger."""
    norms = torch.linspace(20, 60, classes)[torch.randperm(classes, generator=seeded())]
    norms[TARGET] = 1.5
    inversions = tuple(
        Inversion(
            kind,
            tuple(InvertedTrigger(c, stamp, n, 0.97, 200) for c, n in enumerate(norms.tolist())),
            1000,
        )
        for kind, stamp in (("patch", true_trigger()), ("perturbation", perturbation()))
    )
    detections = tuple(detect(inversion.norms) for inversion in inversions)
    together = detect(combine([inversion.norms for inversion in inversions]), factor=2)
    stages = (Stage("invert a patch for every class", 1.5, 1000), Stage("prune", 0.25))
    trials = (repair_of(TARGET),)
    return ScanResult(targets, inversions, detections, together, trials, 0.9, stages, 3)


def repair_of(target: int) -> Repair:
    values = torch.linspace(1, -1, len(NEURONS))
    shapley = ShapleyValues(values, values.abs(), torch.full((len(NEURONS),), 9), 9)
    curve = tuple(
        CurvePoint(
            k, Proxies(0.9 - k / 50, 1 - k / 20, 1 - k / 20, max(0, 1 - k), (max(0, 1 - k),) * 3)
        )
        for k in (0, 1, 2, 3, 4, 6, 8)
    )
    stamps = (true_trigger(), true_trigger().amplified(0.1), perturbation())
    # Layers have the names that they have inside a Classifier.
    neurons = replace(
        NEURONS, layers=tuple(replace(a, name=f"network.{a.name}") for a in NEURONS.layers)
    )
    return Repair(
        MODEL,
        (target,),
        tuple(InvertedTrigger(target, stamp, stamp.norm, 0.98, 200) for stamp in stamps),
        neurons,
        NeuronValues("multilinear", "difference", shapley, shapley, (values,), 9),
        Pruning(MODEL, values, REMOVED, curve, 0.01, True),
        True,
        Proxies(0.9, 1.0, 1.0, 1.0, (1.0, 1.0, 1.0)),
        Proxies(0.86, 0.9, 0.92, 0.0, (0.0, 0.0, 0.0)),
        Proxies(0.88, 0.95, 0.97, 0.01, (0.0, 0.0, 0.03)),
    )


def recovered_images(layers: int) -> Recovery:
    divergence = 0.1 if layers else float("nan")
    return Recovery(*toy_images(), layers, divergence, Stage("recover images", 2, 300))


def result_of(case: str) -> ScanResult | RepairResult:
    found, clean = scan_of(), scan_of(targets=())
    return {
        "scan": found,
        "clean scan": clean,
        "repair": RepairResult(MODEL, found, repair_of(TARGET), found.stages),
        "clean": RepairResult(MODEL, clean, None, clean.stages),
        "forced": RepairResult(MODEL, found, repair_of(2), found.stages),
        "forced, clean": RepairResult(MODEL, clean, repair_of(2), found.stages),
        "recovered": replace(found, recovered=recovered_images(2)),
        "recovered, clean, priors": replace(clean, recovered=recovered_images(0)),
        "43 classes": scan_of(43),
        "200 classes": scan_of(200),
    }[case]


CASES = ["scan", "clean scan", "repair", "clean", "forced", "forced, clean", "43 classes"]
CASES += ["200 classes", "recovered", "recovered, clean, priors"]


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
    assert run["anomaly_index"] > run["bound"] == pytest.approx(2, abs=1e-3)
    assert run["inversions"]["patch"]["norms"][TARGET] == 1.5
    assert set(run["inversions"]) == {"patch", "perturbation"}
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
    assert run["curve"][1] == {"removed": 1, **rates, "asr": 0, "asr_by_trigger": [0, 0, 0]}
    assert run["after"] == {
        **(rates | {"kept": 0.97}),
        "asr": 0.01,
        "asr_by_trigger": [0, 0, 0.03],
    }
    assert [t["kind"] for t in run["triggers"]] == ["patch", "patch", "perturbation"]
    assert run["trials"][0]["target"] is True
    assert (run["seconds"], run["passes"], run["seed"]) == (1.75, 1000, 3)
    assert set(run["versions"]) == {"shapprune", "python", "torch"}
    assert run["arch"] == "models.py:Net"


@pytest.mark.parametrize("case", CASES)
def test_summary_of_other_cases(case):
    run, clean = summary_of(case), "clean" in case
    assert run["verdict"] == ("clean" if clean else "backdoored")
    assert run["target_classes"] == ([] if clean else [TARGET])
    assert run.get("forced", False) == ("forced" in case)
    assert run.get("repaired") == (
        ("forced" in case or case == "repair")
        if isinstance(result_of(case), RepairResult)
        else None
    )


def test_numbers_that_json_lacks():
    scan = scan_of()
    endless = Detection((1.0, *[2.0] * 7), (float("inf"), *[0.0] * 7), 2.0, 1.0, float("inf"), (0,))
    scan = replace(scan, detections=(endless, endless), detection=endless, accuracy=float("nan"))
    run = summarise(scan, about={"low": float("-inf")}, class_names=None)
    assert run["anomaly_index"] == "Infinity"
    assert float(run["anomaly_index"]) == float("inf")
    assert (run["accuracy"], run["low"]) == (None, "-Infinity")
    json.dumps(run, allow_nan=False)
    images, labels = toy_images()
    page = render_report(
        replace(scan, accuracy=1.0), images=images, labels=labels, about={}, class_names=None
    )
    assert "∞" in page


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


@pytest.mark.parametrize(
    ("case", "verdict"),
    [
        ("scan", "This model carries a backdoor; its target is class 5 “name”."),
        ("repair", "This model carries a backdoor; its target is class 5 “name”."),
        ("clean scan", "No backdoor was found."),
        ("clean", "No backdoor was found, and the weights were left as they were."),
        ("forced, clean", "No backdoor was found."),
    ],
)
def test_verdicts_come_first(case, verdict):
    page = page_of(case, names=["name"] * CLASSES)
    assert f"<h1>{verdict}</h1>" in page
    assert ("Load the repaired copy" in page) == (case in ("repair", "forced, clean"))


def test_a_forced_repair_says_so():
    assert "which is not what the scan found" not in page_of("repair")
    assert "which is not what the scan found" in page_of("forced, clean")
    assert "still carries the backdoor" not in page_of("forced, clean")
    assert "still carries the backdoor" in page_of("forced")


def test_what_was_recovered_is_shown():
    words = Page(page_of("recovered")).words
    assert "No data were used" in words
    assert "on the recovered images" in words
    assert "hint at most" not in words
    assert "hint at most" in Page(page_of("recovered, clean, priors")).words
    assert "recovered" not in Page(page_of("scan")).words
    assert summary_of("recovered")["recovered"]["layers"] == 2


@pytest.mark.parametrize(("n", "shape"), [(1, (3, 8, 8)), (7, (1, 12, 12)), (86, (3, 5, 9))])
def test_sheets_of_images(n, shape):
    picture = Image.open(BytesIO(images_picture(torch.rand(n, *shape, generator=seeded()))))
    assert picture.width * picture.height >= n * shape[1] * shape[2]
    assert picture.mode == ("RGB" if shape[0] == 3 else "L")


def test_cleared_suspects_are_named():
    words = Page(page_of("clean")).words
    assert "Class 5 had small triggers, and was cleared on trial." in words
    assert "1.5, cleared" in words


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


def test_bad_repairs_are_told():
    result = result_of("repair")
    bad = replace(result.repair, after=Proxies(0.5, 0.6, 0.7, 0.4, (0.4, 0.4, 0.4)))
    images, labels = toy_images()
    page = render_report(
        replace(result, repair=bad), images=images, labels=labels, about={}, class_names=None
    )
    assert "The repair is not complete" in page
    assert "The repair cost much" in page
    assert "The repair is not complete" not in page_of("repair")


# Pictures and charts


@pytest.mark.parametrize(
    ("case", "targets"), [("scan", [5]), ("repair", [5]), ("clean", []), ("forced", [2])]
)
def test_triggers_of_targets(case, targets):
    triggers = suspected_triggers(result_of(case))
    assert [target for target, _ in triggers] == targets
    # The smallest of the two refined patches.
    assert all(float(stamp.mask.max()) == pytest.approx(0.1) for _, stamp in triggers)


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


def test_the_bound_as_a_norm():
    norms = [1, 8, 9, 10, 12, 14, 15, 16]
    bound = bound_norm(detect(norms))
    index = detect(norms).indices
    assert [n < bound for n in norms] == [i > 2 for i in index]
    assert bound_norm(detect([1, 2, 2, 2], method="mad")) is None


@pytest.mark.parametrize("norms", [[3.0, 3.0, 3.0], [1e-3, 2e5, 4e5, 5e5], [1.0, 1.01, 1.02]])
def test_charts_of_odd_norms(norms):
    labels = [str(c) for c in range(len(norms))]
    chart = norm_chart(detect(norms), labels=labels, marks={})
    assert chart.count("<rect") == len(norms)
    assert "nan" not in chart
    assert "inf" not in chart


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
