"""README.md and docs say what the files of results say, and no figure in them is typed by hand."""

import json
import re
import runpy
import shutil
from pathlib import Path
from statistics import median

import pytest

from bench_files import repair_file
from shapprune_bench.documentation import pages
from shapprune_bench.documentation.figures import DEMO, draws_told, figures
from shapprune_bench.documentation.marks import unmarked
from shapprune_bench.documentation.results import summary

ROOT = Path(__file__).parents[3]
MEASURED = ROOT / "benchmarks" / "results"
PROSE = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Beside the files of results, and not written by the script.
BESIDE = [MEASURED / name / "README.md" for name in (".", "growth", "detection_cost")]

# What has a point or a per cent sign and was not measured here, and why it may stand.
ALLOWED = {
    "version 0.1.0": "a version",
    "rules 2.0": "a version",
    "0.1.0 instead of paper": "a version",
    "SARIF 2.1.0": "a version",
    "Python 3.10": "a version",
    "Apache-2.0": "a licence",
    "(Sec. 4.4)": "a section of the paper",
    "(Sec. 4.2": "a section of the paper",
    "a rate of 0.01 on 2 % of the training images": "Min et al.'s settings",
    "SGD, 0.01 with": "a setting of the experiment",
    "1.5 million opcodes": "a limit, of the inspection",
    "q in [0.6, 1]": "a setting of the estimator",
    "q in [0.8, 1]": "a setting of the estimator",
}
FIGURE = re.compile(r"\d+\.\d+|\d\s*%|\d+ per cent")


def typed_by_hand(text: str) -> list[str]:
    """Figures outside marks, code, links and what is allowed, with words around them."""
    text = re.sub(r"^```.*?^```|^ {4}.*?$", "", unmarked(text), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", "", text)
    text = " ".join(text.split())
    for words in ALLOWED:
        text = re.sub(re.escape(words), "", text, flags=re.IGNORECASE)
    return [text[max(0, m.start() - 40) : m.end() + 20] for m in FIGURE.finditer(text)]


@pytest.fixture(scope="module")
def known() -> dict[str, str]:
    return figures(ROOT)


def test_every_page_is_that_of_the_files():
    """If this fails: ``python -m shapprune_bench.documentation``."""
    made = pages.pages(ROOT)
    assert made.keys() >= set(PROSE)
    for file, text in made.items():
        assert file.read_text(encoding="utf-8") == text, file.name


@pytest.mark.parametrize("page", [*PROSE, *BESIDE], ids=lambda page: str(page.relative_to(ROOT)))
def test_no_figure_is_typed_by_hand(page):
    """If this fails: mark the figure, see `shapprune_bench.documentation.marks`."""
    assert not typed_by_hand(page.read_text(encoding="utf-8"))


def test_nothing_is_allowed_that_no_page_says():
    prose = " ".join(
        " ".join(page.read_text(encoding="utf-8").split()) for page in [*PROSE, *BESIDE]
    )
    assert [words for words in ALLOWED if words.lower() not in prose.lower()] == []


@pytest.mark.parametrize("text", ["leaves 2.2 of it", "falls to 3 %", "98 per cent", "| 5% |"])
def test_a_typed_figure_is_seen(text):
    assert typed_by_hand(text)
    assert not typed_by_hand(f"`{text}` [a](b-1.2.md) <!-- fig a -->2.2<!-- /fig --> % of it")


def test_figures_of_repairs_counted_by_hand(known):
    files = sorted((MEASURED / "repairs" / "foreign").glob("repair_sashank-cifar_1a_*.json"))
    runs = [json.loads(file.read_text()) for file in files]
    newest = max(run["cell"]["rules"] for run in runs)
    asr = [100 * r["after"]["asr"] for r in runs if r["cell"]["rules"] == newest]
    name = "repairs.foreign.sashank_cifar.asr"
    told = [known[name], known[f"{name}.least"], known[f"{name}.most"]]
    assert told == [f"{value:.1f}" for value in (median(asr), min(asr), max(asr))]


def test_figures_are_of_the_newest_rules_of_each_model(tmp_path):
    folder = tmp_path / "benchmarks" / "results" / "repairs" / "some"
    repair_file(folder, "both", 0, "2.9", lost=0.5, asr=0.5)
    repair_file(folder, "both", 0, "2.10", lost=0.02, asr=0.04)
    repair_file(folder, "old", 0, "2.9", lost=0.03, asr=0.08)
    known = figures(tmp_path)
    assert known["repairs.some.both.lost"] == "2.0"
    assert known["repairs.some.old.asr"] == "8.0"
    assert (known["repairs.some.lost.least"], known["repairs.some.asr.most"]) == ("2.0", "8.0")
    assert known["repairs.some.asr"] == "6.0"
    assert known["repairs.some.both.sufficient"] == "1 of 1"


def test_figures_of_verdicts_and_costs_counted_by_hand(known):
    scans = json.loads((MEASURED / "detection" / "dev" / "detection.json").read_text())["scans"]
    accused = [s["model"] for s in scans if not s["backdoored"] and s["verdict"] == "backdoored"]
    assert known["detection.dev.clean.backdoored"] == str(len(accused))
    assert known["detection.dev.clean.accused_models"] == str(len(set(accused)))
    growth = json.loads((MEASURED / "growth" / "classes-10.json").read_text())
    assert known["passes.10"] == f"{growth['passes']:,}"
    cost = json.loads((MEASURED / "detection_cost" / "verazuo_mnist.json").read_text())
    times = cost["neural_cleanse"]["passes_in_all"] / cost["scan"]["passes"]
    assert known["neural_cleanse.verazuo_mnist.passes"] == f"{times:.0f}"


def test_figures_of_draws_counted_by_hand(known):
    def scan(model, seed, verdict, backdoored=False):
        return {"model": model, "seed": seed, "verdict": verdict, "backdoored": backdoored}

    said = {"a": ("clean", "suspicious", "backdoored"), "b": ("suspicious", "suspicious", "clean")}
    scans = [scan(m, seed, v) for m, some in said.items() for seed, v in enumerate(some)]
    found = dict(
        draws_told("here", [*reversed(scans), scan("c", 0, "suspicious", backdoored=True)])
    )
    assert found == {
        "here.draws.other": "3 of 4",
        "here.again.clean": "3 of 6",  # of a's one: 1 of 2; of b's two: 1 of 2 each
        "here.again.poisoned": "0 of 0",
    }
    sig = json.loads((MEASURED / "detection" / "test" / "detection.json").read_text())["scans"]
    sig = [s["found"] for s in sig if s["attack"] == "sig"]
    assert known["detection.test.found.sig"] == f"{sum(sig)} of {len(sig)}"


def test_what_a_repair_costs_clean_models_is_told_set_by_set(known):
    """Its own page of the same files has the median and the worst by other code."""
    for folder in ("test_again", "foreign"):
        page = (MEASURED / "clean-repair" / folder / "report.md").read_text(encoding="utf-8")
        (models, told, worst) = re.findall(r"^\| all (\d+) \|.*\| (\S+) \((\S+)\) \|", page, re.M)[
            0
        ]
        name = f"clean_repair.{folder}"
        assert [known[f"{name}{end}"] for end in (".models", ".lost", ".lost.most")] == [
            *(models, told, worst)
        ]


def test_what_a_stopped_scan_would_have_cost_is_told_by_its_pace(known):
    stopped = json.loads((MEASURED / "growth" / "resnet50.json").read_text())
    whole = json.loads((MEASURED / "growth" / "classes-1000.json").read_text())["passes"]
    hours = stopped["seconds"] * whole / stopped["passes"] / 3600
    assert known["growth.resnet50.hours"] == f"{hours:.0f}"


def test_figures_of_robustness_are_the_pages(known):
    """Its own page of the same files counts by other code."""
    page = (MEASURED / "robustness" / "report.md").read_text(encoding="utf-8")
    for condition, name in (("base, other draws", "draws"), ("jpeg-30", "jpeg-30")):
        row = re.findall(rf"^\| {condition} \| \d+ \| (.*) \|$", page, re.M)[0]
        accused, *_ = (cells := row.split(" | "))
        assert known[f"robustness.{name}.accused"] == accused.split(" (")[0]
        assert known[f"robustness.{name}.other"] == cells[5].split(" (")[0]


def test_the_estimators_as_version_0_1_counted_them(known):
    """Its own page of the same files has "found" by other code."""
    page = (MEASURED / "version_0_1" / "shapley" / "README.md").read_text(encoding="utf-8")
    names = ("algorithm1", "multilinear 1/50", "multilinear 1/500")
    for line in known["estimators"].strip().splitlines()[2:]:
        game, *_, first, second, third = [cell.strip() for cell in line.strip("|").split("|")]
        for name, cell in zip(names, (first, second, third), strict=True):
            (row,) = re.findall(rf"^\| {game} \| {re.escape(name)} \| \d+ \| (\d+) ", page, re.M)
            assert cell.split(",")[0] == row, (game, name)


def test_the_figures_of_the_demo_are_those_of_its_picture(known):
    picture = (ROOT / "docs" / "pictures" / "after.svg").read_text(encoding="utf-8")
    for name in ("accuracy_before", "asr_before", "accuracy_after", "asr_after"):
        assert f"> {known[f'demo.{name}']}</text>" in picture
    shapley = (ROOT / "docs" / "pictures" / "shapley.svg").read_text(encoding="utf-8")
    assert f"of {known['demo.neurons']} neurons" in shapley


@pytest.fixture
def small(tmp_path) -> Path:
    """A repository with repairs and a page."""
    shutil.copytree(MEASURED / "repairs", tmp_path / "benchmarks" / "results" / "repairs")
    (tmp_path / DEMO.parent).mkdir(parents=True)
    (tmp_path / DEMO).write_text('{"neurons": 1208}')
    (tmp_path / "README.md").write_text("a\n\n<!-- fig summary -->\n<!-- /fig -->\nz\n")
    (tmp_path / "docs" / "page.md").write_text("of <!-- fig demo.neurons -->2<!-- /fig -->\n")
    return tmp_path


def test_it_writes_pages_and_readme(small):
    written = {str(file.relative_to(small)) for file in pages.write(small)}
    names = ("attacks", "detection", "repair", "retuning", "table1")
    assert written == {"README.md", "docs/page.md", *(f"docs/results/{n}.md" for n in names)}
    text = (small / "README.md").read_text()
    assert summary(small / "benchmarks" / "results") in text
    assert "strangers' models: " in text
    assert text.endswith("\nz\n")
    assert "-->1,208<" in (small / "docs" / "page.md").read_text()


def test_a_name_that_is_not_known_is_a_line_and_nothing_is_written(small, monkeypatch, capsys):
    (small / "docs" / "page.md").write_text("of <!-- fig demo.neuron -->2<!-- /fig -->\n")
    monkeypatch.setattr("sys.argv", ["documentation", str(small)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("shapprune_bench.documentation", run_name="__main__")
    assert ended.value.code == 2
    said = "error: docs/page.md: no figure 'demo.neuron'; is it demo.neurons?\n"
    assert capsys.readouterr().err == said
    assert not (small / "docs" / "results").exists()
