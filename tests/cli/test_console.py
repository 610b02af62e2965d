"""What is printed never costs a result."""

import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shapprune.checkpoints.state_dict import save_weights
from shapprune.cli.console import careful_output, print_note, print_result
from shapprune.cli.main import main
from toys import CLASSES, SIDE, backdoored_net, toy_images

ARCH = f"{Path(__file__).parents[1] / 'toys.py'}:backdoored_net"


class Broken(io.StringIO):
    """A stream that nobody reads any more, or with a full disk behind it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.error = OSError(number, os.strerror(number))

    def write(self, text: str) -> int:
        raise self.error

    def flush(self) -> None:
        raise self.error


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS = {
    "broken pipe": lambda: Broken(errno.EPIPE),
    "full disk": lambda: Broken(errno.ENOSPC),
    "terminal gone": lambda: Broken(errno.EIO),
    "closed": closed,
    "none": lambda: None,
}


@pytest.mark.parametrize("kind", STREAMS)
def test_what_cannot_be_printed_is_lost_without_harm(monkeypatch, kind):
    monkeypatch.setattr(sys, "stdout", STREAMS[kind]())
    monkeypatch.setattr(sys, "stderr", STREAMS[kind]())
    with careful_output():
        for _ in range(2):
            print_result("100 → 2 \udc80")
            print_note("x ≤ 3")


def test_letters_that_a_terminal_lacks_are_question_marks(monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    with careful_output():
        for _ in range(2):
            print_result("100 → 2 \udc80")
            print_note("x ≤ 3")
    assert sys.stdout.buffer.getvalue().splitlines() == [b"100 ? 2 ?"] * 2
    assert sys.stderr.buffer.getvalue().splitlines() == [b"shapprune: x ? 3"] * 2


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("given") / "net.safetensors"
    save_weights(backdoored_net(), path)
    return path


@pytest.mark.parametrize("command", ["scan", "repair", "recover", "inspect", "poison", "bench"])
def test_files_and_exit_codes_do_not_depend_on_who_listens(
    monkeypatch, tmp_path, capsys, weights, command
):
    given = [command, str(weights)]
    if command == "bench":
        given = ["bench", "list"]
    elif command == "poison":
        images, labels = toy_images()
        pixels = (images * 255).byte().permute(0, 2, 3, 1).numpy()
        arrays = {"images": pixels, "labels": labels.numpy()}
        both = {f"{part}_{n}": a for part in ("train", "test") for n, a in arrays.items()}
        np.savez(weights.parent / "data.npz", **both)
        given = ["poison", "--attack", "badnets", "--epochs", "1", "--arch", ARCH, "--overwrite"]
        given += ["--data", str(weights.parent / "data.npz"), "--num-classes", str(CLASSES)]
        given += ["--out", str(tmp_path / "out")]
    elif command != "inspect":
        given += ["--arch", ARCH, "--num-classes", str(CLASSES), "--out", str(tmp_path / "out")]
        given += ["--input-size", "3", str(SIDE), str(SIDE), "--overwrite"]
    if command == "repair":
        given += ["--prune", "1"]
    code = main(given)
    left = {file.name for file in tmp_path.rglob("*")}
    assert code != 2, capsys.readouterr().err
    for file in tmp_path.rglob("*.*"):
        file.unlink()
    monkeypatch.setattr(sys, "stdout", Broken(errno.EPIPE))
    monkeypatch.setattr(sys, "stderr", Broken(errno.ENOSPC))
    assert main(given) == code
    assert {file.name for file in tmp_path.rglob("*")} == left


def test_files_come_before_words(monkeypatch, tmp_path, weights):
    """By the time of the first line on the standard output, all files are there."""
    out, seen = tmp_path / "out", []

    class Listener(io.StringIO):
        def write(self, text: str) -> int:
            seen.append({file.name for file in out.iterdir()} if out.is_dir() else set())
            return len(text)

    monkeypatch.setattr(sys, "stdout", Listener())
    given = ["--arch", ARCH, "--num-classes", str(CLASSES), "--input-size", "3", "12", "12"]
    main(["scan", str(weights), *given, "--out", str(out)])
    assert seen
    assert all(files >= {"report.html", "result.json"} for files in seen)


def test_what_cannot_be_written_is_told_all_the_same(monkeypatch, tmp_path, capsys, weights):
    """The disk fills up during the work: exit code 2, and the verdict stands on the terminal."""
    given = ["--arch", ARCH, "--num-classes", str(CLASSES), "--input-size", "3", "12", "12"]

    def full(*_: object, **__: object) -> None:
        from shapprune.errors import InputError

        raise InputError("cannot write: No space left on device")

    monkeypatch.setattr("shapprune.cli.console.write_folder", full)
    assert main(["scan", str(weights), *given, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr()
    assert "verdict: " in told.out
    assert told.err.splitlines()[-1] == "shapprune: error: cannot write: No space left on device"


# As a shell sees it


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


COMMAND = [sys.executable, "-m", "shapprune"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
@pytest.mark.parametrize("options", ["--version", "inspect"])
def test_a_full_disk_behind_the_output(weights, options):
    given = [options] if options.startswith("-") else [options, str(weights)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *given], stdout=full, stderr=subprocess.PIPE, env=environment(), check=False
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_stops(weights):
    process = subprocess.Popen(
        [*COMMAND, "inspect", str(weights)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 0


@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_while_modules_are_imported(tmp_path, ignored):
    """Torch, here one that takes its time, is imported long before anything can be written."""
    (tmp_path / "torch.py").write_text(
        "import sys, time\nprint('importing', flush=True)\ntry:\n    time.sleep(20)\n"
        "except BaseException:\n    pass  # as some libraries do\nraise SystemExit(7)\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    process = subprocess.Popen(
        [*COMMAND, "--version"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(PYTHONPATH=path),
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if ignored else None,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    if ignored:  # as of a command that a script sends into the background
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.terminate()
        process.wait(60)
    else:
        _, told = process.communicate(timeout=60)
        assert (process.returncode, told) == (130, "shapprune: interrupted, nothing was written\n")
