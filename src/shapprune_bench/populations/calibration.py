"""Fits the two scores of the verdict to scans of a population, and tells their error rates.

Models of one group are siblings: a score that a rate is told by comes from a fit that has seen none
of its siblings (leave one group out). The shipped coefficients are those of the fit on all.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

from shapprune.errors import InputError
from shapprune.method.detection import Calibration, Score
from shapprune.method.settings import TEN_CLASSES

Floats: TypeAlias = NDArray[np.float64]

_SHRINKAGE = 0.3  # of the squared weights of standardised features; one model's loss has weight 1
# A class beside the target that scores high: a wrong name is less bad than a wrong verdict.
_BESIDE = 0.3
_START = -4.0  # log-odds of each kind of evidence: few classes are targets


@dataclass(frozen=True, eq=False)
class Scanned:
    """A scan and what is true of its model.

    Attributes:
        name, group, network: see `Specimen`.
        attack: what it is sorted by; None of a clean model.
        targets: its target classes; none of a clean model and where there is no single target.
        classes: float (classes, features), the evidence.
        untargeted: float (features,), that for a backdoor without a single target; None: not
            looked for.
    """

    name: str
    group: str
    network: str
    attack: str | None
    targets: tuple[int, ...]
    classes: Floats
    untargeted: Floats | None

    @property
    def no_single_target(self) -> bool:
        """Whether it has a backdoor that sends each class elsewhere."""
        return self.attack is not None and not self.targets


@dataclass(frozen=True, eq=False)
class Fitted:
    """The two scores, see `Calibration`."""

    single: Mapping[str, Score]
    untargeted: Score | None

    def single_scores(self, scanned: Scanned, names: Sequence[str]) -> Floats:
        """One a class."""
        parts = []
        for score in self.single.values():
            weights = np.array([score.weights.get(name, 0.0) for name in names])
            parts.append(score.intercept + scanned.classes @ weights)
        added: Floats = logsumexp(np.stack(parts), axis=0) - prior(scanned)
        return added

    def untargeted_score(self, scanned: Scanned, names: Sequence[str]) -> float:
        """-inf where it was not looked for."""
        if self.untargeted is None or scanned.untargeted is None:
            return -np.inf
        weights = np.array([self.untargeted.weights.get(name, 0.0) for name in names])
        return float(self.untargeted.intercept + scanned.untargeted @ weights)


@dataclass(frozen=True)
class Names:
    """The features' names, in the order of the arrays.

    Attributes:
        single: of every class.
        untargeted: of a backdoor without a single target.
    """

    single: tuple[str, ...]
    untargeted: tuple[str, ...]

    def kinds(self) -> dict[str, list[int]]:
        """The columns of each kind of evidence, the first word of its features' names."""
        found: dict[str, list[int]] = {}
        for column, name in enumerate(self.single):
            found.setdefault(name.partition(" ")[0], []).append(column)
        return found

    def of(self, kind: str) -> list[str]:
        """The features of a kind of evidence."""
        return [self.single[column] for column in self.kinds()[kind]]


def fit(scans: Sequence[Scanned], names: Names) -> Fitted:
    """Both scores, by maximum likelihood with weights that are not negative.

    A clean model's score is its largest, and a poisoned one's that of its target; the largest
    beside it should be as low as a clean model's: the loss is that of the verdict and of the name.
    Source-specific backdoors are not fitted: most classes' images do not show them.

    Raises:
        InputError: no clean or no poisoned model.
    """
    clean = [s for s in scans if s.attack is None]
    single = [s for s in scans if s.targets and not _is_source_specific(s)]
    if not clean or not single:
        raise InputError(
            f"a fit needs clean and poisoned models, got {len(clean)} and {len(single)}"
        )
    scale = np.concatenate([s.classes for s in scans]).std(0) + 1e-9
    kinds = names.kinds()
    member = np.zeros((len(kinds), len(names.single)))
    for row, columns in enumerate(kinds.values()):
        member[row, columns] = 1
    terms = _terms(clean, single)
    rows = np.concatenate([table for table, *_ in terms]) / scale
    sizes = [len(table) for table, *_ in terms]
    starts = np.cumsum([0, *sizes[:-1]])
    sign, weight, less = (np.array(column) for column in list(zip(*terms, strict=True))[1:])

    def objective(point: Floats) -> tuple[float, Floats]:
        """The loss, of the class with the highest score of each term, and its gradient."""
        w, b = point[: len(scale)], point[len(scale) :]
        parts = (rows * w) @ member.T + b
        scores = logsumexp(parts, axis=1)
        highest = np.maximum.reduceat(scores, starts)
        at_highest = np.flatnonzero(scores == np.repeat(highest, sizes))
        first = at_highest[np.searchsorted(at_highest, starts)]
        margin = sign * (highest - less)
        pull = -sign * weight * expit(-margin)
        share = np.exp(parts[first] - highest[:, None]) * pull[:, None]  # of each kind in the odds
        slope = np.append((rows[first] * (share @ member)).sum(0), share.sum(0))
        total = float((weight * np.logaddexp(0, -margin)).sum()) + _SHRINKAGE * float(w @ w) / 2
        return total, slope + np.append(_SHRINKAGE * w, 0 * b)

    start = np.append(np.full(len(scale), 0.5), np.full(len(kinds), _START))
    limits = [(0.0, None)] * len(scale) + [(None, None)] * len(kinds)
    found = minimize(objective, start, jac=True, bounds=limits, method="L-BFGS-B").x
    weights = found[: len(scale)] / scale
    scores = {
        kind: Score(
            float(found[len(scale) + row]),
            {names.single[c]: float(weights[c]) for c in columns if weights[c] > 0},
        )
        for row, (kind, columns) in enumerate(kinds.items())
    }
    return Fitted(scores, _fit_untargeted(scans, names))


def _terms(
    clean: Sequence[Scanned], single: Sequence[Scanned]
) -> list[tuple[Floats, float, float, float]]:
    """Of each term of the loss the classes, what their score should be, its weight, the prior.

    Scans of one model share its weight, and clean models have that of the poisoned together.
    """
    scans_of = Counter(s.name for s in (*clean, *single))
    ratio = len({s.name for s in single}) / len({s.name for s in clean})
    terms = [(s.classes, -1.0, ratio / scans_of[s.name], prior(s)) for s in clean]
    for s in single:
        mine, share = list(s.targets), 1 / scans_of[s.name]
        terms.append((s.classes[mine], 1.0, share, prior(s)))
        terms.append((np.delete(s.classes, mine, 0), -1.0, _BESIDE * share, prior(s)))
    return terms


def prior(scanned: Scanned) -> float:
    """What a class has less in log-odds than one of a network of ten classes."""
    return float(np.log(len(scanned.classes) / TEN_CLASSES))


def _fit_untargeted(scans: Sequence[Scanned], names: Names) -> Score | None:
    known = [s for s in scans if s.untargeted is not None]
    found = [s for s in known if s.no_single_target]
    if not found:
        return None
    table = np.stack([s.untargeted for s in known if s.untargeted is not None])
    truth = np.array([1.0 if s.no_single_target else -1.0 for s in known])
    weights = np.where(truth > 0, (truth < 0).sum() / len(found), 1.0)
    weights /= [Counter(s.name for s in known)[s.name] for s in known]
    scale = table.std(0) + 1e-9
    rows = table / scale

    def loss(w: Floats, b: float) -> tuple[float, Floats, float]:
        margin = truth * (rows @ w + b)
        pull = -truth * weights / (1 + np.exp(np.clip(margin, -500, 500)))
        total = float((weights * np.logaddexp(0, -margin)).sum())
        return total, pull @ rows, float(pull.sum())

    return _minimise(loss, scale, names.untargeted)


def _minimise(
    loss: Callable[[Floats, float], tuple[float, Floats, float]],
    scale: Floats,
    names: Sequence[str],
) -> Score:
    """The score in units of the features themselves."""

    def objective(point: Floats) -> tuple[float, Floats]:
        w, b = point[:-1], float(point[-1])
        total, slope, bias = loss(w, b)
        return total + _SHRINKAGE * float(w @ w) / 2, np.append(slope + _SHRINKAGE * w, bias)

    start = np.append(np.full(len(names), 0.1), -1.0)
    limits = [(0.0, None)] * len(names) + [(None, None)]
    found = minimize(objective, start, jac=True, bounds=limits, method="L-BFGS-B")
    weights = found.x[:-1] / scale
    return Score(
        float(found.x[-1]), {n: float(w) for n, w in zip(names, weights, strict=True) if w > 0}
    )


def cross_validate(scans: Sequence[Scanned], names: Names) -> list[tuple[Floats, float]]:
    """Each scan's scores, single and untargeted, by a fit that has not seen its group."""
    by_group = {
        group: fit([s for s in scans if s.group != group], names)
        for group in {s.group for s in scans}
    }
    return [scores_of(by_group[s.group], s, names) for s in scans]


def scores_of(fitted: Fitted, scanned: Scanned, names: Names) -> tuple[Floats, float]:
    """One a class, and that without a single target."""
    return (
        fitted.single_scores(scanned, names.single),
        fitted.untargeted_score(scanned, names.untargeted),
    )


def as_json(fitted: Fitted, measured: Calibration) -> Mapping[str, object]:
    """A basis of `calibration.json`, see `shapprune.method.detection.read_calibration`.

    Args:
        measured: the cross-validated scores of clean and poisoned models.
    """

    def plain(score: Score) -> dict[str, object]:
        weights = {name: round(value, 4) for name, value in score.weights.items()}
        return {"intercept": round(score.intercept, 4), "weights": weights}

    def rounded(models: Sequence[Sequence[float]]) -> list[list[float]]:
        return [[round(score, 4) for score in scores] for scores in models]

    return {
        "single": {kind: plain(score) for kind, score in fitted.single.items()},
        "untargeted": fitted.untargeted and plain(fitted.untargeted),
        "clean": rounded(measured.clean),
        "poisoned": {name: rounded(some) for name, some in measured.poisoned.items()},
    }


def _is_source_specific(scanned: Scanned) -> bool:
    return scanned.attack is not None and scanned.attack.startswith("source-specific")
