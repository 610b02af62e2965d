"""The command `bench`: plans, the list, what is refused, the whole way at its least."""

import json
import os
import signal
import subprocess
import sys

import pytest

from bench_files import DIGITS, TWIN, write
from shapprune.cli.main import main
from shapprune.running import runner
from shapprune_bench import command
from shapprune_bench.tables.cells import Cell
from shapprune_bench.tables.experiments import BADNETS, EXPERIMENTS, models_of
from shapprune_bench.tables.rankings import RANKINGS


def test_a_dry_run_prints_the_plan_and_does_nothing(tmp_path, capsys):
    out = tmp_path / "results"
    assert main(["bench", "table2", "--profile", "cpu", "--out", str(out), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "plan: 18 cells, 0 done, 18 to do" in told
    assert "to train: cifar10-vgg16, cifar10_13k-vgg16_bn-clean, gtsrb-trojan" in told
    some = ["--rows", "gtsrb-trojan", "--methods", "ours", "deepinspect"]
    command = ["bench", "table2", "--profile", "cpu", "--out", str(out), "--dry-run", *some]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "plan: 4 cells, 0 done, 4 to do\nto train: gtsrb-trojan, gtsrb_14k-table3" in told
    of_ours = ["bench", "table1", "--profile", "cpu", "--methods", "ours", "--out", str(out)]
    for draws, count in ((["--draws", "1"], 9), (["--draws", "2"], 18), ([], 27)):
        assert main([*of_ours, "--dry-run", *draws]) == 0
        assert f"plan: {15 + count} cells" in capsys.readouterr().out  # and 15 models
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
    assert f"beside these: population, {', '.join(command.STUDIES)}\n" in told
    assert f"missing in {tmp_path}: cifar10_13k.npz" in told.replace("\n", "")
    cells = list(EXPERIMENTS["table1"].cells("cpu"))
    assert str(len(cells) + len(models_of(cells))) in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table9", "--out", "x"], "bench does not know 'table9': did you mean 'table"),
        (["x", "--out", "x"], "bench does not know 'x': it knows models, table1, table2, table5"),
        (["table1"], "--out DIR must tell"),
        (["table1", "--out", "x", "--methods", "magic"], "no 'magic' among its methods: fine-"),
        (
            ["ranking", "--profile", "zoo", "--out", "x", "--methods", "paper-o"],
            f"its methods: {', '.join(RANKINGS)}",
        ),
        (["models", "--out", "x", "--methods", "clp"], "no 'clp' among its methods: none"),
        (["fig3", "--out", "x", "--rows", "digits", "--profile", "cpu"], ", ".join(BADNETS)),
        (["report"], "needs a folder of results"),
        (["growth", "--out", "x", "--methods", "ours"], "growth takes no --methods"),
        (["table1", "--out", "x", "--calibrate", "c"], "table1 takes no --calibrate"),
        (["detection", "m", "--out", "x", "--by-verdict"], "detection takes no --by-verdict"),
        (["growth", "--out", "x", "--draws", "2"], "growth takes no --draws"),
        (["table1", "--out", "x", "--per-class", "5"], "table1 takes no --per-class"),
        (["list", "--rows", "x"], "list takes no --rows"),
        (["robustness", "m", "--out", "x", "--seed", "3"], "robustness takes no --seed"),
        (["table1", "--out", "x", "--profile", "cpu"], "missing in ., see --data-root: mnist.npz"),
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


def test_ctrl_c_is_told_in_one_line(tmp_path):
    """A terminal sends it to all processes, of which one is importing torch just then."""
    process = subprocess.Popen(
        [sys.executable, "-m", "shapprune", "bench", "table1", "--out", str(tmp_path / "out")],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline().endswith("…\n")  # the first cell has been handed out
    os.killpg(process.pid, signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert rest.count("\n") == 1, rest
    assert "what is finished is kept" in rest


def test_a_package_that_a_study_needs_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(command.STUDIES, "growth", "no_such_package")
    assert main(["bench", "growth", "--out", str(tmp_path)]) == 2
    needs = "growth needs no_such_package: pip install 'shapprune[bench]'"
    assert needs in capsys.readouterr().err


@pytest.mark.parametrize("what", ["detection", "detection-cost", "repair"])
def test_what_is_measured_on_a_manifest_needs_one(what, tmp_path, capsys):
    assert main(["bench", what, "--out", str(tmp_path)]) == 2
    assert f"{what} needs a manifest or a folder of models" in capsys.readouterr().err


def test_what_is_missing_is_told_with_the_plan(tmp_path, capsys):
    """And a calibration of too few models before they are scanned."""
    (tmp_path / "net.safetensors").touch()
    one = {"arch": "a:b", "num_classes": 3, "backdoored": False}
    models = [{"name": name, "weights": f"{name}.safetensors", **one} for name in ("net", "none")]
    (tmp_path / "list.json").write_text(json.dumps({"format": 1, "models": models}))
    out = ["--out", str(tmp_path / "out"), "--dry-run"]
    command = ["bench", "detection", str(tmp_path / "list.json"), *out]
    assert main(command) == 2
    assert "none.safetensors does not exist, which is needed" in capsys.readouterr().err
    assert main([*command, "--rows", "net"]) == 0
    assert "plan: 1 scans, 0 done, 1 to do" in capsys.readouterr().out
    assert main([*command, "--calibrate", str(tmp_path / "c.json")]) == 2
    assert "needs poisoned models of two groups at least" in capsys.readouterr().err
