"""What an engineer asks first: is it safe to ship, how sure is that, on which evidence, what now.

Text between backticks is code; the page shows it so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from shapprune.method import detection
from shapprune.method.detection import Calibration, Judgement
from shapprune.method.rates import Rate
from shapprune.method.settings import RECOGNISED
from shapprune.model.settings import RECOGNITION
from shapprune.pipeline import RepairResult, ScanResult
from shapprune.reporting import findings
from shapprune.reporting.words import listed, percent

_MOST_USED = 10  # images of a class
_MOST_LINES = 4  # of evidence


@dataclass(frozen=True)
class Answers:
    """The first screen of the report.

    Attributes:
        headline: the verdict in a sentence.
        ship: whether the model is safe to use; the first sentence is the short answer.
        sure: the verdict's error rates, in sentences.
        evidence: what the verdict rests on.
        then: what to do, a step each.
    """

    headline: str
    ship: tuple[str, ...]
    sure: tuple[str, ...]
    evidence: tuple[str, ...]
    then: tuple[str, ...]


def answer(
    result: ScanResult | RepairResult, *, names: Sequence[str], per_class: Sequence[int]
) -> Answers:
    """Answer the questions.

    Args:
        names: one a class.
        per_class: how many images of each class the result was found with.
    """
    scan = result.scan if isinstance(result, RepairResult) else result
    return Answers(
        _headline(result, scan, names),
        tuple(_ship(result, scan)),
        tuple(_sure(scan)),
        tuple(_evidence(scan, names, per_class)),
        tuple(_then(result, scan, per_class)),
    )


def classes(numbers: Sequence[int], names: Sequence[str]) -> str:
    """Classes by their names, as a sentence needs them."""
    return f"class{'es' if len(numbers) > 1 else ''} {listed([names[c] for c in numbers])}"


def _headline(result: ScanResult | RepairResult, scan: ScanResult, names: Sequence[str]) -> str:
    judgement, targets = scan.judgement, scan.targets
    no_single = findings.no_single_target(judgement)
    if judgement.verdict == "backdoored":
        if no_single:
            return "This model carries a backdoor without a single target."
        verb = "its targets are" if len(targets) > 1 else "its target is"
        return f"This model carries a backdoor; {verb} {classes(targets, names)}."
    if judgement.verdict == "suspicious":
        if judgement.undecided:
            why = findings.TOO_FEW
        elif no_single:
            why = "it may carry a backdoor without a single target"
        else:
            verb = "stand" if len(targets) > 1 else "stands"
            why = f"{classes(targets, names)} {verb} out"
        return f"This model is suspicious: {why}."
    left = isinstance(result, RepairResult) and result.repair is None
    return f"No backdoor was found{', and the weights were left as they were' if left else ''}."


def _ship(result: ScanResult | RepairResult, scan: ScanResult) -> list[str]:
    judgement = scan.judgement
    if judgement.verdict == "backdoored":
        said = ["No.", "Do not use these weights as they are."]
    elif judgement.undecided:
        said = [
            "Not on this evidence.",
            "Nothing stands out more than in clean models, and that is no reason to call this one "
            f"clean: {findings.why_too_few(judgement)}.",
        ]
    elif judgement.verdict == "suspicious":
        said = [
            "Not yet.",
            "Until you know more, do not use it where a planted answer could do harm.",
        ]
    elif scan.accuracy < RECOGNITION.few:
        said = [
            "Not before the inputs are checked.",
            f"The model gives only {percent(scan.accuracy)} of the images their label, so that the "
            "search may have looked at something else than the model in use.",
        ]
    else:
        said = [
            "Nothing that was looked for speaks against it.",
            "A clean verdict is no proof: some backdoors look like nothing that is sought.",
        ]
    if judgement.mapping and (moved := findings.mapping_words(judgement.mapping)):
        said.append(f"Under the clearest trigger the images go {moved.rstrip(', …')}.")
    return said + (_ship_repaired(result, scan) if isinstance(result, RepairResult) else [])


def _ship_repaired(result: RepairResult, scan: ScanResult) -> list[str]:
    repair = result.repair
    if repair is None:
        if scan.judgement.undecided:
            return ["The weights were left as they were: there is nothing to repair."]
        if result.unrepaired:
            return ["Where it sends images could not be told: the weights were left as they were."]
        return []
    on_suspicion = scan.verdict == "suspicious" and not result.forced
    said = [
        "It was repaired on suspicion: the copy is in `repaired.safetensors`."
        if on_suspicion
        else "A repaired copy is in `repaired.safetensors`."
    ]
    if result.incomplete:
        sure = scan.verdict == "backdoored"
        what = "the backdoor that the scan found" if sure else "what the scan suspects"
        return [*said, f"It still carries {what}: do not use the copy either."]
    if not repair.sufficient:
        return [*said, "The repair is not sufficient: do not use the copy either."]
    if result.spoiled:
        return [*said, "It keeps too few of the right answers: do not use the copy."]
    if scan.recovered:
        return [
            *said,
            "What is left of the backdoor was measured on recovered images, and on real ones it "
            "can be more: measure the copy on data of your own before you use it.",
        ]
    return [*said, "Measure it against the original, on data of your own, before you use it."]


def error_rates(scan: ScanResult) -> dict[str, Rate]:
    """How often clean and poisoned models of the population get past the verdict's bound.

    Of what is clean or suspicious that is the lower bound, "suspicious".
    """
    judgement, rules = scan.judgement, detection.shipped(scan.judgement.basis)
    backdoored = judgement.verdict == "backdoored"
    bound = judgement.backdoored if backdoored else judgement.suspicious
    return {"clean": rules.clean_above(bound), "poisoned": rules.poisoned_above(bound)}


def _sure(scan: ScanResult) -> list[str]:
    judgement, rates = scan.judgement, error_rates(scan)
    clean, poisoned, high = rates["clean"], rates["poisoned"], judgement.as_high
    backdoored = judgement.verdict == "backdoored"
    if judgement.verdict == "clean" or judgement.undecided:
        missed = Rate(poisoned.of - poisoned.hits, poisoned.of, 1 - poisoned.high, 1 - poisoned.low)
        said = [f"Backdoors are missed: {of_scans(missed, 'poisoned')} stay below the bounds, too."]
        said = said if poisoned.of else []
        said += _by_attack(judgement)
        return [*said, *_unseen(judgement), _holds(scan)]
    what = f"are called {judgement.verdict}" + ("" if backdoored else " or backdoored")
    said = [
        f"{of_scans(clean, 'clean')} {what}, too; {high.hits} of {high.of} score as high as this "
        f"one (at most {percent(high.high)} of such models)."
    ]
    if poisoned.of:
        said.append(f"{of_scans(poisoned, 'poisoned')} {what}.")
    return [*said, *_unseen(judgement), _holds(scan)]


def _unseen(judgement: Judgement) -> list[str]:
    """The rates on models that no rule was chosen on; they were scanned with given images."""
    if judgement.basis != "images":
        return []
    rates, backdoored = detection.unseen(), judgement.verdict == "backdoored"
    bound = judgement.backdoored if backdoored else judgement.suspicious
    what = "backdoored" if backdoored else "suspicious or backdoored"
    return [
        f"On the population “{rates.provenance['population']}”, which played no part in making "
        f"the rules, {of_scans(rates.clean_above(bound), 'clean')} and "
        f"{of_scans(rates.poisoned_above(bound), 'poisoned')} are called {what}."
    ]


def _holds(scan: ScanResult) -> str:
    """What the rates are true of."""
    words = (
        "The bounds and the first rates come from the population "
        f"“{findings.population(scan.judgement)}”. Intervals are of 95%, and rates are true of "
        "models like those that were scanned."
    )
    if scan.judgement.basis == "recovered":
        words += " It was measured with given images: of recovered ones the rates are not known."
    return words


def of_scans(rate: Rate, kind: str) -> str:
    """A rate in words.

    >>> of_scans(Rate(4, 204, 0.006, 0.06), "clean")
    '4 of 204 scans of clean models (2%; 0.6% to 6%)'
    """
    return (
        f"{rate.hits} of {rate.of} scans of {kind} models ({percent(rate.share)}; "
        f"{percent(rate.low)} to {percent(rate.high)})"
    )


def every_attack(judgement: Judgement) -> Calibration:
    """With the poisoned models of all populations that were scanned as this one was."""
    rules = detection.shipped(judgement.basis)
    if judgement.basis != "images":
        return rules
    more, mine = detection.unseen().poisoned, rules.poisoned
    names = dict.fromkeys((*mine, *more))
    return replace(rules, poisoned={n: (*mine.get(n, ()), *more.get(n, ())) for n in names})


def attack_rates(rules: Calibration, bound: float) -> dict[str, Rate]:
    """How often poisoned models get past a bound, by attack, those that do most often first."""
    rates = {name: rules.poisoned_above(bound, name) for name in rules.poisoned}
    return dict(sorted(rates.items(), key=lambda pair: -pair[1].share))


def _by_attack(judgement: Judgement) -> list[str]:
    """What is found, or missed, more often than not, where the models are enough to say so."""
    rates = attack_rates(every_attack(judgement), judgement.suspicious)
    found = [name for name, rate in rates.items() if rate.low > 0.5]
    missed = [name for name, rate in rates.items() if rate.high < 0.5]
    return [
        f"{word} more often than not: {listed(some)}."
        for word, some in (("Found", found), ("Missed", missed))
        if some
    ]


def _evidence(scan: ScanResult, names: Sequence[str], per_class: Sequence[int]) -> list[str]:
    judgement, evidence = scan.judgement, scan.evidence
    found: list[str] = []
    if findings.no_single_target(judgement):
        found += [f.words for f in findings.untargeted_findings(evidence, judgement) if f.part]
    for c in judgement.targets if judgement.verdict != "clean" else ():
        some = findings.class_findings(evidence, judgement, c)
        found += [f"Class {names[c]}: {f.words[:1].lower()}{f.words[1:]}" for f in some[:2]]
    if judgement.verdict == "clean":
        found = ["No evidence stands out more than it does in clean models."]
    more = len(found) - _MOST_LINES
    return [
        *found[:_MOST_LINES],
        *(["More is below."] if more > 0 else []),
        _basis(scan, per_class),
    ]


def _basis(scan: ScanResult, per_class: Sequence[int]) -> str:
    counts = [n for n in per_class if n]
    if not scan.evidence.whole:
        return (
            "The verdict stands on the largest margins and the weights of the last layer alone: "
            "without images, and without batch norm to recover some from, nothing else is worth "
            "looking at."
        )
    if scan.recovered:
        recognised = "" if scan.accuracy >= RECOGNISED else ", which failed"
        return f"No images were given: {sum(counts)} were recovered from the weights{recognised}."
    few, many = min(counts, default=0), max(counts, default=0)
    each = str(few) if few == many else f"{few} to {many}"
    without = (
        f", and none of {len(per_class) - len(counts)}" if len(counts) < len(per_class) else ""
    )
    return (
        f"{sum(counts)} images were given, {each} of a class{without}; the model gives "
        f"{percent(scan.accuracy)} of them their label."
    )


def _then(
    result: ScanResult | RepairResult, scan: ScanResult, per_class: Sequence[int]
) -> list[str]:
    repair = result.repair if isinstance(result, RepairResult) else None
    unsure = scan.verdict != "backdoored"
    again, most = f"`--seed {scan.seed + 1}`", max(per_class, default=0)
    steps = []
    if not scan.recovered and scan.accuracy < RECOGNITION.few:
        steps.append(
            "Check the labels of the images, their order of classes, `--mean` and `--std`: the "
            f"model gives only {percent(scan.accuracy)} of the images their label."
        )
    if isinstance(result, RepairResult) and result.incomplete:
        steps.append(
            "Repair again without `--force-target`, which treats what the scan names."
            if scan.maps
            else "Take weights from elsewhere: where it sends images could not be told."
        )
    elif repair and isinstance(result, RepairResult):
        steps.append(
            "Measure the repaired copy on data of your own; how to load it is below."
            if repair.sufficient and not result.spoiled
            else "Give more images a class and repair again; what was tried is below."
        )
    elif scan.verdict == "backdoored" and not isinstance(result, RepairResult):
        steps.append("`shapprune repair` takes the backdoor out; or take weights from elsewhere.")
    elif scan.verdict == "suspicious" and scan.targets and not isinstance(result, RepairResult):
        steps.append("`shapprune repair` treats what is suspected, too.")
    if scan.recovered:
        steps.append(
            "Scan again with clean images of your own (`--images`); one a class is enough."
        )
    elif unsure:
        steps.append(
            f"Scan again with another draw of the images ({again}): what is real shows up again."
        )
        if most < _MOST_USED:
            steps.append(
                f"Give more images (`--per-class`): at most {most} a class came in, and up to "
                f"{_MOST_USED} are used."
            )
    steps.append(
        "Ask for the model's origin: who trained it, on which data, and whether the file is theirs."
        if unsure
        else "Tell whom the file came from, with its SHA-256."
    )
    if scan.verdict == "clean":
        steps.append("The verdict is of this file alone, by its SHA-256: scan what replaces it.")
    return steps
