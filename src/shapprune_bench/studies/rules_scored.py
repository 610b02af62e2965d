"""Choices of a repair, each scored on models that it was not chosen on.

A choice takes some of the candidates (by what was tuned) and a rule over their proxies.
What it costs on a model is the accuracy lost and the ASR left, in points, added. By folds: the
choice that costs least on four fifths of the models is tried on the last fifth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, TypeAlias

import numpy as np

from shapprune.method.evaluation import Proxies, Share
from shapprune.method.selection import Candidate, choose, is_sufficient
from shapprune.method.settings import SELECTION, SelectionSettings

Row: TypeAlias = Mapping[str, Any]
FOLDS = 5
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Choice:
    """A way to choose.

    Attributes:
        name: as the page has it.
        tuned: which of the tuned networks it has.
        alone: whether it has networks that were pruned alone.
        order: "sum" of answers lost and ASR left, most "kept", or least "asr".
        settings: the rule's bounds.
    """

    name: str
    tuned: tuple[str, ...] = ("by the rules",)
    alone: bool = False
    order: str = "sum"
    settings: SelectionSettings = SELECTION

    def has(self, row: Row) -> bool:
        """Whether a candidate is one of its own."""
        if row["tuned"] == "not":
            return self.alone and bool(row["pruned"])  # the original is no repair
        return row["tuned"] in self.tuned


CHOICES = (
    Choice("the rules"),
    Choice("most kept first", order="kept"),
    Choice("least ASR first", order="asr"),
    Choice("bound on the ASR 0.05", settings=replace(SELECTION, asr=0.05)),
    Choice("bound on the ASR 0.2", settings=replace(SELECTION, asr=0.2)),
    Choice("pruned alone, too", alone=True),
    Choice("pruned alone", tuned=(), alone=True),
    Choice("tuned without pruning", tuned=("without pruning",)),
    Choice("tuned with and without pruning", tuned=("by the rules", "without pruning")),
    Choice("tuned with Adam", tuned=("with Adam",)),
)


def taken(choice: Choice, result: Row) -> Row:
    """The row of the candidate that a choice takes on a model."""
    rows = [row for row in result["candidates"] if choice.has(row)]
    if "without pruning" in choice.tuned and not any(
        row["tuned"] == "without pruning" for row in rows
    ):  # where the rules tune without pruning themselves, it is not measured twice
        rows = [row for row in result["candidates"] if row["tuned"] == "by the rules"]
    candidates = [candidate_of(row) for row in rows]
    original = _proxies(result["proxies"])
    place, sufficient = choose(candidates, original=original, settings=choice.settings)
    enough = [
        i
        for i, c in enumerate(candidates)
        if is_sufficient(c.proxies, choice.settings)
        and c.proxies.kept.value >= choice.settings.least_kept
    ]
    if sufficient and choice.order != "sum":
        keys = {"kept": lambda p: -p.kept.value, "asr": lambda p: p.asr.high}
        place = min(enough, key=lambda i: keys[choice.order](candidates[i].proxies))
    row: Row = rows[place]
    return row


def costs(choice: Choice, result: Row) -> tuple[float, float]:
    """Accuracy lost and ASR left on a model, in points."""
    row = taken(choice, result)
    lost = result["before"]["accuracy"] - row["true"]["accuracy"]
    return 100 * lost, 100 * row["true"]["asr"]


def page(done: Sequence[tuple[str, Row]]) -> str:
    """Two tables in Markdown: each way on all models, and by folds."""
    if not done:
        return "# The rules of the repair\n\nNothing measured yet.\n"
    each = {c.name: np.array([costs(c, result) for _, result in done]) for c in CHOICES}
    total = {name: pairs.sum(1) for name, pairs in each.items()}
    ours = total[CHOICES[0].name]
    lines = [
        "# The rules of the repair",
        "",
        f"Made by `shapprune bench repair-rules` on {len(done)} models. Points of accuracy lost "
        "and of ASR left, by the attacker's trigger on unseen images: median and worst; the mean "
        "of both added, and how much more than by the rules, with a 95 % interval over models.",
        "",
        "| choice | lost | ASR | sum | more than the rules |",
        "|---|---|---|---|---|",
    ]
    for name, pairs in each.items():
        lost, asr = (f"{median(p):.1f} ({max(p):.1f})" for p in pairs.T.tolist())
        more = total[name] - ours
        low, high = _interval(more)
        difference = (
            "" if name == CHOICES[0].name else f"{more.mean():+.1f} [{low:+.1f}, {high:+.1f}]"
        )
        lines.append(f"| {name} | {lost} | {asr} | {total[name].mean():.1f} | {difference} |")
    lines += [
        "",
        f"By folds: the choice that costs least on the other {FOLDS - 1}, tried on this one (mean "
        "of the sum).",
        "",
        "| fold | models | best on the others | it | the rules |",
        "|---|---|---|---|---|",
    ]
    fold = np.arange(len(done)) % FOLDS
    for k in range(min(FOLDS, len(done))):
        others, mine = fold != k, fold == k
        if not others.any():
            continue
        best = min(total, key=lambda name: float(total[name][others].mean()))
        lines.append(
            f"| {k + 1} | {mine.sum()} | {best} | {total[best][mine].mean():.1f} "
            f"| {ours[mine].mean():.1f} |"
        )
    return "\n".join(lines) + "\n"


def _interval(values: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float]:
    """Of the mean, by resampling models."""
    drawn = np.random.default_rng(0).choice(values, (_RESAMPLES, len(values)))
    low, high = np.quantile(drawn.mean(1), (0.025, 0.975))
    return float(low), float(high)


def candidate_of(row: Row) -> Candidate:
    """A candidate of a repair, as results hold it."""
    proxies = _proxies(row["proxies"])
    return Candidate(row["way"], row["score"], tuple(row["pruned"]), proxies)


def _proxies(row: Row) -> Proxies:
    shares: dict[str, Any] = {
        name: Share(**row[name]) for name in ("accuracy", "agreement", "kept", "asr")
    }
    by_map = tuple(Share(**share) for share in row.get("asr_by_map", ()))
    return Proxies(**shares, asr_by_trigger=tuple(row["asr_by_trigger"]), asr_by_map=by_map)
