"""Runs cells, each once: what is there is kept, what fails is recorded, what was killed is redone.

A result is a JSON file of the cell's name in one folder, written whole or not at all. Several
runners may work on the same folder: who computes a cell holds a lock on its claim, which the
system takes back when the process ends, however it ends.
"""

import hashlib
import json
import os
import platform
import re
import subprocess
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import torch
from filelock import FileLock, Timeout

from shapprune.errors import InputError
from shapprune.reporting.summary import plain, versions
from shapprune.utils.files import write_whole
from shapprune.utils.text import describe

Work: TypeAlias = Callable[[Any], Mapping[str, object]]  # measures a cell
Result: TypeAlias = Mapping[str, object]  # what a cell's file holds
OnChange: TypeAlias = Callable[[Any, Result | None], None]  # a cell has begun (None) or ended

_CLAIMS = ".claims"
_FOLDERS = re.compile(
    r'(?<=File ")[^"]*[/\\](?=[^/\\"]+")'
)  # of a traceback: results are shown around


def file_name(words: Sequence[str], facts: Mapping[str, object]) -> str:
    """A name without an ending that can be read, with a hash of everything.

    >>> file_name(["defend", "MNIST ä", "1/50"], {"seed": 0})
    'defend_mnist-_1-50_de7d7744cc'
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]
    return "_".join(re.sub(r"[^a-z0-9]+", "-", word.lower()) for word in (*words, digest) if word)


class Task(Protocol):
    """What is to be measured: a `Cell`, or another piece of work with a file of its own."""

    @property
    def name(self) -> str:
        """Of its file, without the ending; tells it from all others."""

    def facts(self) -> dict[str, object]:
        """All that it is, as JSON has it."""


class Executor(Protocol):
    """Who computes: processes of this machine, or the machines of a Ray cluster."""

    def has_capacity(self) -> bool:
        """Whether another cell can be started now."""

    def start(self, cell: Task) -> None:
        """Begin a cell."""

    def ended(self, seconds: float) -> list[tuple[Task, Result]]:
        """The cells that have ended, after waiting so many seconds for one at most."""

    def stop(self) -> None:
        """Drop whatever still runs."""


def attempt(work: Work, cell: Task) -> Result:
    """The content of a cell's file, also if the work fails; runs where the work is done."""
    torch.set_num_threads(1)  # cells side by side: threads that wait for each other cost far more
    start = time.perf_counter()
    try:
        outcome: dict[str, object] = {"state": "done", **work(cell)}
    except Exception as error:
        trace = _FOLDERS.sub("", traceback.format_exc())
        outcome = failure(describe(error)) | {"traceback": trace}
    result = plain(
        {
            "cell": cell.facts(),
            **outcome,
            "wall_seconds": time.perf_counter() - start,
            "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "commit": commit(),
            "versions": versions(),
            "machine": f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}, "
            f"{os.cpu_count()} CPU cores, one thread",
        }
    )
    assert isinstance(result, dict)
    return result


@cache
def commit() -> str:
    """The git commit of the source tree, "-dirty" if it was changed since; else the version."""
    here = Path(__file__)

    def git(*words: str) -> str:
        command = ["git", "-C", str(here.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # it may be someone else's repository
        return git("describe", "--always", "--dirty")
    except (OSError, subprocess.CalledProcessError):
        return version("shapprune")


def failure(error: str) -> dict[str, object]:
    """The outcome of a cell that failed, with the reason in one line."""
    return {"state": "failed", "error": error}


def read(folder: Path, cell: Task) -> Result | None:
    """A cell's result; None where there is none yet.

    Raises:
        InputError: the file cannot be read, or is none of ours.
    """
    file = folder / f"{cell.name}.json"
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
        if result["state"] not in ("done", "failed"):
            raise ValueError(f"its state is {result['state']!r}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is no result of ours ({describe(error)}): remove it") from error
    assert isinstance(result, dict)
    return result


def is_left(result: Result | None, *, retry_failed: bool) -> bool:
    """Whether a task with this result is still to be done."""
    return result is None or (retry_failed and result["state"] == "failed")


def run(
    cells: Sequence[Task],
    folder: Path,
    *,
    executor: Executor,
    on_change: OnChange,
    retry_failed: bool = False,
) -> None:
    """Compute every cell that has no result in the folder yet.

    Cells that another runner is at are waited for, and taken over should it be killed.

    Args:
        folder: exists.
        executor: who computes; stopped in the end, also after an exception.
        on_change: called when a cell begins and when it ends.
        retry_failed: compute again what failed before this run began.

    Raises:
        InputError: the folder cannot be written to, or holds a file that is no result.
    """
    began = time.time()
    waiting = deque({cell.name: cell for cell in cells}.values())
    claims: dict[str, FileLock] = {}

    def settled(cell: Task) -> bool:
        result = read(folder, cell)
        if result is None or result["state"] == "done" or not retry_failed:
            return result is not None
        return (folder / f"{cell.name}.json").stat().st_mtime >= began

    try:
        while waiting or claims:
            for _ in range(len(waiting)):  # one look at each
                if not executor.has_capacity():
                    break
                cell = waiting.popleft()
                if settled(cell):
                    continue
                claim = _claim(folder, cell)
                if claim is None:
                    waiting.append(cell)
                elif settled(cell):  # by another runner, just now
                    claim.release()
                else:
                    claims[cell.name] = claim
                    on_change(cell, None)
                    executor.start(cell)
            for cell, result in executor.ended(1.0):
                content = json.dumps(result, indent=1, allow_nan=False) + "\n"
                write_whole(folder / f"{cell.name}.json", content.encode())
                claims.pop(cell.name).release()
                on_change(cell, result)
    finally:
        executor.stop()
        for claim in claims.values():
            claim.release()


def _claim(folder: Path, cell: Task) -> FileLock | None:
    """A lock that is held, or None where another process has it.

    The empty files stay: who removes one may leave two processes with a lock on the same name.
    """
    place = folder / _CLAIMS
    claim = FileLock(place / cell.name)
    try:
        place.mkdir(exist_ok=True)
        claim.acquire(blocking=False)
    except Timeout:
        return None
    except OSError as error:
        raise InputError(f"cannot write into {place}: {error.strerror or error}") from error
    return claim
