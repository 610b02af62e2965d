"""Which triggers of a result are shown: the best of each kind for each class that matters."""

from dataclasses import dataclass

from shapprune.method.inversion import KINDS
from shapprune.method.triggers import Stamp
from shapprune.pipeline import RepairResult, ScanResult
from shapprune.reporting import findings
from shapprune.reporting.summary import kind_of


def suspected_triggers(result: ScanResult | RepairResult) -> list[tuple[int, Stamp]]:
    """One trigger for each target class, of the kind by which the class stands out most.

    Classes that were repaired take the place of the scan's targets. Classes of which no trigger is
    known are left out, as where margins alone were looked at.
    """
    found = [(target, triggers_for(result, target)) for target in shown_targets(result)]
    return [(target, triggers[0].stamp) for target, triggers in found if triggers]


def shown_targets(result: ScanResult | RepairResult) -> tuple[int, ...]:
    """The classes that were repaired, or else the scan's targets."""
    if isinstance(result, RepairResult):
        return result.repair.targets if result.repair else result.scan.targets
    return result.targets


@dataclass(frozen=True)
class Found:
    """A trigger of a class.

    Attributes:
        kind: "patch", "perturbation" or "window".
        stamp: the trigger.
        asr: share of varied images that it sends to the class, or of each class where they go.
        of: what the share is of.
    """

    kind: str
    stamp: Stamp
    asr: float
    of: str = "varied images of other classes"


def triggers_for(result: ScanResult | RepairResult, target: int) -> list[Found]:
    """The best trigger of each kind for a class: those that the repair inverted, if it did.

    Of a scan's, the one that adds most to the score comes first; of a repair's, the patch.
    """
    scan = result.scan if isinstance(result, RepairResult) else result
    repair = result.repair if isinstance(result, RepairResult) else None
    found: dict[str, Found] = {}
    if repair and target in repair.targets:
        mine = (trigger for trigger in repair.triggers if target in trigger.mapping)
        for trigger in sorted(mine, key=lambda trigger: (trigger.asr < 0.9, trigger.norm)):
            name = kind_of(trigger)
            found.setdefault(name, Found(name, trigger.stamp, trigger.asr))
        return [found[name] for name in KINDS if name in found]
    parts = findings.parts_of(scan.judgement, target)
    for kind, reaches in findings.reaches_of(scan.evidence).items():
        if target in reaches:
            found[kind] = Found(kind, reaches[target].stamp, reaches[target].share)
    return sorted(found.values(), key=lambda trigger: -parts.get(trigger.kind, 0.0))


def best_trigger(result: ScanResult | RepairResult) -> Found | None:
    """The trigger of the highest ASR for what is suspected or was repaired; None: there is none."""
    scan = result.scan if isinstance(result, RepairResult) else result
    found = [one for target in shown_targets(result) for one in triggers_for(result, target)]
    if not found and scan.mapping is not None and scan.evidence.untargeted:
        one = scan.evidence.untargeted.clearest
        found = [
            Found(
                one.kind, one.stamp, one.agreement, "varied images, to where most of their class go"
            )
        ]
    return max(found, key=lambda one: one.asr, default=None)
