"""What a scan found, in words and small numbers: for the terminal and the page alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median

from shapprune.method import detection
from shapprune.method.detection import Judgement
from shapprune.method.evidence import Evidence
from shapprune.method.perturbations import Perturbations
from shapprune.method.rates import Rate
from shapprune.method.triggers import Perturbation, Stamp, Trigger
from shapprune.method.untargeted import Untargeted, UntargetedTrigger
from shapprune.method.windows import Windows
from shapprune.reporting.words import apart, listed, percent

NO_SINGLE_TARGET = "no single target"
TOO_FEW = "the data are too few to say"
_MOST_PAIRS = 12  # of a map that is told in one line
# What features are told with: the first of these words in a feature's name.
_EVIDENCE = ("margin", "window", "patch", "perturbation", "spread")


@dataclass(frozen=True)
class Finding:
    """What one kind of evidence says.

    Attributes:
        words: a sentence.
        part: of a class, the log-odds that it gives alone; of a backdoor without a single target,
            what it adds to the score; None where it takes no part in it.
    """

    words: str
    part: float | None


def verdict_line(judgement: Judgement, names: Sequence[str]) -> str:
    """The verdict with the score and the bounds that it follows from, in one line.

    Args:
        names: one a class.
    """
    verdict = "undecided" if judgement.undecided else judgement.verdict
    score, low, high = apart(judgement.score, judgement.suspicious, judgement.backdoored)
    said = f"verdict: {judgement.verdict}"
    if judgement.undecided:
        said += f": {TOO_FEW}"
    elif verdict != "clean":
        said += f", {_what(judgement, names)}"
    against = {
        "backdoored": f"score {score}, bound {high}",
        "suspicious": f"score {score}, above {low} for suspicious, not above {high} for backdoored",
        "clean": f"highest score {score}, bound {low}",
        "undecided": f"highest score {score}, bound {low}",
    }[verdict]
    return f"{said} ({against}; {frequency(judgement.as_high)} scored as high)"


def why_too_few(judgement: Judgement) -> str:
    """Why evidence that is not conclusive could not show that a model is clean."""
    if judgement.basis == "margins":
        return (
            "the weights alone can show a backdoor, but not that there is none: give "
            "clean images, one a class is enough"
        )
    if judgement.basis == "images":
        return (
            "the model knows the given images no better than guesses would, or they are too few to "
            "tell, and such images cannot show that there is no backdoor: check labels, mean and "
            "std, and give one image a class"
        )
    return (
        "the recovery failed, and such images cannot show that there is no backdoor: give clean "
        "images, one a class is enough"
    )


def _what(judgement: Judgement, names: Sequence[str]) -> str:
    if no_single_target(judgement):
        told = mapping_words(judgement.mapping)
        return NO_SINGLE_TARGET + (f": {told}" if told else "")
    word = "target class" if judgement.verdict == "backdoored" else "class"
    many = "es" if len(judgement.targets) > 1 else ""
    return f"{word}{many} {listed([names[c] for c in judgement.targets])}"


def no_single_target(judgement: Judgement) -> bool:
    """Whether the verdict goes by the score for a backdoor without a single target."""
    return judgement.untargeted is not None and judgement.untargeted == judgement.score


def mapping_words(mapping: Sequence[int | None] | None) -> str:
    """A map in short, without the classes that nothing is known of.

    >>> mapping_words([1, 2, None, 0])
    '0→1, 1→2, 3→0'
    """
    pairs = [f"{c}→{to}" for c, to in enumerate(mapping or ()) if to is not None]
    return ", ".join(pairs[:_MOST_PAIRS]) + (", …" if len(pairs) > _MOST_PAIRS else "")


def frequency(rate: Rate) -> str:
    """How many scans of clean models.

    >>> frequency(Rate(0, 54, 0.0, 0.066))
    '0 of 54 scans of clean models'
    """
    return f"{rate.hits} of {rate.of} scans of clean models"


def marks(judgement: Judgement) -> dict[int, str]:
    """What the verdict says of classes: "target", or "suspected" where it is less sure."""
    sure = judgement.verdict == "backdoored"
    found = {
        c: "suspected"
        for c, score in enumerate(judgement.scores)
        if judgement.verdict != "clean" and score > judgement.suspicious
    }
    return found | dict.fromkeys(judgement.targets, "target" if sure else "suspected")


def by_evidence(parts: Mapping[str, float]) -> dict[str, float]:
    """What each kind of evidence adds to the score, its features taken together."""
    found: dict[str, float] = {}
    for name, part in parts.items():
        kind = next((word for word in _EVIDENCE if word in name.split()), name)
        found[kind] = found.get(kind, 0.0) + part
    return found


def parts_of(judgement: Judgement, c: int) -> dict[str, float]:
    """The log-odds that each kind of evidence gives a class alone."""
    return {name: values[c] for name, values in judgement.parts.items()}


def start(judgement: Judgement) -> float:
    """What the score of a backdoor without a single target starts from."""
    return (judgement.untargeted or 0.0) - sum(judgement.untargeted_parts.values())


def class_findings(evidence: Evidence, judgement: Judgement, c: int) -> list[Finding]:
    """What each kind of evidence says of a class, what counts most first."""
    parts = parts_of(judgement, c)
    said = {"margin": _margin_words(evidence, c)}
    for kind, reaches in reaches_of(evidence).items():
        said[kind] = _reach_words(reaches, c, evidence.scale)
    found = [Finding(words, parts.pop(kind, None)) for kind, words in said.items()]
    found += [Finding(f"Other evidence: {name}.", part) for name, part in parts.items() if part]
    return sorted(found, key=lambda finding: -inf if finding.part is None else finding.part)[::-1]


def untargeted_findings(evidence: Evidence, judgement: Judgement) -> list[Finding]:
    """The same of a backdoor without a single target."""
    if not evidence.untargeted:
        return []
    parts = by_evidence(judgement.untargeted_parts)
    triggers = evidence.untargeted.triggers
    widest = max(
        (trigger for trigger in triggers if trigger.kind != "window"),
        key=lambda trigger: trigger.spread,
        default=triggers[0],
    )
    found = [
        Finding(
            f"The images that a small trigger moves go to {_count(widest.spread)} of "
            f"{evidence.classes} classes (the exponential of the answers' entropy). A backdoor "
            "that sends each class elsewhere reaches nearly all of them.",
            parts.pop("spread", None),
        )
    ]
    found += [
        Finding(f"{untargeted_size(trigger)}.", parts.pop(trigger.kind, None))
        for trigger in smallest(evidence.untargeted)
    ]
    found += [Finding(f"Other evidence: {name}.", part) for name, part in parts.items() if part]
    return sorted(found, key=lambda finding: -(finding.part or 0.0))


def smallest(untargeted: Untargeted) -> list[UntargetedTrigger]:
    """The smallest trigger of each kind."""
    kinds = dict.fromkeys(trigger.kind for trigger in untargeted.triggers)
    return [
        min((t for t in untargeted.triggers if t.kind == kind), key=lambda t: t.relative_norm)
        for kind in kinds
    ]


def untargeted_size(trigger: UntargetedTrigger) -> str:
    """How large a trigger without a target is, and how many images it moves."""
    moved = f"moves {percent(trigger.moved)} of varied images, to {_count(trigger.spread)} classes"
    if trigger.kind == "patch":
        return (
            f"A patch of {trigger.norm:.3g} pixels, {percent(trigger.relative_norm)} of the image, "
            + moved
        )
    if isinstance(trigger.stamp, Trigger):
        return "A square of {} × {} pixels ".format(*window_side(trigger.stamp)) + moved
    return f"A perturbation of L2 norm {trigger.norm:.3g} {moved}"


def _count(value: float) -> str:
    """How many classes, with a digit behind the point where that says something."""
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def population(judgement: Judgement) -> str:
    """The name of the population that the bounds come from."""
    return str(
        detection.shipped(judgement.basis).provenance.get("population", "that comes with shapprune")
    )


def margin_times(evidence: Evidence, c: int) -> float | None:
    """A class's largest margin as a multiple of the median; None where that is not positive."""
    usual = median(evidence.margins.values)
    return evidence.margins.values[c] / usual if usual > 0 else None


@dataclass(frozen=True)
class Reach:
    """What the best trigger of bounded size does for a class.

    Attributes:
        share: of other images that it sends to the class, in [0, 1].
        margin: of the class on these images, the mean.
        stamp: the trigger.
    """

    share: float
    margin: float
    stamp: Stamp


def reaches_of(evidence: Evidence) -> dict[str, dict[int, Reach]]:
    """The best windows and perturbations, by class; kinds that were not looked at are left out."""
    found: dict[str, Windows | Perturbations | None] = {
        "window": evidence.windows,
        "perturbation": evidence.perturbations,
    }
    return {kind: _reaches(some) for kind, some in found.items() if some}


def _reaches(found: Windows | Perturbations) -> dict[int, Reach]:
    stamps: Sequence[Stamp] = found.triggers
    rows = zip(found.classes, found.shares, found.margins, stamps, strict=True)
    return {c: Reach(share, margin, stamp) for c, share, margin, stamp in rows}


def window_side(square: Trigger) -> tuple[int, int]:
    """Rows and columns of a square."""
    rows, columns = square.mask[0].nonzero(as_tuple=True)
    if not len(rows):
        return 0, 0
    return int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1


def _margin_words(evidence: Evidence, c: int) -> str:
    value, times = evidence.margins.values[c], margin_times(evidence, c)
    row = ""
    if evidence.signatures:
        above = evidence.signatures[c] - median(evidence.signatures)
        row = f" The last layer's weights for it are {above:+.2g} standard deviations from usual."
    if times is None:
        usual = median(evidence.margins.values)
        return f"Its largest margin is {value:.3g}, where the median class has {usual:.3g}." + row
    return f"Its largest margin is {round(times, 2):g} times that of the median class." + row


def _reach_words(reaches: Mapping[int, Reach], c: int, scale: float) -> str:
    """What the best trigger of a kind does for a class, beside what it does for the median one."""
    some = next(iter(reaches.values())).stamp
    if isinstance(some, Trigger):
        what = "A square of {} × {} pixels".format(*window_side(some))
    else:
        what = f"A perturbation of at most {percent(_strength(reaches))} of the range of colours"
    if c not in reaches:
        return f"{what} was not sought for it, as its largest margin is not among the highest."
    reach, usual = reaches[c], median(reach.share for reach in reaches.values())
    words = f"{what} sends {percent(reach.share)} of other images to it"
    if reach.margin > 0:
        words += f", {reach.margin / scale:.2g} times as surely as clean images go to their class"
    return f"{words}; the median class gets {percent(usual)}."


def _strength(reaches: Mapping[int, Reach]) -> float:
    """The largest root mean square of perturbations."""
    return max(
        reach.stamp.norm / float(reach.stamp.delta.numel() ** 0.5)
        for reach in reaches.values()
        if isinstance(reach.stamp, Perturbation)
    )
