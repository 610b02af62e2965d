"""Cells in processes of this machine, one each: what dies there kills nothing else."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.resource_tracker import ensure_running
from typing import TYPE_CHECKING

from shapprune.running.runner import Result, Task, Work, attempt, failure

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext  # Windows has one alone


class Processes:
    """So many processes side by side; see `Executor`."""

    def __init__(self, work: Work, jobs: int) -> None:
        self._work, self._jobs = work, jobs
        self._running: dict[Connection, tuple[Task, BaseProcess]] = {}
        self._context = _context(work)

    def has_capacity(self) -> bool:
        """See `Executor`."""
        return len(self._running) < self._jobs

    def start(self, cell: Task) -> None:
        """See `Executor`."""
        mine, theirs = self._context.Pipe(duplex=False)
        # A daemon: should Ctrl-C come before it is noted, the runner does not wait for it.
        process = self._context.Process(
            target=_compute, args=(theirs, self._work, cell), daemon=True
        )
        with _no_interrupt():
            process.start()
        theirs.close()
        self._running[mine] = (cell, process)

    def ended(self, seconds: float) -> list[tuple[Task, Result]]:
        """See `Executor`."""
        if not self._running:
            time.sleep(seconds)
        found = []
        ready = wait(list(self._running), timeout=seconds)
        for connection in [c for c in self._running if c in ready]:
            cell, process = self._running.pop(connection)
            try:
                result: Result = connection.recv()
            except (EOFError, OSError):  # OSError: killed amid its answer
                process.join()
                died = f"its process died (exit code {process.exitcode})"
                result = {"cell": cell.facts(), **failure(died)}
            process.join()
            connection.close()
            found.append((cell, result))
        return found

    def stop(self) -> None:
        """See `Executor`."""
        for connection, (_, process) in self._running.items():
            process.kill()
            process.join()
            connection.close()
        self._running.clear()


def _context(work: Work) -> "ForkServerContext | SpawnContext":
    """Processes are forked from one that has imported torch, and holds none of the runner's files.

    Where there is no such way to start them, as on Windows, each imports it anew.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([getattr(work, "func", work).__module__])  # a partial's function
    return context


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Who is started inside never gets a Ctrl-C, not while it imports torch either: it is ours."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    ensure_running()  # multiprocessing's tracker, whose start lifts the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _compute(answer: Connection, work: Work, cell: Task) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the runner's to handle
    threading.Thread(target=_follow_the_runner, daemon=True).start()
    answer.send(attempt(work, cell))


def _follow_the_runner() -> None:
    """A runner that was killed leaves no process behind."""
    runner = multiprocessing.parent_process()
    assert runner
    wait([runner.sentinel])
    os._exit(1)
