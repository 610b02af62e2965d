"""What scans of known models came to: by the shipped scores, or cross-validated by fitted ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from shapprune.errors import InputError
from shapprune.method.detection import Basis, Calibration, Verdict, shipped, verdict_on
from shapprune.method.settings import FALSE_ALARMS, SUSPICIOUS
from shapprune.running.runner import Result
from shapprune_bench.populations.calibration import (
    Fitted,
    Floats,
    Names,
    Scanned,
    as_json,
    cross_validate,
    fit,
    scores_of,
)
from shapprune_bench.populations.manifest import Specimen

# The evidence that can be left out, by the names of its features.
EVIDENCE: Mapping[str, tuple[str, ...]] = {
    "margin": ("margin",),
    "signature": ("margin signature",),
    "window": ("window", "window reach"),
    "perturbation": ("perturbation", "perturbation reach"),
}


@dataclass(frozen=True)
class Outcome:
    """What became of one scan.

    Attributes:
        specimen: the model, and what is true of it.
        seed: of the draw.
        score: the largest of all, which decides.
        verdict: by the bounds.
        right: whether a poisoned model's first target (or, without a single target, its map) is
            right whatever the verdict; of a clean model always True.
        found: whether it is called backdoored with the right target.
        seconds, passes: of the scan.
    """

    specimen: Specimen
    seed: int
    score: float
    verdict: Verdict
    right: bool
    found: bool
    seconds: float
    passes: int


@dataclass(frozen=True)
class Ablation:
    """The cross-validated score with some of the evidence.

    Attributes:
        name: what was used.
        scores: of clean models, and of poisoned ones with a single target.
        right: of the latter, the share whose target scores highest.
    """

    name: str
    clean: tuple[float, ...]
    poisoned: tuple[float, ...]
    right: float


def check_enough(specimens: Sequence[Specimen]) -> None:
    """Whether scores can be fitted to some models, with a group left out each time.

    Raises:
        InputError: they cannot.
    """
    known = [s for s in specimens if not s.attack_failed]
    fitted = [s for s in known if s.backdoored and s.target != "y+1" and s.source is None]
    for kind, some in (("clean", [s for s in known if not s.backdoored]), ("poisoned", fitted)):
        if len({s.group for s in some}) < 2:
            raise InputError(
                f"a calibration needs {kind} models of two groups at least"
                f"{' with a target for all classes' if kind == 'poisoned' else ''}, got "
                f"{len(some)} in {len({s.group for s in some})}"
            )


def shipped_outcomes(done: Sequence[tuple[Specimen, Result]]) -> list[Outcome]:
    """By the calibration that comes with the package, whatever it was when a scan was made."""
    found: list[Outcome] = []
    for basis in get_args(Basis):
        some = [pair for pair in done if pair[1]["basis"] == basis]
        if some:
            scans, names = _scans(some)
            rules = shipped(basis)
            fitted = Fitted(rules.single, rules.untargeted)
            found += _judged(some, [scores_of(fitted, s, names) for s in scans], rules)
    return found


def cross_validated(
    done: Sequence[tuple[Specimen, Result]],
) -> tuple[list[Outcome], tuple[Ablation, ...]]:
    """By scores that were fitted without a model's siblings, and the same with less evidence."""
    scans, names = _scans(done)
    scores = cross_validate(scans, names)
    return _judged(done, scores, _rules(scans, scores)), tuple(_ablations(scans, names))


def _judged(
    done: Sequence[tuple[Specimen, Result]],
    scores: Sequence[tuple[Floats, float]],
    rules: Calibration,
) -> list[Outcome]:
    low, high = rules.bound(SUSPICIOUS * FALSE_ALARMS), rules.bound(FALSE_ALARMS)
    found = []
    for (specimen, result), (single, other) in zip(done, scores, strict=True):
        score = max(float(single.max()), other)
        verdict = verdict_on(
            score,
            suspicious=low,
            backdoored=high,
            conclusive=bool(result.get("conclusive", result["basis"] != "margins")),
        )
        found.append(_outcome(specimen, result, single, other, score, verdict))
    return found


def calibrated(done: Sequence[tuple[Specimen, Result]]) -> dict[str, object]:
    """The bases of a calibration, see `shapprune.method.detection`.

    Margins alone have scores and bounds of their own. Verdicts on recovered images borrow those of
    given ones: their own false alarms are not measured.
    """
    scans, names = _scans(done)
    found: dict[str, object] = {}
    for basis, (some, of) in {
        str(done[0][1]["basis"]): (scans, names),
        "margins": _only(scans, names, names.of("margin"), untargeted=False),
    }.items():
        scores = cross_validate(some, of)
        found[basis] = as_json(fit(some, of), _rules(some, scores))
    if "images" in found:
        found["recovered"] = found["images"]
    return found


def _ablations(scans: Sequence[Scanned], names: Names) -> list[Ablation]:
    """With all evidence, without each, and with each alone; single targets only."""
    kinds: dict[str, tuple[str, ...]] = {"all": names.single}
    for name, features in EVIDENCE.items():
        own = tuple(n for n in names.single if n in features)
        if own:
            kinds[f"without {name}"] = tuple(n for n in names.single if n not in own)
            kinds[f"{name} alone"] = own
    found = []
    for name, kept in kinds.items():
        some, of = _only(scans, names, kept, untargeted=False)
        scores = [single for single, _ in cross_validate(some, of)]
        pairs = list(zip(some, scores, strict=True))
        single = [(s, v) for s, v in pairs if s.targets]
        found.append(
            Ablation(
                name,
                tuple(float(v.max()) for s, v in pairs if s.attack is None),
                tuple(float(v.max()) for _, v in single),
                float(np.mean([int(v.argmax()) in s.targets for s, v in single])),
            )
        )
    return found


def _only(
    scans: Sequence[Scanned], names: Names, kept: Sequence[str], *, untargeted: bool
) -> tuple[list[Scanned], Names]:
    columns = [names.single.index(name) for name in kept]
    some = [
        Scanned(
            s.name,
            s.group,
            s.network,
            s.attack,
            s.targets,
            s.classes[:, columns],
            s.untargeted if untargeted else None,
        )
        for s in scans
    ]
    return some, Names(tuple(kept), names.untargeted)


def _scans(done: Sequence[tuple[Specimen, Result]]) -> tuple[list[Scanned], Names]:
    features: Any = done[0][1]["features"]
    other: Any = done[0][1]["untargeted_features"]
    names = Names(tuple(features[0]), tuple(other or ()))
    scans = []
    for specimen, result in done:
        rows: Any = result["features"]
        values: Any = result["untargeted_features"]
        scans.append(
            Scanned(
                specimen.name,
                specimen.group,
                specimen.network,
                (specimen.attack or "unknown") if specimen.backdoored else None,
                true_targets(specimen),
                np.array([[row[name] for name in names.single] for row in rows]),
                np.array([values[name] for name in names.untargeted]) if values else None,
            )
        )
    return scans, names


def _rules(scans: Sequence[Scanned], scores: Sequence[tuple[Any, float]]) -> Calibration:
    """The cross-validated scores, as bounds and error rates are told by."""
    found: dict[str | None, dict[str, list[float]]] = {None: {}}
    for s, (single, other) in zip(scans, scores, strict=True):
        models = found.setdefault(s.attack, {})
        models.setdefault(s.name, []).append(max(float(single.max()), other))
    clean = found.pop(None)
    return Calibration(
        {},
        None,
        tuple(map(tuple, clean.values())),
        {},
        {str(name): tuple(map(tuple, found[name].values())) for name in sorted(map(str, found))},
    )


def true_targets(specimen: Specimen) -> tuple[int, ...]:
    """The classes that a poisoned model sends images to; none where it has no single target."""
    if isinstance(specimen.target, int):
        return (specimen.target,)
    return specimen.target if isinstance(specimen.target, tuple) else ()


def all_to_one(specimen: Specimen) -> bool:
    """Whether it has one target, for images of every class."""
    return isinstance(specimen.target, int) and specimen.source is None


def _outcome(
    specimen: Specimen,
    result: Result,
    single: Floats,
    other: float,
    score: float,
    verdict: Verdict,
) -> Outcome:
    facts: Any = result
    no_single = bool(other >= single.max())
    if not specimen.backdoored:
        right = True
    elif specimen.target == "y+1":
        right = no_single and is_next(facts["untargeted_mapping"], specimen.num_classes)
    else:
        right = not no_single and int(single.argmax()) in true_targets(specimen)
    return Outcome(
        specimen,
        facts["cell"]["seed"],
        score,
        verdict,
        right,
        specimen.backdoored and right and verdict == "backdoored",
        facts["seconds"],
        facts["passes"],
    )


def is_next(mapping: Sequence[int | None] | None, classes: int) -> bool:
    """Whether most classes that are told go to the next one."""
    told = [(c, to) for c, to in enumerate(mapping or ()) if to is not None]
    return sum(to == (c + 1) % classes for c, to in told) > len(told) / 2
