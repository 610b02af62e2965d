"""The runner on a cluster of two machines, one of which dies in the middle."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from bench_work import cells, lines, sleeping
from shapprune.errors import InputError
from shapprune.running.on_ray import RayTasks
from shapprune.running.runner import read, run

pytest.importorskip("ray", reason="Ray is not installed: pip install 'shapprune[ray]'")


def parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except FileNotFoundError:
        return None


def in_hand(log: Path, raylet: int) -> dict[int, int]:
    """The cells that a machine is at, with the process of each."""
    found = [line.split() for line in log.read_text().splitlines()]
    begun = {int(seed): int(pid) for word, seed, pid in found if word == "begin"}
    done = lines(log, "end")
    return {s: pid for s, pid in begun.items() if s not in done and parent(pid) == raylet}


def test_a_lost_machine_costs_what_it_had_in_hand_and_nothing_else(tmp_path, monkeypatch):
    import ray
    from ray.cluster_utils import Cluster

    # Ray's workers look for the work where the tests are.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]))
    monkeypatch.setenv("RAY_health_check_period_ms", "500")
    monkeypatch.setenv("RAY_health_check_failure_threshold", "2")
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    second = cluster.add_node(num_cpus=1)
    (raylet,) = (p.process.pid for p in second.all_processes["raylet"])
    log, folder, lost, ended = tmp_path / "log", tmp_path / "results", {}, []
    folder.mkdir()
    given = cells(6)

    def lose_the_second_machine():
        while not (len(ended) >= 2 and lost):
            time.sleep(0.1)
            if len(ended) >= 2:
                lost.update(in_hand(log, raylet))
        os.kill(raylet, signal.SIGSTOP)  # or it would report its workers' end
        for pid in lost.values():  # with a real machine, they end at once
            os.kill(pid, signal.SIGKILL)
        cluster.remove_node(second, allow_graceful=False)

    def told(cell, result):
        if result is not None:
            ended.append(cell.seed)

    threading.Thread(target=lose_the_second_machine, daemon=True).start()
    try:
        run(given, folder, executor=RayTasks(sleeping(log, 2.0), cluster.address), on_change=told)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert len(lost) == 1, "the lost machine was in the middle of a cell"
    assert sorted(ended) == list(range(6)), "each told once"
    assert all(read(folder, cell)["state"] == "done" for cell in given), "nothing is lost"
    assert sorted(lines(log, "end")) == list(range(6)), "nothing is done twice"
    assert sorted(lines(log, "begin")) == sorted([*range(6), *lost]), "begun again: what was lost"


def test_a_cluster_that_is_not_there_is_told(tmp_path):
    with pytest.raises(InputError, match=r"no Ray cluster at 127\.0\.0\.1:1"):
        RayTasks(sleeping(tmp_path / "log"), "127.0.0.1:1")
