"""From images to a verdict: the first half of the paper's Figure 1."""

from dataclasses import dataclass

from shapprune.method.case import Case
from shapprune.method.detection import Basis, Judgement, Verdict, judge, shipped
from shapprune.method.evidence import Evidence, gather
from shapprune.method.recovery import Recovery
from shapprune.method.triggers import TargetMap, all_to_one, check_map, name_classes
from shapprune.model.checks import check_number
from shapprune.utils.progress import Clock, Progress, Stage


@dataclass(frozen=True, eq=False)
class ScanResult:
    """Whether a classifier carries a backdoor.

    Attributes:
        judgement: the verdict with its scores, bounds and error rates.
        evidence: what it is made of.
        accuracy: ACC on the given images, in [0, 1].
        stages: what was done and its cost.
        seed: of all random draws.
        recovered: the images that the scan went by, where none were given.
        warnings: what does not seem to fit, told before the search too, as `InputWarning`.
    """

    judgement: Judgement
    evidence: Evidence
    accuracy: float
    stages: tuple[Stage, ...]
    seed: int
    recovered: Recovery | None = None
    warnings: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """One of "backdoored", "suspicious" and "clean"."""
        return self.judgement.verdict

    @property
    def anomaly_index(self) -> float:
        """The highest score, which decides, under the name that version 0.1.0 had for such."""
        return self.judgement.score

    @property
    def targets(self) -> tuple[int, ...]:
        """The target classes, highest score first; none if the model is clean, or if the backdoor
        has no single target: then `mapping` tells where images go."""
        return self.judgement.targets

    @property
    def mapping(self) -> tuple[int | None, ...] | None:
        """See `Judgement.mapping`."""
        return self.judgement.mapping

    @property
    def maps(self) -> tuple[TargetMap, ...]:
        """Where the backdoor sends images: a map for each target, or the one map that there is."""
        classes = self.evidence.classes
        if self.mapping and any(to is not None for to in self.mapping):
            return (check_map(self.mapping, classes),)
        return tuple(all_to_one(target, classes) for target in self.targets)

    @property
    def told(self) -> str:
        """The verdict and its targets, in a few words."""
        return f"{self.verdict}, {name_classes(self.targets)}" if self.targets else self.verdict

    @property
    def foremost(self) -> tuple[TargetMap, ...]:
        """What stands out most, whatever the verdict: `maps`, or where there are none every image
        to the class of the highest score."""
        return self.maps or (all_to_one(self.judgement.ranking[0], self.evidence.classes),)


def scan_case(
    case: Case,
    recovered: Recovery | None,
    *,
    false_alarms: float,
    seed: int,
    progress: Progress | None,
) -> ScanResult:
    """Gather evidence, and judge it; see `shapprune.scan` for the rest.

    Args:
        case: left as it was; its images are the recovered ones, where there are such.

    Raises:
        InputError: a rate of false alarms that the bounds cannot hold.
    """
    basis: Basis = "images" if recovered is None else "recovered" if recovered.layers else "margins"
    check_number("false alarms", false_alarms, 0.0, 1.0)
    shipped(basis).bound(false_alarms)  # refused before the search
    clock = Clock(progress)
    evidence = gather(
        case.model,
        case.images,
        case.labels,
        classes=case.classes,
        margins_only=basis == "margins",
        seed=seed,
        clock=clock,
    )
    known = case.recognition
    judgement = judge(
        evidence,
        basis=basis,
        false_alarms=false_alarms,
        recognised=known.accuracy if recovered else float(not known.guessed),
    )
    before = (recovered.stage,) if recovered else ()
    stages = (*before, *clock.stages)
    return ScanResult(judgement, evidence, known.accuracy, stages, seed, recovered, case.warnings)
