"""What became of verdicts under other conditions, as a page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from shapprune_bench.page import Table, pages
from shapprune_bench.populations.manifest import Specimen
from shapprune_bench.populations.outcomes import is_next, true_targets
from shapprune_bench.rates import share
from shapprune_bench.studies.conditions import BASE, CONDITIONS

DRAWS = "base, other draws"


@dataclass(frozen=True)
class Seen:
    """A scan under a condition.

    Attributes:
        specimen: the model, and what is true of it.
        condition: a name in `CONDITIONS`.
        seed: of the draw.
        result: what its file holds.
    """

    specimen: Specimen
    condition: str
    seed: int
    result: Mapping[str, Any]

    @property
    def row(self) -> str:
        """Of the page: draws of the base after the first stand apart."""
        return DRAWS if self.condition == BASE and self.seed else self.condition

    @property
    def said(self) -> tuple[str, int | None]:
        """The verdict, and the class that it names first."""
        targets = self.result["targets"]
        return self.result["verdict"], targets[0] if targets else None

    @property
    def right(self) -> bool:
        """Whether a poisoned model is called backdoored with the right target, or map."""
        verdict, first = self.said
        if self.specimen.target == "y+1":
            told = first is None and is_next(self.result["mapping"], self.specimen.num_classes)
        else:
            told = first in true_targets(self.specimen)
        return verdict == "backdoored" and told


def page(seen: Sequence[Seen]) -> dict[str, bytes]:
    """The files: a row a condition, the models whose verdict changed, and what was changed."""
    first = {one.specimen.name: one for one in seen if one.row == BASE}
    names = [BASE, DRAWS, *(name for name in CONDITIONS if name != BASE)]
    by_row = {name: [one for one in seen if one.row == name] for name in names}
    there = {name: some for name, some in by_row.items() if some}
    changed = [
        (name, before, one)
        for name, some in there.items()
        for one in some
        if (before := first.get(one.specimen.name)) and one.said != before.said
    ]
    parts = [
        Table(
            "Verdicts by condition",
            "Base: one clean image a class, by the first draw. Every other row is of the same "
            "models; the images of the last five are those of the base, changed. Right target: "
            "called backdoored, with the attacker's class, or map, first. Other than base: another "
            "verdict, or another class named first. Score: the highest one, which decides; the "
            "median of how far it moved. Warned: the user would have been told that something does "
            "not fit. Intervals are Wilson's, of 95 %, of as many cases as there are models.",
            [
                "condition",
                "scans",
                "clean, backdoored",
                "clean, suspicious",
                "poisoned, right target",
                "poisoned, at least suspicious",
                "poisoned, missed",
                "other than base",
                "score moved by",
                "warned",
            ],
            [_row(name, some, first) for name, some in there.items()],
        ),
        Table(
            "What was changed",
            "Medians of the scans: images given, labels replaced, the mean change of a pixel (from "
            "0 to 1). Sums in another order: how many scans they changed a logit of, and by how "
            "much at most.",
            ["condition", "images", "mislabelled", "pixels moved by", "logits other", "seconds"],
            [_extent(name, some) for name, some in there.items()],
        ),
    ]
    if changed:
        table = Table(
            "Models whose verdict changed",
            "Verdict, class named first, highest score.",
            ["condition", "draw", "model", "truth", "base", "then", "warning"],
            [_change(*change) for change in changed],
        )
        parts.insert(1, table)
    return pages(parts, "Robustness of the verdict")


def _row(name: str, some: Sequence[Seen], first: Mapping[str, Seen]) -> list[str]:
    clean = [one for one in some if not one.specimen.backdoored]
    poisoned = [one for one in some if one.specimen.backdoored]
    pairs = [(first[n], one) for one in some if name != BASE and (n := one.specimen.name) in first]

    def told(of: Sequence[Seen], hit: Callable[[Seen], bool]) -> str:
        return share(map(hit, of), cases=len({one.specimen.name for one in of}))

    moved = [abs(one.result["score"] - before.result["score"]) for before, one in pairs]
    others = [one for _, one in pairs]
    return [
        name,
        str(len(some)),
        told(clean, lambda one: one.said[0] == "backdoored"),
        told(clean, lambda one: one.said[0] == "suspicious"),
        told(poisoned, lambda one: one.right),
        told(poisoned, lambda one: one.said[0] != "clean"),
        told(poisoned, lambda one: one.said[0] == "clean"),
        told(others, lambda one: one.said != first[one.specimen.name].said),
        f"{median(moved):.2g}" if moved else "",
        f"{sum(bool(one.result['warnings']) for one in some)} of {len(some)}",
    ]


def _change(name: str, before: Seen, one: Seen) -> list[str]:
    return [
        name,
        str(one.seed),
        one.specimen.name,
        f"target {_target(one.specimen)}" if one.specimen.backdoored else "clean",
        _said(before),
        _said(one),
        "; ".join(one.result["warnings"]),
    ]


def _target(specimen: Specimen) -> str:
    return ", ".join(map(str, true_targets(specimen))) or str(specimen.target)


def _said(one: Seen) -> str:
    verdict, first = one.said
    words = verdict if first is None else f"{verdict} {first}"
    return f"{words} ({one.result['score']:.2f})"


def _extent(name: str, some: Sequence[Seen]) -> list[str]:
    def middle(of: str) -> float:
        return float(median(one.result[of] for one in some))

    logits = [one.result["logits_changed"] for one in some]
    other = f"{sum(map(bool, logits))} of {len(some)}, {max(logits):.1e}" if any(logits) else "0"
    return [
        name,
        f"{middle('images'):g}",
        f"{middle('mislabelled'):g}",
        f"{middle('pixels_changed'):.3f}",
        other,
        f"{middle('seconds'):.1f}",
    ]
