"""What a repair costs a clean model: a run on tiny models, and the page."""

import json

from bench_files import tiny_manifest
from shapprune.cli.main import main
from shapprune_bench.documentation.repairs import clean_repair_tables
from shapprune_bench.studies.clean_repair import report


def test_clean_models_alone_are_repaired_and_scored(tmp_path, capsys):
    manifest, out = tiny_manifest(tmp_path), tmp_path / "results" / "clean-repair" / "test"
    out.parent.mkdir(parents=True)
    command = ["bench", "clean-repair", str(manifest), "--out", str(out)]
    assert main(command) == 0
    (file,) = out.glob("clean-repair_*.json")  # the poisoned one is left out
    result = json.loads(file.read_text())
    assert result["cell"]["specimen"]["name"] == "clean"
    assert result["before"]["accuracy"] > 0.5
    ((*mapping,),) = result["treated"]  # of the highest score: one target of the two others
    (target,) = {to for to in mapping if to is not None}
    assert mapping[target] is None
    assert result["passes"] > 0
    lost = 100 * (result["before"]["accuracy"] - result["after"]["accuracy"])
    page = (out / "report.md").read_text()
    assert f"| {lost:.1f} ({lost:.1f}) |" in page
    (table,) = clean_repair_tables(tmp_path / "results")
    assert table.rows[0][:2] == ["clean", "1"]
    capsys.readouterr()
    assert main(command) == 0
    assert "1 repairs, 1 done, 0 to do" in capsys.readouterr().out


def test_poisoned_models_alone_are_nothing_to_measure(tmp_path, capsys):
    manifest = tiny_manifest(tmp_path)
    command = ["bench", "clean-repair", str(manifest), "--out", str(tmp_path / "out")]
    assert main([*command, "--rows", "poisoned"]) == 2
    assert "none of the models is one that it measures" in capsys.readouterr().err


def test_the_page_holds_medians_and_the_worst():
    class Task:
        class specimen:
            name = "net"

    losses = [0.01, 0.03, 0.02]
    done = [
        (
            Task,
            {
                "before": {"accuracy": 0.9},
                "after": {"accuracy": 0.9 - lost},
                "sufficient": False,
                "seconds": 3.0,
            },
        )
        for lost in losses
    ]
    page = report(done)["report.md"].decode()
    assert "| net | 3 | 90.0 | 2.0 (3.0) | 0 | 3 |" in page
    assert "| all 1 | 3 |  | 2.0 (3.0) |  |  |" in page
