"""Shares with Wilson's intervals and AUROCs with bootstrapped ones, as JSON holds them and as
tables show them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shapprune.method.rates import wilson


def rate_facts(hits: Iterable[bool], *, cases: int | None = None) -> dict[str, float]:
    """How many of how many, and the interval's ends in [0, 1]. For cases see `wilson`."""
    known = list(hits)
    rate = wilson(sum(known), len(known), cases=cases)
    return {"hits": rate.hits, "of": rate.of, "low": rate.low, "high": rate.high}


def rate_words(facts: Mapping[str, float]) -> str:
    """What `rate_facts` holds in words; nothing of none.

    >>> rate_words(rate_facts([True, False]))
    '1 of 2 (9% to 91%)'
    """
    if not facts["of"]:
        return ""
    return f"{facts['hits']} of {facts['of']} ({facts['low']:.0%} to {facts['high']:.0%})"


def share(hits: Iterable[bool], *, cases: int | None = None) -> str:
    """How many of how many, with the interval, in words; nothing of none."""
    return rate_words(rate_facts(hits, cases=cases))


def number(value: float | None) -> str:
    """Three digits; nothing of None."""
    return "" if value is None else f"{value:.3f}"


_RESAMPLED = 2000
Scores = Sequence[Sequence[float]]  # of each model, of each of its draws


def auroc_words(clean: Scores, poisoned: Scores) -> str:
    """The AUROC of all scans and a 95 % interval, in words; nothing where there are not both.

    >>> auroc_words([[0.0, 0.5], [1.0]], [[2.0], [3.0], [0.7]])
    '0.89 (0.33 to 1.00)'
    """
    if not clean or not poisoned:
        return ""
    every = float(
        _aurocs(clean, poisoned, np.ones((1, len(clean))), np.ones((1, len(poisoned))))[0]
    )
    low, high = np.quantile(resampled_aurocs(clean, poisoned), [0.025, 0.975])
    return f"{every:.2f} ({low:.2f} to {high:.2f})"


def resampled_aurocs(clean: Scores, poisoned: Scores) -> npt.NDArray[Any]:
    """AUROCs of models that are drawn with replacement, a model with all of its draws: float
    (2000,), by one seed, so that those of two scores of the same models can be subtracted."""
    generator = np.random.default_rng(0)
    picked = (
        generator.multinomial(len(some), np.full(len(some), 1 / len(some)), _RESAMPLED)
        for some in (clean, poisoned)
    )
    return _aurocs(clean, poisoned, *picked)


def _aurocs(clean: Scores, poisoned: Scores, *times: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Of so many copies of each model, (k, clean) and (k, poisoned): the share of pairs of scans in
    which the poisoned one has the higher score, a tie being half of one."""
    flat = [
        np.concatenate([np.asarray(scores, float) for scores in some]) for some in (clean, poisoned)
    ]
    counts = [[len(scores) for scores in some] for some in (clean, poisoned)]
    starts = [np.cumsum([0, *lengths[:-1]]) for lengths in counts]
    wins = (np.sign(flat[1] - flat[0][:, None]) + 1) / 2
    for axis, start in enumerate(starts):
        wins = np.add.reduceat(wins, start, axis=axis)
    pairs = np.outer(counts[0], counts[1])
    of_clean, of_poisoned = times
    won, of = (((of_clean @ each) * of_poisoned).sum(1) for each in (wins, pairs))
    return np.asarray(won / of)
