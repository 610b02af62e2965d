"""The command `bench`: pages from files of results, the list, and the whole way at its smallest."""

import json
import os
import subprocess
import sys

import pytest

from shapprune.bench import page
from shapprune.bench.cells import Cell
from shapprune.bench.experiments import EXPERIMENTS, ROWS, models_of
from shapprune.cli import main

(DIGITS,) = ROWS["smoke"]


def write(folder, cell: Cell, **measured) -> None:
    content = {"cell": cell.facts(), "state": "done", "seconds": 2.0, **measured}
    (folder / f"{cell.name}.json").write_text(json.dumps(content))


def test_tables_from_hand_made_results(tmp_path):
    write(tmp_path, Cell("model", DIGITS), accuracy=0.97, asr=1.0)
    write(tmp_path, Cell("model", DIGITS.clean_twin()), accuracy=0.98, asr=0.001)
    scores = {"before": {"accuracy": 0.97, "asr": 1.0}, "after": {"accuracy": 0.9, "asr": 0.25}}
    write(tmp_path, Cell("defend", DIGITS, "fine-pruning"), passes=1234, **scores)
    write(tmp_path, Cell("defend", DIGITS, "clp"), state="failed", error="ValueError: <b>no</b>")
    norms = [4.0, 20, 21, 22, 23, 24, 25, 26, 27, 28]
    write(tmp_path, Cell("scan", DIGITS), passes=9, norms={"patch": norms, "perturbation": norms})

    assert main(["bench", "report", str(tmp_path)]) == 0
    text = (tmp_path / "report.md").read_text()
    assert "| mnist-badnets | 97.00 | 100.00 | 98.00 | 2 |" in text
    assert "| mnist-badnets | before | 97.00 | 99.02 | 100.00 | 100.00 | – |" in text
    assert "| mnist-badnets | fine-pruning | 90.00 | 97.00 | 25.00 | 3.02 | 1 |" in text
    assert "| mnist-badnets | anp | – | – | – | – | 0 |" in text  # not measured
    # The median is 23.5; below it lie 19.5, 3.5, 2.5, 1.5, 0.5, so MAD-small is 2.5.
    index = 19.5 / (2.5 / 0.6744897501960817)
    poisoned = f"| mnist-badnets | poisoned | 4.00 | 20.00 … 28.00 | {index:.2f} | {index:.2f} |"
    assert poisoned in text
    assert "| defend | mnist-badnets | fine-pruning | 0 | 2.0 | 1,234 | done |" in text
    assert "| failed: ValueError: <b>no</b> |" in text
    assert "| missing |" in text
    assert text.count("Nothing measured yet.") == 1  # the table of times
    shown = (tmp_path / "report.html").read_text()
    assert "failed: ValueError: &lt;b&gt;no&lt;/b&gt;" in shown


def test_several_seeds_are_told_by_median_and_range():
    assert page._spread([3.0, 1.0, 2.0]) == "2.00 (1.00 … 3.00)"
    assert page._spread([]) == "–"


def test_the_list_tells_cells_and_what_is_missing(tmp_path, capsys):
    assert main(["bench", "list", "--profile", "cpu", "--data-root", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in EXPERIMENTS)
    assert f"missing in {tmp_path}: cifar10_13k.npz" in told.replace("\n", "")
    cells = list(EXPERIMENTS["table1"].cells("cpu"))
    assert str(len(cells) + len(models_of(cells))) in told


def test_every_model_has_a_clean_twin():
    found = models_of(list(EXPERIMENTS["table1"].cells("smoke")))
    assert [cell.recipe.rate > 0 for cell in found] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table9", "--out", "x"], "bench knows table1, fig10, fig11, time, list, report"),
        (["table1"], "--out DIR must tell"),
        (["table1", "--out", "x", "--methods", "magic"], "none of the methods magic"),
        (["report"], "needs a folder of results"),
        (["table1", "--out", "no/such/place"], "does not exist"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *arguments]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_the_smallest_table_from_end_to_end(tmp_path):
    out = tmp_path / "results"
    command = [sys.executable, "-m", "shapprune", "bench", "table1", "--methods", "clp"]
    done = subprocess.run(
        [*command, "--out", str(out)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert "3 cells done, 0 failed" in done.stdout
    assert main(["bench", "report", str(out)]) == 0
    result = json.loads((out / f"{Cell('defend', DIGITS, 'clp').name}.json").read_text())
    assert result["before"]["accuracy"] > 0.5
    assert 0 <= result["after"]["asr"] <= 1
    assert result["passes"] >= 0
    assert "| mnist-badnets | clp |" in (out / "report.md").read_text()
