"""What the pipeline's stages cost, and how far they are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, float], None]  # a stage's name and the share of it done


@dataclass(frozen=True)
class Stage:
    """What a stage cost.

    Attributes:
        name: in plain words.
        seconds: wall-clock time.
        passes: image passes through the network, a backward pass counted as two; None where
            they were not counted.
    """

    name: str
    seconds: float
    passes: int | None = None


class Clock:
    """Times the stages and passes their progress on.

    Attributes:
        stages: those that are over.
    """

    def __init__(self, progress: Progress | None) -> None:
        self.stages: list[Stage] = []
        self._progress = progress
        self._passes: int | None = None

    def count(self, passes: int) -> None:
        """Set the passes of the stage that runs."""
        self._passes = passes

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[float], None]]:
        """Time the block as a stage; what it gets takes the share done."""

        def report(share: float) -> None:
            if self._progress:
                self._progress(name, share)

        self._passes = None
        start = perf_counter()
        report(0.0)
        yield report
        report(1.0)
        self.stages.append(Stage(name, perf_counter() - start, self._passes))


def part_of(
    report: Callable[[float], None] | None, part: int, parts: int
) -> Callable[[float], None]:
    """Takes the share done of one of several equal parts, and reports that of the whole."""
    return lambda share: report((part + share) / parts) if report else None
