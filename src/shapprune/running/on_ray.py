"""Cells as tasks of a Ray cluster, one CPU each; what a lost machine had in hand is done again."""

import socket
import time
from typing import Any

from shapprune.errors import InputError
from shapprune.running.runner import Result, Task, Work, attempt, failure
from shapprune.utils.text import describe

_LOST_MACHINES = 5  # that a cell outlives


class RayTasks:
    """As many tasks at a time as the cluster has CPUs, or GPUs; see `Executor`.

    Args:
        address: of the cluster's head, or "local" for a cluster of this machine alone.
        gpus: of a task.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(self, work: Work, address: str, *, gpus: int = 0) -> None:
        try:
            import ray
        except ImportError as error:
            raise InputError("--ray needs Ray: pip install 'shapprune[ray]'") from error
        _check_reachable(address)
        try:
            ray.init(
                address=address,
                ignore_reinit_error=True,
                include_dashboard=False,
                log_to_driver=False,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(f"no Ray cluster at {address}: {describe(error)}") from error
        self._ray: Any = ray
        self._work, self._gpus = work, gpus
        self._task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=_LOST_MACHINES)(attempt)
        self._running: dict[object, Task] = {}

    def has_capacity(self) -> bool:
        """See `Executor`."""
        has: dict[str, float] = self._ray.cluster_resources()  # machines come and go
        return len(self._running) < has.get("GPU" if self._gpus else "CPU", 0.0)

    def start(self, cell: Task) -> None:
        """See `Executor`."""
        self._running[self._task.remote(self._work, cell)] = cell

    def ended(self, seconds: float) -> list[tuple[Task, Result]]:
        """See `Executor`."""
        if not self._running:
            time.sleep(seconds)
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        found = []
        for task in ready:
            cell = self._running.pop(task)
            try:
                result: Result = self._ray.get(task)
            except self._ray.exceptions.RayError as error:
                result = {"cell": cell.facts(), **failure(f"Ray lost it: {describe(error)}")}
            found.append((cell, result))
        return found

    def stop(self) -> None:
        """See `Executor`."""
        for task in self._running:
            self._ray.cancel(task, force=True)
        self._running.clear()
        self._ray.shutdown()


def _check_reachable(address: str) -> None:
    """At once; Ray itself tries for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or "//" in address:  # "local", "auto" or a client's address
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise InputError(f"no Ray cluster at {address}: {describe(error)}") from error
