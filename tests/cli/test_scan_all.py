"""``shapprune scan-all``, as a user's shell sees it."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator

from invariants.hostile.building import CANARY, touch
from shapprune.checkpoints.state_dict import save_weights
from shapprune.cli.listing import Entry
from shapprune.cli.main import main
from shapprune.cli.options import ScanAllOptions
from shapprune.cli.scan_task import task_of
from toys import (
    BACKDOOR,
    CLASSES,
    SIDE,
    TARGET,
    BackdooredNet,
    backdoored_net,
    no_norm,
    toy_images,
)

ARCH = f"{Path(__file__).parents[1] / 'toys.py'}:backdoored_net"
BESIDE = ("extra.bin", "scheduler.pt")
SCHEMA = json.loads((files("shapprune.reporting") / "index.schema.json").read_text("utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)
HOSTILE = "<img src=x onerror=alert(1)>&\n.pth"


def clean_net() -> BackdooredNet:
    net = backdoored_net()
    with torch.no_grad():
        net.head.weight.view(CLASSES, 8, 4)[TARGET, BACKDOOR] = 0
    return net


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("data") / "images.npz"
    pixels, labels = toy_images(2)
    pixels = (pixels.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
    np.savez(file, train_images=pixels, train_labels=labels.numpy())
    return file


def command(models: Path, images: Path, out: Path, *more: object) -> list[str]:
    options = ["--arch", ARCH, "--num-classes", CLASSES, "--images", images, "--per-class", 1]
    return [str(part) for part in ("scan-all", models, *options, "--out", out, *more)]


def started(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "shapprune", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def index(out: Path) -> dict:
    found = json.loads((out / "index.json").read_text())
    VALIDATOR.validate(found)
    return found


def begun(told: str) -> list[str]:
    return re.findall(r"^shapprune: (.*): …$", told, re.MULTILINE)


def results(out: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in out.glob("scan_*.json")}


@pytest.fixture(scope="module")
def mirror(tmp_path_factory) -> Path:
    """A registry with a model of each kind."""
    folder = tmp_path_factory.mktemp("mirror")
    (folder / "org" / "good").mkdir(parents=True)
    (folder / "deep" / "er").mkdir(parents=True)
    save_weights(clean_net(), folder / "org" / "good" / "model.safetensors")
    torch.save({"epoch": torch.tensor(3)}, folder / "org" / "good" / "extra.bin")
    save_weights(backdoored_net(), folder / "deep" / "er" / "bad.safetensors")
    torch.save(backdoored_net().state_dict(), folder / "broken.pt")
    whole = (folder / "broken.pt").read_bytes()
    (folder / "broken.pt").write_bytes(whole[: len(whole) // 2])
    (folder / HOSTILE).write_bytes(pickle.dumps(touch()))
    (folder / "org" / "good" / "scheduler.pt").touch()
    (folder / "notes.txt").write_text("nothing")
    return folder


@pytest.fixture(scope="module")
def done(mirror, images, tmp_path_factory) -> tuple[Path, int, str, str]:
    """The folder of results, the exit code and what was told, by two processes side by side."""
    out = tmp_path_factory.mktemp("done") / "out"
    process = started(command(mirror, images, out, "--jobs", 2))
    told, notes = process.communicate(timeout=300)
    return out, process.returncode, told, notes


def test_each_model_gets_its_line_worst_first(done, mirror):
    out, code, told, _ = done
    assert code == 1
    found = index(out)
    assert (found["exit_code"], found["complete"]) == (1, True)
    states = {one["name"]: one["state"] for one in found["models"]}
    assert list(states.items()) == [
        ("deep/er/bad.safetensors", "backdoored"),
        (HOSTILE, "failed"),
        ("broken.pt", "failed"),
        ("org/good", "clean"),
    ]
    bad, hostile, broken, good = found["models"]
    assert bad["target_classes"] == [TARGET]
    assert bad["images"] == CLASSES
    assert "is malicious" in hostile["error"]
    assert "not a whole weights file" in broken["error"]
    beside = [f"not examined: {n}, which lies beside the weights" for n in BESIDE]
    assert good["notes"][: len(BESIDE)] == beside
    assert f"4 models: 1 backdoored, 2 failed, 1 {states['org/good']}; worst first in" in told
    assert not Path(CANARY).exists()
    assert not (mirror / CANARY).exists()


def test_the_index_is_as_its_schema_says(done):
    Draft202012Validator.check_schema(SCHEMA)
    found = index(done[0])
    assert found["$schema"] == SCHEMA["$id"] == f"urn:shapprune:index:{found['schema_version']}"
    assert set(found) == set(SCHEMA["properties"])
    kinds = {"failed": "failed", None: "waiting"}
    for model in found["models"]:
        kind = SCHEMA["$defs"][kinds.get(model["state"], "scanned")]
        assert set(model) == {"name", "weights", *kind["properties"]}
        for field in model:
            without = {name: value for name, value in model.items() if name != field}
            assert not VALIDATOR.is_valid({**found, "models": [without]}), field
    assert VALIDATOR.is_valid({**found, "models": [{"name": "a", "weights": "b", "state": None}]})
    for wrong in ({"exit_code": 130}, {"models": [{**found["models"][0], "state": "failed"}]}):
        assert not VALIDATOR.is_valid({**found, **wrong})


def test_the_docs_name_every_field_of_the_index():
    page = (Path(__file__).parents[2] / "docs" / "outputs.md").read_text("utf-8")
    rows = re.findall(r"^\| (`.+?) \|", page.partition("\n## index.json\n")[2], re.M)
    fields = {field for row in rows for field in re.findall(r"`([\w$]+)`", row)}
    kinds = [SCHEMA["$defs"][kind]["properties"] for kind in ("model", "failed", "scanned")]
    assert fields == {*SCHEMA["properties"], *kinds[0], *kinds[1], *kinds[2]}


def test_the_page_links_to_the_reports_and_escapes_names(done):
    out = done[0]
    page = (out / "index.html").read_text()
    links = re.findall(r'<a href="([^"]+)">([^<]+)</a>', page)
    assert [name for _, name in links] == ["deep/er/bad.safetensors", "org/good"]
    for link, _ in links:
        assert "suspicious" in (out / link).read_text()
        assert (out / link).with_name("result.json").is_file()
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;" in page


def test_nothing_is_done_twice(done, mirror, images, capsys):
    out = done[0]
    before = results(out)
    assert len(before) == 4
    assert main(command(mirror, images, out)) == 1
    told, notes = capsys.readouterr()
    assert "plan: 4 models, 4 done, 0 to do" in told
    assert begun(notes) == []
    assert results(out) == before


def test_what_changed_is_scanned_anew_and_what_failed_on_demand(done, mirror, images, capsys):
    out = done[0]
    os.utime(mirror / "broken.pt")
    main(command(mirror, images, out))
    assert begun(capsys.readouterr().err) == ["broken.pt"]
    main(command(mirror, images, out, "--retry-failed"))
    assert sorted(begun(capsys.readouterr().err)) == sorted(
        [" ".join(HOSTILE.split()), "broken.pt"]
    )


def stamp(weights: Path) -> str:
    options = ScanAllOptions(command="", models=weights, out=Path("out"))
    return task_of(Entry("net", {"weights": str(weights)}), options).stamp


@pytest.mark.parametrize("given", ["hub", "hub/model.safetensors.index.json", "hub/model.bin"])
@pytest.mark.parametrize("kept", ["nothing", "size", "size and time"])
def test_whatever_changes_in_the_weights_is_seen(given, kept, tmp_path):
    hub, weights = tmp_path / "hub", tmp_path / "hub" / "model.bin"
    hub.mkdir()
    (hub / "README.md").symlink_to("nowhere")
    (hub / "model.safetensors.index.json").write_text("{}")
    weights.write_bytes(b"old")
    before = stamp(tmp_path / given)
    assert stamp(tmp_path / given) == before
    times = weights.stat()
    time.sleep(0.05)  # file systems' clocks are coarse
    weights.write_bytes(b"longer" if kept == "nothing" else b"new")
    if kept == "size and time":
        os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert stamp(tmp_path / given) != before


@pytest.fixture
def several(tmp_path) -> list[str]:
    """To scan three models by their margins alone, which is quick."""
    folder = tmp_path / "several"
    folder.mkdir()
    for name in "abc":
        save_weights(no_norm(), folder / f"{name}.safetensors")
    options = ["--arch", ARCH.replace("backdoored_net", "no_norm"), "--num-classes", str(CLASSES)]
    size = ["--input-size", "3", str(SIDE), str(SIDE)]
    return [
        "scan-all",
        str(folder),
        *options,
        *size,
        "--prior-only",
        "--out",
        str(tmp_path / "out"),
    ]


def until(process: subprocess.Popen[str], condition) -> None:
    end = time.time() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.time() < end
        time.sleep(0.02)


def test_a_killed_run_goes_on(several, tmp_path):
    out, told = tmp_path / "out", ""
    for done_by_then in (1, 2):
        process = started(several)
        until(process, lambda count=done_by_then: len(results(out)) >= count)
        before = results(out)
        process.send_signal(signal.SIGKILL)
        told += process.communicate(timeout=60)[1]
    process = started(several)
    told += process.communicate(timeout=300)[1]
    assert process.returncode == 3
    after = results(out)
    assert {name: after[name] for name in before} == before
    assert [one["state"] for one in index(out)["models"]] == ["suspicious"] * 3
    assert len(after) == len(list((out / "models").iterdir())) == 3
    begins = begun(told)
    assert set(begins) == {f"{name}.safetensors" for name in "abc"}
    assert len(begins) <= 3 + 2  # one in hand at each kill
    assert begins.count("a.safetensors") == 1


def test_an_interrupted_run_says_one_line_and_keeps_what_is_done(several, tmp_path):
    out = tmp_path / "out"
    process = started(several)
    until(process, lambda: len(results(out)) >= 1)
    process.send_signal(signal.SIGINT)
    _, notes = process.communicate(timeout=60)
    assert process.returncode == 130
    last = notes.splitlines()[-1]
    assert last == "shapprune: interrupted; what is finished is kept, and the same command goes on"
    assert "Traceback" not in notes
    found = index(out)
    assert not found["complete"]
    assert found["models"][0]["state"] == "suspicious"
    assert found["models"][-1]["state"] is None
    assert "not scanned yet" in (out / "index.html").read_text()


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("name", ["training_args.bin", "head.pkl"])
def test_a_malicious_file_beside_a_model_is_no_clean_model(name, listed, images, tmp_path):
    folder = tmp_path / "hub"
    folder.mkdir()
    save_weights(clean_net(), folder / "model.safetensors")
    (folder / name).write_bytes(pickle.dumps(touch()))
    (tmp_path / "list.json").write_text('["hub"]')
    models = tmp_path / "list.json" if listed else folder
    assert main(command(models, images, tmp_path / "out")) == 2
    (one,) = index(tmp_path / "out")["models"]
    assert one["name"] == "hub"
    assert re.search(rf"{name}, beside the weights, is malicious", one["error"])


@pytest.mark.parametrize(
    ("models", "says"),
    [
        ("nowhere", "shapprune: error: no such file or folder: "),
        ("empty", "holds no weights files: expected a folder of models, or a list"),
        ("net.pth", "is no folder and no list"),
    ],
)
def test_no_models_are_told_before_anything_is_made(tmp_path, images, capsys, models, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "net.pth").touch()
    assert main(command(tmp_path / models, images, tmp_path / "out")) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["index.json", "INDEX.json", "link.json"])
def test_the_list_itself_is_not_written_over(name, mirror, images, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models = tmp_path / ("index.json" if name == "link.json" else name)
    models.write_text(json.dumps([str(mirror / "clean.pth")]))
    if name == "link.json":
        Path(name).symlink_to("index.json")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(command(Path(name), images, Path())) == 2
    assert "would be replaced by the run: name another --out" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--false-alarms", 0.001], "false alarms must be a share from"),
        (["--prior-only"], "--prior-only is for a scan without images"),
    ],
)
def test_options_that_do_not_fit_are_told_first(more, says, mirror, images, tmp_path, capsys):
    assert main(command(mirror, images, tmp_path / "out", *more)) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_among_the_images(mirror, tmp_path, capsys):
    (tmp_path / "images" / "0").mkdir(parents=True)
    assert main(command(mirror, tmp_path / "images", tmp_path / "images" / "scans")) == 2
    assert "lies in --images" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["0"]


@pytest.mark.parametrize("name", ["a\0b.pth", "\ud800.pth"])
def test_weights_that_no_file_can_be_are_one_models_error(name, images, tmp_path, capsys):
    (tmp_path / "list.json").write_text(json.dumps([name]))
    assert main(command(tmp_path / "list.json", images, tmp_path / "out")) == 2
    assert "1 failed" in capsys.readouterr().err
    assert [model["state"] for model in index(tmp_path / "out")["models"]] == ["failed"]


def test_images_that_no_file_can_be_are_one_models_error(mirror, tmp_path, capsys):
    listed = [{"weights": str(mirror / "clean.pth"), "images": "i" * 300, "num_classes": CLASSES}]
    (tmp_path / "list.json").write_text(json.dumps(listed))
    assert main(["scan-all", str(tmp_path / "list.json"), "--out", str(tmp_path / "out")]) == 2
    assert "1 failed" in capsys.readouterr().err
    assert [model["state"] for model in index(tmp_path / "out")["models"]] == ["failed"]
