"""Pages from files of results."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench_files import DIGITS, TWIN, scores, write
from shapprune.cli.main import main
from shapprune.running.runner import read
from shapprune_bench.tables.cells import Cell
from shapprune_bench.tables.experiments import BADNETS, EXPERIMENTS, FORMER, former, rows
from shapprune_bench.tables.rankings import TRUTH, sizes

NORMS = [4.0, 20, 21, 22, 23, 24, 25, 26, 27, 28]
CURVE = [[0, 0.97, 1.0], [1, 0.96, 0.5], [2, 0.95, 0.0]]


@pytest.fixture
def measured(tmp_path):
    """A folder with something of every experiment."""
    write(tmp_path, Cell("model", DIGITS), accuracy=0.97, asr=1.0)
    write(tmp_path, Cell("model", TWIN), accuracy=0.98, asr=0.001)
    write(tmp_path, Cell("defend", DIGITS, "fine-pruning"), **scores(0.9, 0.25), curve=CURVE)
    write(tmp_path, Cell("defend", DIGITS, "paper"), **scores(0.96, 0.01), curve=CURVE, pruned=1)
    write(tmp_path, Cell("defend", DIGITS, "clp"), state="failed", error="ValueError: <b>no</b>")
    mixture = Cell("defend", DIGITS, "paper-mixture", per_class=0)
    write(tmp_path, mixture, **scores(0.8, 0.02), curve=CURVE, commit="abc123")
    few = Cell("defend", DIGITS, "ours", per_class=50)
    write(tmp_path, few, **scores(0.97, 0.0), curve=CURVE, pruned=2)
    for recipe, first in ((DIGITS, 4.0), (TWIN, 19.0)):
        norms = [first, *NORMS[1:]]
        write(tmp_path, Cell("scan", recipe), norms={"patch": norms, "perturbation": norms})
    back = {"accuracy": 0.95, "asr": 0.42}
    write(tmp_path, Cell("retune", DIGITS, "clp"), **scores(0.9, 0.02), retuned=back)
    stages = [
        {"name": n, "seconds": 1.0, "passes": p} for n, p in (("invert", 1000), ("prune", 234))
    ]
    write(tmp_path, Cell("time", DIGITS, "ours"), **scores(0.97, 0.0), stages=stages)
    n = 208
    _, among = sizes(n)
    true = [float(n - i) for i in range(n)]  # the first are the best
    write(tmp_path, Cell("rank", DIGITS, TRUTH), values=true, curve=CURVE)
    # Its best are the true best, but for three that are among the true worst, and one that is just
    # good enough.
    other = [*([0.0] * 3), *true[3:-3], *([999.0] * 3)]
    other[among - 1] = 998.0
    write(tmp_path, Cell("rank", DIGITS, "tmab"), values=other, curve=CURVE)
    return tmp_path


def test_weights_are_told_where_results_are_of_several(measured):
    """A recipe makes other weights on another machine: one figure may not mix them in silence."""
    norms = {"patch": NORMS, "perturbation": NORMS}
    write(measured, Cell("defend", DIGITS, "paper"), **scores(0.9, 0), curve=CURVE, weights="aaa")
    write(measured, Cell("scan", DIGITS), norms=norms, weights="aaa")
    assert main(["bench", "report", str(measured)]) == 0
    assert "| mnist-badnets | 4.00 |" in (measured / "report.md").read_text()
    write(measured, Cell("scan", DIGITS), norms=norms, weights="bbb")
    assert main(["bench", "report", str(measured)]) == 0
    assert "| mnist-badnets bbb | 4.00 |" in (measured / "report.md").read_text()
    assert "mnist-badnets bbb" in (measured / "fig10.svg").read_text()
    assert "mnist-badnets aaa, paper" in (measured / "fig3.svg").read_text()


def test_every_table_has_ours_beside_the_papers(measured):
    assert main(["bench", "report", str(measured)]) == 0
    text = (measured / "report.md").read_text()
    assert "| mnist-badnets | 97.00 | 98.00 | 100.00 | 2.0 | 1,234 |" in text
    table1 = text[text.index("## Table 1") : text.index("## Table 2")]
    assert "|  |  | before | fine-pruning | paper | neural-cleanse |" in table1
    assert "| mnist-badnets | measured | 97.00 / 100.00 | 90.00 / 25.00 | 96.00 / 1.00 |" in table1
    # What the paper has and nobody has measured is shown all the same.
    assert "|  | paper | 99.02 / 100.00 | 97.00 / 3.02 | 98.99 / 0.34 | 98.64 / 29.87 |" in table1
    assert "| mnist-badnets | fine-pruning | 90.00 | 25.00 | – | 1 | 2.0 | 1,234 |" in table1
    table2 = text[text.index("## Table 2") : text.index("## Table 5")]
    assert "| mnist-badnets | measured | 97.00 / 100.00 | 80.00 / 2.00 |" in table2
    # The median is 23.5; below it lie 19.5, 3.5, 2.5, 1.5, 0.5, so MAD-small is 2.5.
    index = f"{19.5 / (2.5 / 0.6744897501960817):.2f}"
    assert f"| mnist-badnets | 4.00 | 20.00 … 28.00 | {index} | {index} |" in text
    suspects = re.findall(r"\| (\w+) \| 2\.0 \|", text[text.index("Fig. 10 and 11 as") :])
    assert suspects[:2] == ["0", "none"]
    assert f"| {TWIN.name} | – | 20.00 … 28.00 |" in text
    assert "| ours | all | 2.0 | 1,234 | – |" in text
    assert "|  | invert | 1.0 | 1,000 |  |" in text
    top = sizes(208)[0]
    assert f"| tmab | {top - 3} of {top} | 27 of 50 |" in text
    assert "| monte-carlo | – | – | – | 50.0 | 1 |" in text  # the mean of 100, 50 and 0
    assert (
        "| defend | mnist-badnets | paper-mixture | 0 | 0 | 2.0 | 1,234 | abc123 | done |" in text
    )
    retuned = text[text.index("## Retuning") : text.index("## Every cell")]
    pairs = "97.00 / 100.00 | 90.00 / 2.00 | 95.00 / 42.00 | +40.00"
    assert f"| mnist-badnets | clp | {pairs} | 2.0 | 1,234 |" in retuned
    assert "| failed: ValueError: <b>no</b> |" in text
    assert "| missing |" in text
    assert "Nothing measured yet." not in text
    shown = (measured / "report.html").read_text()
    assert "failed: ValueError: &lt;b&gt;no&lt;/b&gt;" in shown


def test_each_of_several_weights_has_a_line_of_its_own(tmp_path):
    met = {"clp": ("aa", 0.25), "anp": ("aa", 0.5), "ours": ("bb", 0.75)}
    for method, (weights, asr) in met.items():
        write(tmp_path, Cell("defend", DIGITS, method), **scores(0.9, asr), weights=weights)
    told = "a line for each that was met"

    def report() -> str:
        assert main(["bench", "report", str(tmp_path)]) == 0
        return (tmp_path / "report.md").read_text()

    text = report()
    assert text.count(told) == 1
    both = {method: f"90.00 / {100 * asr:.2f}" for method, (_, asr) in met.items()}
    columns = re.search(r"\|  \|  \| before \| (.*) \|", text)
    assert columns
    for line, mine in (("aa", {"clp", "anp"}), ("bb", {"ours"})):
        found = re.search(rf"\| mnist-badnets {line} \| measured \| [^|]* \| (.*) \|", text)
        assert found
        entries = dict(zip(columns[1].split(" | "), found[1].split(" | "), strict=True))
        assert entries == {m: both[m] if m in mine else "–" for m in entries}
        assert mine < set(entries)
        assert len(re.findall(rf"\| mnist-badnets {line} \| \w+ \| 90.00 \|", text)) == len(mine)
    write(tmp_path, Cell("defend", DIGITS, "ours"), **scores(0.9, 0.25), weights="aa")
    text = report()
    assert told not in text
    assert "mnist-badnets aa" not in text


def test_of_five_runs_the_best_is_told_beside_the_median(tmp_path):
    recipe = rows("paper", BADNETS)[0]
    runs = [(0.90, 0.10), (0.80, 0.00), (0.85, 0.01), (0.70, 0.30), (0.95, 0.30)]
    for seed, score in enumerate(runs):
        write(tmp_path, Cell("defend", recipe, "paper", seed=seed), **scores(*score))
        if seed < 3:
            write(tmp_path, Cell("defend", recipe, "ours", seed=seed), **scores(*score))
    assert main(["bench", "report", str(tmp_path), "--profile", "paper"]) == 0
    text = (tmp_path / "report.md").read_text()
    measured = re.search(r"\| mnist-badnets \| measured \|.*", text)
    assert measured
    # Of 80, 80, 84, 40 and 65 points of ACC less ASR.
    assert "| 85.00 / 10.00 (best 85.00 / 1.00) |" in measured[0]
    assert "| 85.00 / 1.00 |" in measured[0]
    assert "| mnist-badnets | ours | 85.00 (80.00 … 90.00) | 1.00 (0.00 … 10.00) |" in text


def test_results_of_version_0_1_are_shown_by_what_they_are(tmp_path):
    """Their files keep their names; nothing computes such cells any more."""
    for old, score in (("ours-plain", 0.91), ("ours-o", 0.92)):
        write(tmp_path, Cell("defend", DIGITS, old), **scores(score, 0.5), curve=CURVE)
    write(tmp_path, Cell("defend", DIGITS, "ours-mixture", per_class=0), **scores(0.93, 0.5))
    write(tmp_path, Cell("time", DIGITS, "ours-plain"), **scores(0.9, 0.5), stages=[])
    assert main(["bench", "report", str(tmp_path)]) == 0
    text = (tmp_path / "report.md").read_text()
    assert "| 0.1.0 instead of paper | 91.00 | 50.00 |" in text
    assert "| 0.1.0 instead of paper-o | 92.00 | 50.00 |" in text
    assert "| 0.1.0 instead of paper-mixture | 93.00 | 50.00 |" in text
    assert "| 0.1.0 instead of paper | all | 2.0 | 1,234 | – |" in text
    assert "mnist-badnets, 0.1.0 instead of paper" in (tmp_path / "fig3.svg").read_text()
    assert "not computed any more" in text
    planned = [cell for e in EXPERIMENTS.values() for cell in e.cells("smoke")]
    assert {cell.method for cell in planned}.isdisjoint(FORMER.values())
    folder = Path(__file__).parents[3] / "benchmarks" / "results" / "cpu"
    there = [cell for cell in former(EXPERIMENTS["table5"].cells("cpu")) if read(folder, cell)]
    assert len(there) == 4  # by either mode on two rows


def test_every_figure_is_a_picture_of_its_own_and_on_the_page(measured):
    assert main(["bench", "report", str(measured)]) == 0
    text, shown = ((measured / f"report.{end}").read_text() for end in ("md", "html"))
    names = ("fig3", "fig4", "fig7to9", "fig10", "fig11", "ranking")
    panels = dict.fromkeys(names, 2) | {"fig10": 1, "fig11": 1, "fig4": 2}
    for name in names:
        assert f"]({name}.svg)" in text
        picture = ElementTree.fromstring((measured / f"{name}.svg").read_text())
        charts_in = [e for e in picture.iter() if e.get("class") == "chart"]
        assert len(charts_in) == panels[name], name
    assert shown.count('class="chart"') == sum(panels.values())
    assert "1 pruned: ASR 50.0%" in (measured / "fig3.svg").read_text()
    assert "mnist-badnets, ours, 50 images a class" in shown
    stars = re.findall(r"mnist-badnets: target 4", (measured / "fig10.svg").read_text())
    assert len(stars) == 1


def test_a_report_on_nothing(tmp_path, capsys):
    """A page of another command's folder, as of scans, is not written over either."""
    (tmp_path / "report.md").write_text("of scans")
    assert main(["bench", "report", str(tmp_path)]) == 2
    assert "no results of the profile smoke" in capsys.readouterr().err
    assert (tmp_path / "report.md").read_text() == "of scans"


def test_a_report_goes_where_it_is_told(measured, tmp_path):
    assert main(["bench", "report", str(measured), "--out", str(tmp_path / "pages")]) == 0
    assert (tmp_path / "pages" / "report.md").exists()
