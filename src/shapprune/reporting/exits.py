"""Exit codes of the command line, and what they mean."""

from collections.abc import Iterable

from shapprune.method.detection import Verdict
from shapprune.pipeline import RepairResult, ScanResult

CLEAN, BACKDOORED, ERROR, SUSPICIOUS, INTERRUPTED = 0, 1, 2, 3, 130

MEANINGS = {
    CLEAN: ("clean", "clean, or sufficiently repaired"),
    BACKDOORED: (
        "backdoored",
        "backdoored, and left as it is, not sufficiently repaired, or repaired of something else",
    ),
    ERROR: ("an error, told in one line", "the same"),
    SUSPICIOUS: (
        "suspicious",
        "suspicious, and the same, or the data are too few to say; or clean, and a repair that was "
        "asked for is not sufficient",
    ),
    INTERRUPTED: ("interrupted", "the same"),
}
"""Of each code, what it says after `scan` and after `repair`."""

_OF_VERDICTS: dict[Verdict, int] = {
    "clean": CLEAN,
    "backdoored": BACKDOORED,
    "suspicious": SUSPICIOUS,
}


def exit_code(result: ScanResult | RepairResult) -> int:
    """What `scan` or `repair` exits with after such a result."""
    if isinstance(result, ScanResult):
        return _OF_VERDICTS[result.verdict]
    of_verdict = _OF_VERDICTS[result.scan.verdict]
    if result.incomplete or result.spoiled or (result.repair and not result.repair.sufficient):
        return of_verdict or SUSPICIOUS  # forced on what was called clean
    # What was too little to judge by is too little to call what is left of it clean.
    return of_verdict if result.unrepaired or result.scan.judgement.undecided else CLEAN


def exit_code_of_all(states: Iterable[str | None]) -> int:
    """What `scan-all` exits with: the worst of verdicts and "failed"; None counts for nothing.

    >>> exit_code_of_all(["clean", "failed", "suspicious"]), exit_code_of_all(["clean", None])
    (2, 0)
    """
    found = set(states)
    for state, code in (("backdoored", BACKDOORED), ("failed", ERROR), ("suspicious", SUSPICIOUS)):
        if state in found:
            return code
    return CLEAN
