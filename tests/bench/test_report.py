"""The command `bench`: pages from files of results, plans, the list, the whole way at its least."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from shapprune.bench import paper, report, runner
from shapprune.bench.cells import Cell
from shapprune.bench.experiments import (
    BADNETS,
    EXPERIMENTS,
    FORMER,
    ROWS,
    TABLE1,
    TABLE2,
    former,
    models_of,
    rows,
)
from shapprune.bench.plan import plan
from shapprune.bench.rankings import RANKINGS, TRUTH, sizes
from shapprune.bench.runner import read
from shapprune.cli.main import main
from shapprune.reporting import charts, svg

(DIGITS,) = ROWS["smoke"]
TWIN = DIGITS.clean_twin()
NORMS = [4.0, 20, 21, 22, 23, 24, 25, 26, 27, 28]
CURVE = [[0, 0.97, 1.0], [1, 0.96, 0.5], [2, 0.95, 0.0]]


def write(folder, cell: Cell, **measured) -> None:
    content = {"cell": cell.facts(), "state": "done", "seconds": 2.0, "passes": 1234, **measured}
    (folder / f"{cell.name}.json").write_text(json.dumps(content))


def scores(accuracy: float, asr: float) -> dict:
    before = {"accuracy": 0.97, "asr": 1.0}
    return {"before": before, "after": {"accuracy": accuracy, "asr": asr}}


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
    recipe = rows("cpu", BADNETS)[0]
    runs = [(0.90, 0.10), (0.80, 0.00), (0.85, 0.01), (0.70, 0.30), (0.95, 0.30)]
    for seed, score in enumerate(runs):
        write(tmp_path, Cell("defend", recipe, "paper", seed=seed), **scores(*score))
        if seed < 3:
            write(tmp_path, Cell("defend", recipe, "ours", seed=seed), **scores(*score))
    assert main(["bench", "report", str(tmp_path), "--profile", "cpu"]) == 0
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
    folder = Path(__file__).parents[2] / "benchmarks" / "results" / "cpu"
    there = [cell for cell in former(EXPERIMENTS["table1"].cells("cpu")) if read(folder, cell)]
    assert len(there) == 17  # nine of ours-o and all but one of ours-plain


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


def test_a_report_on_nothing(tmp_path):
    assert main(["bench", "report", str(tmp_path)]) == 0
    assert (tmp_path / "report.md").read_text().count("Nothing measured yet.") >= 10
    assert list(tmp_path.glob("*.svg")) == []


def test_a_chart_of_spans_takes_any_number():
    spans = [
        charts.Span("<a>", (1.0, 9.0), {"target": 0.0}),
        charts.Span("b", None, {"mad": 1e999}),
    ]
    chart = charts.span_chart(spans, title="t", bound=2.0)
    assert "nan" not in chart
    assert chart.count('x="0.000%"') == 1  # at the ends of the axis
    assert chart.count('x="100.000%"') == 1
    assert "&lt;a&gt;" in chart
    ElementTree.fromstring(svg.sheet([("", chart)], {"mad": "MAD"}))


def test_a_long_curve_is_labelled_at_every_other_point():
    removed = list(range(100, 120))
    chart = charts.curve_chart(removed, {"asr": [0.5] * 20}, chosen=103)
    labels = [int(n) for n in re.findall(r">(1\d\d)</text>", chart)]
    assert labels == sorted([*range(100, 120, 2), 103])
    assert chart.count("pruned: ASR 50.0%") == 20


def test_several_seeds_are_told_by_median_and_range(measured):
    cells = [Cell("defend", DIGITS, "ours", seed=seed) for seed in range(3)]
    results = [{**scores(a, 0.0), "seconds": a, "passes": 5} for a in (0.9, 0.7, 0.8)]
    assert report._spreads(results) == ["80.00 (70.00 … 90.00)", "0.00"]
    assert report._cost(results) == ("0.8", "5")
    assert report._cost([{"seconds": 1.0}]) == ("1.0", "–")
    assert len({cell.name for cell in cells}) == 3


def test_the_papers_tables_are_whole():
    assert {row for row, _ in paper.TABLE1} == set(TABLE1)
    assert {row for row, _ in paper.TABLE2} == set(TABLE2) == {row for row, _ in paper.TABLE5}
    assert len(paper.TABLE1) == 9 * 6
    assert paper.TABLE1["gtsrb-badnets", "paper"] == (96.94, 0.49)
    assert paper.TABLE2["gtsrb-trojan", "deepinspect"] == (84.43, 33.24)
    assert paper.TABLE5["cifar100-resnet34", "paper"] == (56.34, 1.21)
    for row in TABLE2:  # the paper's Table 2 has the mixture mode
        assert paper.TABLE2[row, "paper-mixture"] == paper.TABLE5[row, "paper-mixture"]


# Plans


@pytest.mark.parametrize("profile", ["cpu", "paper"])
def test_rows_are_the_papers(profile):
    assert [recipe.name for recipe in rows(profile, TABLE1)] == list(TABLE1)
    assert {cell.recipe.profile for e in EXPERIMENTS.values() for cell in e.cells(profile)} == {
        profile
    }


def test_clean_twins_are_shared_by_rows_of_the_same_data_and_network():
    models = [cell.recipe for cell in models_of(list(EXPERIMENTS["table1"].cells("cpu")))]
    assert sum(recipe.rate > 0 for recipe in models) == 9
    twins = [recipe.name for recipe in models if not recipe.rate]
    assert len(twins) == len(set(twins)) == 6
    assert models[0].clean_twin().clean_twin() == models[0].clean_twin()


def test_a_plan_tells_cells_models_and_minutes(tmp_path):
    cells = list(EXPERIMENTS["table1"].cells("cpu"))
    cells = [*models_of(cells), *cells]
    nothing = plan(cells, folder=tmp_path, cache=tmp_path)
    assert (nothing.cells, nothing.left, nothing.seconds) == (168, 168, 0)
    assert len(nothing.train) == 15
    assert "model" in nothing.unknown
    assert "defend ours" in nothing.unknown

    one = Cell("defend", rows("cpu", TABLE1)[0], "ours")
    write(tmp_path, one, wall_seconds=60.0)
    known = plan(cells, folder=tmp_path, cache=tmp_path)
    assert known.left == 167
    assert known.seconds == 26 * 60  # three draws of nine rows, one of which is there
    assert "defend ours" not in known.unknown
    other = [replace(one, per_class=0)]  # the images are recovered first
    assert plan(other, folder=tmp_path, cache=tmp_path).unknown == ("model", "defend ours")
    write(tmp_path, Cell("model", one.recipe), seconds=100.0)
    assert plan(cells, folder=tmp_path, cache=tmp_path).seconds == 26 * 60 + 15 * 100
    lost = plan([one, replace(one, seed=1)], folder=tmp_path, cache=tmp_path)
    assert lost.train == (one.recipe.name,)  # its result is there, but the model itself is not
    assert plan([one], folder=tmp_path, cache=tmp_path).train == ()  # nothing needs it
    write(tmp_path, replace(one, seed=1), state="failed", error="no")
    again = plan(cells, folder=tmp_path, cache=tmp_path, retry_failed=True)
    assert again.left == plan(cells, folder=tmp_path, cache=tmp_path).left + 1


def test_a_dry_run_prints_the_plan_and_does_nothing(tmp_path, capsys):
    out = tmp_path / "results"
    assert main(["bench", "table2", "--profile", "cpu", "--out", str(out), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "plan: 22 cells, 0 done, 22 to do" in told
    assert "to train: cifar10-vgg16, cifar10_13k-vgg16_bn-clean, gtsrb-trojan" in told
    some = ["--rows", "gtsrb-trojan", "--methods", "ours", "deepinspect"]
    command = ["bench", "table2", "--profile", "cpu", "--out", str(out), "--dry-run", *some]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "plan: 4 cells, 0 done, 4 to do\nto train: gtsrb-trojan, gtsrb_14k-table3" in told
    assert not out.exists()


def test_results_of_other_weights_than_the_models_are_told(tmp_path, capsys):
    cells = list(EXPERIMENTS["fig3"].cells("smoke"))
    for cell in [*models_of(cells), *cells]:
        write(tmp_path, cell, weights="here")
    command = ["bench", "fig3", "--profile", "smoke", "--out", str(tmp_path)]
    assert main(command) == 0
    assert "several weights" not in capsys.readouterr().err
    write(tmp_path, cells[0], weights="elsewhere")
    assert main(command) == 0
    assert f"{cells[0].recipe.name}: results of several weights" in capsys.readouterr().err


def test_the_list_tells_cells_and_what_is_missing(tmp_path, capsys):
    assert main(["bench", "list", "--profile", "cpu", "--data-root", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in EXPERIMENTS)
    assert f"missing in {tmp_path}: cifar10_13k.npz" in told.replace("\n", "")
    cells = list(EXPERIMENTS["table1"].cells("cpu"))
    assert str(len(cells) + len(models_of(cells))) in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table9", "--out", "x"], "bench knows models, table1, table2, table5, fig3"),
        (["table1"], "--out DIR must tell"),
        (["table1", "--out", "x", "--methods", "magic"], "no 'magic' among its methods: fine-"),
        (["ranking", "--out", "x", "--methods", "paper-o"], f"its methods: {', '.join(RANKINGS)}"),
        (["models", "--out", "x", "--methods", "clp"], "no 'clp' among its methods: none"),
        (["fig3", "--out", "x", "--rows", "digits", "--profile", "cpu"], ", ".join(BADNETS)),
        (["report"], "needs a folder of results"),
        (["table1", "--out", "no/such/place"], "does not exist"),
        (["table1", "--out", "x", "--device", "tpu"], "device 'tpu' cannot be used"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *arguments]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


# The whole way


def test_the_commit_is_that_of_the_source_tree(tmp_path, monkeypatch):
    assert re.fullmatch(r"[0-9a-f]{7,40}(-dirty)?", runner.commit())
    # An installed copy, in the repository of someone else.
    monkeypatch.setattr(runner, "__file__", str(tmp_path / "runner.py"))
    shutil.copy(runner.subprocess.__file__, tmp_path / "runner.py")
    author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for words in (("init", "-q"), (*author, "commit", "-q", "--allow-empty", "-m", "theirs")):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    assert runner.commit.__wrapped__() == runner.version("shapprune")


def test_the_smallest_table_from_end_to_end(tmp_path, capsys):
    out = tmp_path / "results"
    command = ["bench", "table1", "--methods", "clp", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "shapprune", *command],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("plan: 3 cells, 0 done, 3 to do\nto train: mnist-badnets, ")
    assert "3 cells done, 0 failed" in done.stdout
    file = out / f"{Cell('defend', DIGITS, 'clp').name}.json"
    result, written = json.loads(file.read_text()), file.stat().st_mtime_ns
    assert result["before"]["accuracy"] > 0.9
    assert result["before"]["asr"] >= 0.95
    assert 0 <= result["after"]["asr"] <= 1
    assert [stage["name"] for stage in result["stages"]] == ["clp"]
    assert result["passes"] == result["stages"][0]["passes"] >= 0
    assert result["commit"] == runner.commit()
    model = json.loads((out / f"{Cell('model', DIGITS).name}.json").read_text())
    twin = json.loads((out / f"{Cell('model', TWIN).name}.json").read_text())
    assert result["weights"] == model["weights"] != twin["weights"]
    # 1,000 images, 12 epochs; forward, and backward for weights and activations.
    assert 30_000 < model["passes"] < 45_000

    assert main(command) == 0
    assert "plan: 3 cells, 3 done, 0 to do\nto train: no model" in capsys.readouterr().out
    assert file.stat().st_mtime_ns == written
    assert main(["bench", "report", str(out)]) == 0
    assert "| mnist-badnets | clp |" in (out / "report.md").read_text()
