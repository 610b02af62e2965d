"""What came of a scan and a repair together."""

from dataclasses import dataclass

from torch import nn

from shapprune.method.repair import Repair
from shapprune.method.scan import ScanResult
from shapprune.method.settings import SELECTION
from shapprune.utils.progress import Stage


@dataclass(frozen=True, eq=False)
class RepairResult:
    """A repaired classifier.

    Attributes:
        model: the repaired copy; the given model itself where nothing was repaired.
        scan: the scan that came first.
        repair: how it was repaired; None where nothing was.
        stages: what was done and its cost, the scan's stages first.
    """

    model: nn.Module
    scan: ScanResult
    repair: Repair | None
    stages: tuple[Stage, ...]

    @property
    def forced(self) -> bool:
        """Whether something else was repaired than what the scan names."""
        if self.repair is None:
            return False
        return set(self.repair.maps) != set(self.scan.maps)

    @property
    def incomplete(self) -> bool:
        """Whether the scan names something that was not repaired, since something else was asked
        for: the copy still carries it."""
        if not self.forced or self.scan.verdict == "clean" or self.scan.judgement.undecided:
            return False
        assert self.repair
        return not self.scan.maps or not set(self.scan.maps) <= set(self.repair.maps)

    @property
    def spoiled(self) -> bool:
        """Whether the copy keeps too few right answers to be of use (`SELECTION.least_kept`)."""
        return self.repair is not None and self.repair.after.kept.value < SELECTION.least_kept

    @property
    def unrepaired(self) -> bool:
        """Whether the model is not clean, and yet was left as it is."""
        return self.scan.verdict != "clean" and self.repair is None
