"""The runner: every cell once, whatever is killed, fails or runs beside it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench_work import RECIPE, bad, cells, lines, sleeping
from shapprune.errors import InputError
from shapprune.running import runner
from shapprune.running.processes import Processes
from shapprune.running.runner import read, run
from shapprune_bench.tables.cells import Cell

# A runner of its own process: folder, log, cells, seconds each, jobs.
SCRIPT = """
import sys
from pathlib import Path
from bench_work import cells, sleeping
from shapprune.running.processes import Processes
from shapprune.running.runner import run
folder, log, count, seconds, jobs = sys.argv[1:]
if __name__ == "__main__":
    executor = Processes(sleeping(Path(log), float(seconds)), int(jobs))
    run(cells(int(count)), Path(folder), executor=executor, on_change=lambda cell, result: None)
"""


def compute(given, folder: Path, work, jobs: int = 2, **options) -> list[tuple[int, bool]]:
    """Run the cells; what was told: the seed, and whether it was the end."""
    told = []
    run(
        given,
        folder,
        executor=Processes(work, jobs),
        on_change=lambda cell, result: told.append((cell.seed, result is not None)),
        **options,
    )
    return told


# Interrupted before it has noted whom it started.
FORGETFUL = """
import sys, time
from pathlib import Path
from bench_work import cells, lines, sleeping
from shapprune.running.processes import Processes

if __name__ == "__main__":
    log, seconds = Path(sys.argv[2]), float(sys.argv[4])
    executor = Processes(sleeping(log, seconds), 1)
    executor.start(cells(1)[0])
    while not lines(log, "begin"):
        time.sleep(0.02)
    executor._running.clear()
    raise KeyboardInterrupt
"""


def other_runner(
    folder: Path, log: Path, count: int, seconds: float, jobs: int = 1, script_text: str = SCRIPT
):
    script = folder.parent / "runner.py"
    script.write_text(script_text)
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, script, folder, log, str(count), str(seconds), str(jobs)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


@pytest.fixture
def log(tmp_path) -> Path:
    return tmp_path / "log"


def test_the_name_tells_every_difference():
    cell = Cell("defend", RECIPE, "fine-pruning")
    others = [
        replace(cell, kind="time"),
        replace(cell, method="anp"),
        replace(cell, per_class=5),
        replace(cell, seed=1),
        replace(cell, recipe=replace(RECIPE, name="GTSRB")),
        replace(cell, recipe=replace(RECIPE, rate=0.02)),  # which no word of the name tells
    ]
    assert len({cell.name, *(other.name for other in others)}) == 7
    assert cell.name == Cell("defend", replace(RECIPE), "fine-pruning").name
    assert cell.name.startswith("defend_smoke_mnist_fine-pruning_1a_0_")
    assert Cell("model", replace(RECIPE, name="../ä b")).name.startswith("model_smoke_-b_")


def test_each_cell_has_one_result_and_a_second_run_does_nothing(folder, log):
    told = compute([*cells(3), *cells(3)], folder, sleeping(log))
    assert sorted(lines(log, "end")) == [0, 1, 2]
    assert sorted(told) == [(s, end) for s in range(3) for end in (False, True)]
    for cell in cells(3):
        result = read(folder, cell)
        assert result
        assert (result["state"], result["seed"]) == ("done", cell.seed)
        assert result["cell"] == json.loads(json.dumps(cell.facts()))
    assert compute(cells(3), folder, sleeping(log)) == []
    assert len(lines(log, "begin")) == 3


def test_a_failed_cell_is_recorded_and_the_rest_goes_on(folder, log):
    given = cells(4)
    compute(given, folder, partial(bad, log=log), jobs=2)
    states = [read(folder, cell) for cell in given]
    assert [s["state"] for s in states if s] == ["done", "failed", "failed", "done"]
    assert states[1]["error"] == "ValueError: one is too much"
    assert 'File "bench_work.py", line' in states[1]["traceback"]
    assert str(Path(__file__).parents[2]) not in states[1]["traceback"]
    assert "died (exit code -9)" in states[2]["error"]
    assert states[3]["infinite"] == "Infinity"

    compute(given, folder, sleeping(log))  # failed cells stay so, unless a retry is asked for
    assert lines(log, "end") == []
    compute(given, folder, sleeping(log), retry_failed=True)
    assert sorted(lines(log, "end")) == [1, 2]
    assert all(read(folder, cell)["state"] == "done" for cell in given)


def test_a_cell_that_fails_again_is_tried_once_a_run(folder, log):
    given = cells(2)
    compute(given, folder, partial(bad, log=log))
    compute(given, folder, partial(bad, log=log), retry_failed=True)
    assert sorted(lines(log, "begin")) == [0, 1, 1]


def test_a_killed_run_goes_on_where_it_was(folder, log):
    first = other_runner(folder, log, count=6, seconds=0.4, jobs=2)
    wait_for(lambda: len(list(folder.glob("*.json"))) >= 2)
    first.kill()
    first.wait()
    before = {file.name: file.read_bytes() for file in folder.glob("*.json")}
    assert 2 <= len(before) < 6
    ended = lines(log, "end")
    time.sleep(1)
    assert len(lines(log, "end")) <= len(ended) + 2, "its processes work on"

    compute(cells(6), folder, sleeping(log))
    files = {file.name: file.read_bytes() for file in folder.glob("*.json")}
    assert {cell.name + ".json" for cell in cells(6)} == set(files)
    assert {name: files[name] for name in before} == before
    in_hand = set(lines(log, "begin")) - {json.loads(b)["seed"] for b in before.values()}
    again = [s for s in lines(log, "begin") if lines(log, "begin").count(s) > 1]
    assert set(again) <= in_hand
    assert len(set(again)) <= 2  # those that the killed runner had in hand


@pytest.mark.skipif(sys.platform == "win32", reason="its pipes have no descriptors")
@pytest.mark.parametrize("sent", [b"", b"\0\0", b"\0\0\1\0half an answer"])
def test_a_process_that_dies_amid_its_answer_is_a_failed_cell(sent, log):
    executor, cell = Processes(sleeping(log), 1), cells(1)[0]
    mine, theirs = Pipe(duplex=False)
    os.write(theirs.fileno(), sent)
    theirs.close()
    executor._running[mine] = (cell, SimpleNamespace(join=lambda: None, exitcode=-9))
    ((ended, result),) = executor.ended(1)
    assert ended is cell
    assert result["error"] == "its process died (exit code -9)"


def test_ctrl_c_leaves_whole_results_and_no_process(folder, log):
    runner = other_runner(folder, log, count=4, seconds=30, jobs=2)
    wait_for(lambda: len(lines(log, "begin")) == 2)
    runner.send_signal(signal.SIGINT)
    assert runner.wait(timeout=20) != 0
    assert list(folder.glob("*.json")) == []
    pids = [int(line.split()[2]) for line in log.read_text().splitlines()]
    wait_for(lambda: not any(alive(pid) for pid in pids))


def test_ctrl_c_between_a_start_and_its_note_waits_for_no_cell(folder, log):
    runner = other_runner(folder, log, count=1, seconds=60, script_text=FORGETFUL)
    assert runner.wait(timeout=40) != 0
    (pid,) = (int(line.split()[2]) for line in log.read_text().splitlines())
    wait_for(lambda: not alive(pid))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_two_runners_share_a_folder(folder, log):
    others = [other_runner(folder, log, count=8, seconds=0.2) for _ in range(2)]
    assert [runner.wait(timeout=60) for runner in others] == [0, 0]
    assert sorted(lines(log, "begin")) == list(range(8))
    assert sorted(lines(log, "end")) == list(range(8))
    assert len({line.split()[2] for line in log.read_text().splitlines()}) == 8


def test_cells_of_a_killed_runner_are_taken_over(folder, log):
    first = other_runner(folder, log, count=1, seconds=20)
    wait_for(lambda: lines(log, "begin") == [0])
    second = other_runner(folder, log, count=1, seconds=0.1)
    time.sleep(2.5)
    assert lines(log, "begin") == [0], "the second waits for the first"
    first.kill()
    assert second.wait(timeout=90) == 0
    assert lines(log, "begin") == [0, 0]
    assert lines(log, "end") == [0]
    first.wait()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"state": "half"}'])
def test_a_file_that_is_no_result_is_told(folder, log, content):
    (cell,) = cells(1)
    (folder / f"{cell.name}.json").write_text(content)
    with pytest.raises(InputError, match=r"no result of ours.*remove it"):
        compute([cell], folder, sleeping(log))


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path, log):
    with pytest.raises(InputError, match="cannot write into"):
        compute(cells(1), tmp_path / "missing", sleeping(log))


def test_the_commit_is_that_of_the_source_tree(tmp_path, monkeypatch):
    assert re.fullmatch(r"[0-9a-f]{7,40}(-dirty)?", runner.commit())
    # An installed copy, in the repository of someone else.
    monkeypatch.setattr(runner, "__file__", str(tmp_path / "runner.py"))
    shutil.copy(runner.subprocess.__file__, tmp_path / "runner.py")
    author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for words in (("init", "-q"), (*author, "commit", "-q", "--allow-empty", "-m", "theirs")):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    assert runner.commit.__wrapped__() == runner.version("shapprune")
