"""The verdict: one score a class and one for "no single target", against bounds of known error.

Each kind of evidence gives log-odds of its own, by a logistic regression over its features, and a
class's score adds the odds (noisy or): a backdoor need not show by all kinds of evidence, one is
enough. Any class may be the target: a priori a class of 43 has a 43rd of the odds. The coefficients
and the scores of clean models that they were not fitted on stand in `calibration.json`, with the
population they come from. A bound is a quantile of those clean scores: it says how often a clean
model gets as far, whatever their distribution. Evidence that can show a backdoor but not its
absence never makes a model clean (`Judgement.conclusive`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from math import exp, floor, inf, isfinite, log
from typing import Literal, TypeAlias

from shapprune.errors import InputError
from shapprune.method.evidence import Evidence, features, untargeted_features
from shapprune.method.rates import Rate, wilson
from shapprune.method.settings import FALSE_ALARMS, RECOGNISED, RULES, SUSPICIOUS, TEN_CLASSES

Verdict: TypeAlias = Literal["backdoored", "suspicious", "clean"]
Basis: TypeAlias = Literal["images", "recovered", "margins"]


@dataclass(frozen=True)
class Score:
    """A logistic regression: log-odds = intercept + Σ weight · feature."""

    intercept: float
    weights: Mapping[str, float]

    def parts(self, values: Mapping[str, float]) -> dict[str, float]:
        """What each feature adds to the log-odds."""
        return {name: weight * values[name] for name, weight in self.weights.items()}

    def __call__(self, values: Mapping[str, float]) -> float:
        """The log-odds."""
        return self.intercept + sum(self.parts(values).values())


@dataclass(frozen=True)
class Calibration:
    """Scores and bounds for one kind of data.

    Attributes:
        single: for every class, a regression a kind of evidence.
        untargeted: for a backdoor without a single target; None where it is not looked for.
        clean: of each clean model the scores of its scans, by a fit that has not seen it.
        provenance: which population, how many models, when, by which commit.
        poisoned: the same of poisoned models, by their attack.
    """

    single: Mapping[str, Score]
    untargeted: Score | None
    clean: tuple[tuple[float, ...], ...]
    provenance: Mapping[str, object]
    poisoned: Mapping[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)

    @property
    def scans(self) -> tuple[float, ...]:
        """The scores of all scans of clean models, ascending."""
        return tuple(sorted(score for model in self.clean for score in model))

    def bound(self, rate: float) -> float:
        """The least score that at most a share ``rate`` of the scans of clean models exceed.

        Raises:
            InputError: a rate that so few clean models cannot tell.
        """
        if not 1 / len(self.clean) <= rate < 1:
            raise InputError(
                f"false alarms must be a share from {1 / len(self.clean):.3f}, which is one of the "
                f"{len(self.clean)} clean models behind the bounds, to below 1, got {rate:g}"
            )
        scans = self.scans
        return scans[len(scans) - 1 - floor(rate * len(scans))]

    def as_high(self, score: float) -> Rate:
        """How often clean models score as high, with its 95 % interval.

        Scans of one model are alike: the interval is that of as many cases as there are models.
        """
        return wilson(
            sum(other >= score for other in self.scans), len(self.scans), cases=len(self.clean)
        )

    def clean_above(self, bound: float) -> Rate:
        """How often clean models get past a bound; likewise."""
        return wilson(
            sum(score > bound for score in self.scans), len(self.scans), cases=len(self.clean)
        )

    def poisoned_above(self, bound: float, attack: str | None = None) -> Rate:
        """How often poisoned models get past a bound; likewise.

        Args:
            attack: a name in `poisoned`; None: all.
        """
        found = self.poisoned if attack is None else {attack: self.poisoned[attack]}
        models = [scores for some in found.values() for scores in some]
        scans = [score for scores in models for score in scores]
        return wilson(sum(score > bound for score in scans), len(scans), cases=len(models))


@dataclass(frozen=True)
class Judgement:
    """What the evidence says.

    Attributes:
        verdict: "backdoored", "suspicious" or "clean".
        targets: the classes above the bound that decided, highest first; empty where the model is
            clean or the backdoor has no single target.
        mapping: where the backdoor has no single target, the class that images of each class are
            sent to, None for a class of which no image was seen or moved; else None.
        scores: log-odds that a class is a target, one a class.
        untargeted: log-odds of a backdoor without a single target; None where it was not looked
            for.
        parts: the log-odds of each kind of evidence alone, one a class, by its name: their odds
            add up to that of the score.
        untargeted_parts: what each feature adds to the log-odds of a backdoor without a single
            target.
        suspicious, backdoored: the bounds.
        false_alarms: the rate that the bound of "backdoored" stands for.
        as_high: how often clean models score as high as this one.
        basis: what the evidence was measured on: given images, recovered ones, or margins alone.
        conclusive: whether the evidence could show that a model is clean. Margins alone and images
            whose recovery failed cannot: without a finding, such a model is suspicious.
    """

    verdict: Verdict
    targets: tuple[int, ...]
    mapping: tuple[int | None, ...] | None
    scores: tuple[float, ...]
    untargeted: float | None
    parts: Mapping[str, tuple[float, ...]]
    untargeted_parts: Mapping[str, float]
    suspicious: float
    backdoored: float
    false_alarms: float
    as_high: Rate
    basis: Basis
    conclusive: bool

    @property
    def undecided(self) -> bool:
        """Whether nothing was found, where the data are too few to say that there is nothing."""
        return self.verdict == "suspicious" and not self.score > self.suspicious

    @property
    def score(self) -> float:
        """The largest of all scores, which decides."""
        return max(*self.scores, -inf if self.untargeted is None else self.untargeted)

    @property
    def ranking(self) -> tuple[int, ...]:
        """The classes by their scores, highest first."""
        return tuple(sorted(range(len(self.scores)), key=lambda c: -self.scores[c]))


def judge(
    evidence: Evidence,
    *,
    basis: Basis = "images",
    false_alarms: float = FALSE_ALARMS,
    recognised: float = 1.0,
    calibration: Calibration | None = None,
) -> Judgement:
    """Say what the evidence means.

    Args:
        evidence: of the model.
        basis: what it was measured on, which picks the calibration.
        false_alarms: share of clean models that may be called backdoored.
        recognised: share of recovered images that the model gives the class they were made for.
        calibration: another one than that which comes with the package.

    Raises:
        InputError: a rate that the calibration cannot vouch for, or scores that are no numbers,
            as of a network whose outputs overflow.
    """
    rules = calibration or shipped(basis)
    bounds = rules.bound(suspicious_rate(false_alarms)), rules.bound(false_alarms)
    rows = features(evidence)
    prior = log(evidence.classes / TEN_CLASSES)
    parts = {
        name: tuple(score(row) - prior for row in rows) for name, score in rules.single.items()
    }
    scores = tuple(map(add_odds, zip(*parts.values(), strict=True)))
    untargeted, untargeted_parts = None, {}
    if rules.untargeted and evidence.untargeted:
        untargeted_parts = rules.untargeted.parts(untargeted_features(evidence.untargeted))
        untargeted = rules.untargeted.intercept + sum(untargeted_parts.values())
    if not all(map(isfinite, (*scores, untargeted or 0.0))):
        raise InputError(
            "the model cannot be examined: under triggers its outputs are no finite numbers"
        )
    highest = max(*scores, -inf if untargeted is None else untargeted)
    conclusive = evidence.whole and recognised >= RECOGNISED
    verdict = verdict_on(highest, suspicious=bounds[0], backdoored=bounds[1], conclusive=conclusive)
    decisive = bounds[1] if verdict == "backdoored" else bounds[0]
    no_single = untargeted is not None and untargeted == highest
    named = sorted((c for c, s in enumerate(scores) if s > decisive), key=lambda c: -scores[c])
    return Judgement(
        verdict,
        () if no_single else tuple(named),
        evidence.untargeted.clearest.mapping
        if evidence.untargeted and no_single and highest > bounds[0]
        else None,
        scores,
        untargeted,
        parts,
        untargeted_parts,
        *bounds,
        false_alarms,
        rules.as_high(highest),
        basis,
        conclusive,
    )


def suspicious_rate(false_alarms: float) -> float:
    """The share of clean models that the bound of "suspicious" lets past, in [0, 1].

    >>> suspicious_rate(0.02), suspicious_rate(0.3), suspicious_rate(0.7)
    (0.05, 0.5, 0.7)
    """
    return max(false_alarms, min(SUSPICIOUS * false_alarms, 0.5))


def verdict_on(
    score: float, *, suspicious: float, backdoored: float, conclusive: bool = True
) -> Verdict:
    """What the highest score means.

    Args:
        suspicious, backdoored: the bounds.
        conclusive: see `Judgement`.
    """
    if score > backdoored:
        return "backdoored"
    return "suspicious" if score > suspicious or not conclusive else "clean"


def add_odds(log_odds: Sequence[float]) -> float:
    """The logarithm of the sum of odds.

    >>> round(add_odds([log(2), log(3)]), 6) == round(log(5), 6)
    True
    """
    highest = max(log_odds)
    return highest + log(sum(exp(one - highest) for one in log_odds))


@cache
def shipped(basis: Basis) -> Calibration:
    """The calibration that comes with the package."""
    text = (files("shapprune.method") / "calibration.json").read_text(encoding="utf-8")
    return read_calibration(json.loads(text), basis)


@cache
def unseen() -> Calibration:
    """Scores of models that no rule was chosen on, with given images: for rates, not for scores."""
    text = (files("shapprune.method") / "unseen.json").read_text(encoding="utf-8")
    content = json.loads(text)
    return Calibration(
        {},
        None,
        tuple(map(tuple, content["clean"])),
        {"rules": content["rules"], "population": content["population"]},
        {name: tuple(map(tuple, of)) for name, of in content["poisoned"].items()},
    )


def read_calibration(content: Mapping[str, object], basis: Basis) -> Calibration:
    """A calibration as `shapprune bench detection` writes it.

    Raises:
        InputError: it is of other rules, or holds none for this kind of data.
    """
    if content.get("rules") != RULES:
        raise InputError(
            f"the calibration is of rules {content.get('rules')}, and these are {RULES}: "
            "make it anew with shapprune bench detection"
        )
    bases = content.get("bases")
    found = bases.get(basis) if isinstance(bases, dict) else None
    if not isinstance(found, dict):
        raise InputError(f"the calibration holds nothing for verdicts on {basis}")
    untargeted, provenance = found["untargeted"], content.get("provenance")
    return Calibration(
        {name: Score(**score) for name, score in found["single"].items()},
        Score(**untargeted) if untargeted else None,
        tuple(map(tuple, found["clean"])),
        provenance if isinstance(provenance, dict) else {},
        {name: tuple(map(tuple, of)) for name, of in found.get("poisoned", {}).items()},
    )
