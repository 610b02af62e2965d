"""Evidence, calibrations and scans made by hand, for tests of what is shown of them."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from shapprune.method import detection, scan
from shapprune.method.detection import Basis, Calibration, Judgement, Score, add_odds, verdict_on
from shapprune.method.evidence import Evidence
from shapprune.method.margins import Margins
from shapprune.method.perturbations import Perturbations
from shapprune.method.triggers import Perturbation
from shapprune.method.untargeted import Untargeted, UntargetedTrigger
from shapprune.method.windows import Windows
from shapprune.pipeline import ScanResult
from shapprune.utils.progress import Stage
from toys import CLASSES, SIDE, TARGET, seeded, true_trigger

POPULATION = "hand-made readers"


def perturbation(size: float = 0.05) -> Perturbation:
    return Perturbation(size * torch.randn(3, SIDE, SIDE, generator=seeded()))


def next_class(classes: int, count: int = 8) -> torch.Tensor:
    """The answers of an all-to-all backdoor, one image in eight left where it was."""
    one = torch.eye(classes, dtype=torch.int64)
    return (count - 1) * one.roll(1, 1) + one


def evidence_of(
    classes: int = CLASSES,
    targets: Sequence[int] = (TARGET,),
    *,
    answers: torch.Tensor | None = None,
) -> Evidence:
    """Evidence in which the targets stand out by all that there is; none, if there are none.

    Args:
        answers: to triggers without a target; None: all images go to class 0.
    """
    margins = torch.linspace(10, 12, classes)[torch.randperm(classes, generator=seeded())]
    under, shares = torch.full((classes,), -3.0), torch.full((classes,), 0.05)
    for target in targets:
        margins[target], under[target], shares[target] = 26.4, 8.0, 0.98
    if answers is None:
        answers = torch.zeros(classes, classes, dtype=torch.int64)
        answers[:, 0] = 8
    untargeted = Untargeted(
        (
            UntargetedTrigger("patch", true_trigger(), 4.0, 0.875, answers),
            UntargetedTrigger("perturbation", perturbation(), 1.0, 0.875, answers),
            UntargetedTrigger("window", true_trigger(), 4.0, 0.875, answers),
        ),
        500,
    )
    return Evidence(
        classes,
        Margins(
            tuple(margins.tolist()), torch.rand(classes, 3, SIDE, SIDE, generator=seeded()), 960
        ),
        5.0,
        Windows(
            tuple(range(classes)),
            tuple(under.tolist()),
            tuple(shares.tolist()),
            (true_trigger(),) * classes,
            700,
        ),
        Perturbations(
            tuple(range(classes)),
            tuple((under / 2).tolist()),
            tuple((shares / 2).tolist()),
            (perturbation(),) * classes,
            700,
        ),
        untargeted,
    )


def calibration_of(suspicious: float, backdoored: float) -> Calibration:
    """With these bounds at 2 % of false alarms, and 100 clean models, all but six far below.

    Of poisoned models, 20 squares are above both bounds, four blends between, ten stripes below.
    Scores are made elsewhere, see `judgement_of`.
    """
    far = tuple(suspicious - 3 + 0.02 * i for i in range(94))
    clean = tuple((score,) for score in (*far, *[suspicious] * 3, *[backdoored] * 3))
    provenance = {"population": POPULATION, "clean": 100, "poisoned": 34}
    middle = (suspicious + backdoored) / 2
    poisoned = {"badnets": ((backdoored + 1,),) * 20, "blended": ((middle,),) * 4}
    poisoned |= {"sig": ((suspicious - 1,),) * 10}
    return Calibration({"margin": Score(0.0, {})}, None, clean, provenance, poisoned)


USUAL = calibration_of(-2.0, -1.0)


def judgement_of(
    evidence: Evidence,
    targets: Sequence[int] = (TARGET,),
    *,
    untargeted: float = -9.0,
    calibration: Calibration = USUAL,
    basis: Basis = "images",
    failed: bool = False,
) -> Judgement:
    """What might be said of evidence: targets score about 3.5 and less, other classes about -5.

    Args:
        untargeted: the score for no single target.
        failed: the images are recovered, and nothing like images.
    """
    parts = {"margin": [-6.0 + 0.001 * c for c in range(evidence.classes)]}
    if basis != "margins":
        parts |= {name: [-6.0] * evidence.classes for name in ("window", "perturbation")}
    for rank, target in enumerate(targets):
        parts["margin"][target] = 3.4 - 0.1 * rank
        if basis != "margins":
            parts["window"][target] = 1.2
    scores = tuple(map(add_odds, zip(*parts.values(), strict=True)))
    other = untargeted if basis != "margins" else None
    highest = max(*scores, -9e9 if other is None else other)
    bounds = calibration.bound(0.05), calibration.bound(0.02)
    conclusive = basis != "margins" and not failed
    verdict = verdict_on(highest, suspicious=bounds[0], backdoored=bounds[1], conclusive=conclusive)
    no_single = other == highest
    named = [] if highest <= bounds[0] or no_single else sorted(targets, key=lambda c: -scores[c])
    mapped = highest > bounds[0] and no_single and evidence.untargeted
    return Judgement(
        verdict,
        tuple(named),
        evidence.untargeted.clearest.mapping if mapped else None,
        scores,
        other,
        {name: tuple(of) for name, of in parts.items()},
        {} if other is None else {"spread": other + 4, "window spread": 5.0},
        *bounds,
        0.02,
        calibration.as_high(highest),
        basis,
        conclusive,
    )


def ship(monkeypatch: pytest.MonkeyPatch, calibration: Calibration = USUAL) -> None:
    """Let this calibration be the one that comes with the package."""

    def shipped(basis: Basis) -> Calibration:
        return calibration

    for module in (detection, scan):
        monkeypatch.setattr(module, "shipped", shipped)


def scan_of(
    targets: Sequence[int] = (TARGET,),
    *,
    classes: int = CLASSES,
    answers: torch.Tensor | None = None,
    untargeted: float = -9.0,
    calibration: Calibration = USUAL,
    basis: Basis = "images",
    failed: bool = False,
) -> ScanResult:
    """A scan that found this; see `evidence_of` and `judgement_of`."""
    evidence = evidence_of(classes, targets, answers=answers)
    if basis == "margins":
        evidence = replace(evidence, windows=None, perturbations=None, untargeted=None)
    judgement = judgement_of(
        evidence,
        targets,
        untargeted=untargeted,
        calibration=calibration,
        basis=basis,
        failed=failed,
    )
    stages = (Stage("climb", 1.5, 1000), Stage("prune", 0.25))
    return ScanResult(judgement, evidence, 0.9, stages, 3)


def mapped_scan(classes: int = CLASSES, *, calibration: Calibration = USUAL) -> ScanResult:
    """A scan of an all-to-all backdoor, of score 4."""
    return scan_of(
        (), classes=classes, answers=next_class(classes), untargeted=4.0, calibration=calibration
    )
