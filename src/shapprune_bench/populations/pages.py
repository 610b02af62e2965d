"""Tables, the ROC and one JSON file of what scans of known models came to."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve

from shapprune.method.detection import Verdict
from shapprune.method.settings import FALSE_ALARMS, RULES
from shapprune_bench.page import Part, Table, pages
from shapprune_bench.populations.outcomes import Ablation, Outcome, all_to_one
from shapprune_bench.rates import number, rate_facts, rate_words

_ACCUSING: tuple[Verdict, ...] = ("backdoored", "suspicious")
_INK = {False: "#1f6feb", True: "#8c959f"}


def detection_pages(
    outcomes: Sequence[Outcome],
    ablation: Sequence[Ablation],
    *,
    failed: Sequence[str],
    cross_validated: bool,
    unscanned: Sequence[str] = (),
) -> dict[str, bytes]:
    """The files: detection.json, report.md, report.html and roc.svg.

    Args:
        outcomes: one a scan.
        ablation: the score with less evidence; none where nothing was fitted.
        failed: models whose attack failed, which count nowhere.
        unscanned: models with a scan that failed, one a scan; these count nowhere either.
        cross_validated: whether scores are of fits that have not seen the model's siblings.
    """
    clean, poisoned = _by_truth(outcomes)
    summary = {
        "all": _rates(clean, poisoned),
        "by_attack": {name: _rates(clean, some) for name, some in _by(poisoned, _attack)},
        **{f"by_{name}": _grouped(outcomes, key) for name, key in _GROUPS.items()},
    }
    how = (
        "Scores are cross-validated: each by a fit that has seen no model of the same group."
        if cross_validated
        else "Scores and verdicts are those of the calibration that comes with the package."
    )
    left_out = f" Left out, since their attack failed: {', '.join(failed)}." if failed else ""
    lost = ", ".join(f"{name} ({n})" for name, n in Counter(unscanned).items())
    left_out += f" Not counted, since scans of theirs failed: {lost}." if lost else ""
    parts: list[Part] = [
        _error_rates(clean, poisoned, summary, f"{how}{left_out}"),
        *(_group_table(f"By {name}", summary[f"by_{name}"]) for name in _GROUPS),
        *([_ablations(ablation)] if ablation else []),
        Table(
            "Every scan",
            "Highest scores first.",
            ["model", "truth", "draw", "score", "verdict", "right", "seconds", "passes"],
            [_scan_row(o) for o in sorted(outcomes, key=lambda o: -o.score)],
            folded=True,
        ),
    ]
    content = {
        "rules": RULES,
        "cross_validated": cross_validated,
        **summary,
        "attack_failed": list(failed),
        **({"scans_failed": list(unscanned)} if unscanned else {}),
        "ablation": {
            a.name: {"auroc": auroc(a.clean, a.poisoned), "target_first": a.right} for a in ablation
        },
        "scans": [_facts(o) for o in outcomes],
    }
    return {
        **pages(parts, "Detection"),
        "roc.svg": _roc(clean, poisoned),
        "detection.json": (json.dumps(content, indent=1) + "\n").encode(),
    }


def _by_truth(outcomes: Iterable[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """Those of clean models, and those of poisoned ones."""
    every = list(outcomes)
    poisoned = [o for o in every if o.specimen.backdoored]
    return [o for o in every if not o.specimen.backdoored], poisoned


def _attack(outcome: Outcome) -> str:
    return outcome.specimen.attack or "unknown"


def _network(outcome: Outcome) -> str:
    return outcome.specimen.network


def _data(outcome: Outcome) -> str:
    return Path(outcome.specimen.data or "no images").stem


_GROUPS = {"network": _network, "data": _data}


def _grouped(outcomes: Sequence[Outcome], key: Callable[[Outcome], str]) -> dict[str, Any]:
    return {name: _rates(*_by_truth(some)) for name, some in _by(outcomes, key)}


def _error_rates(
    clean: Sequence[Outcome],
    poisoned: Sequence[Outcome],
    summary: Mapping[str, Any],
    how: str,
) -> Table:
    rows = [_row("clean", clean), _row("all poisoned", poisoned, summary["all"])]
    rows += [_row(name, some, summary["by_attack"][name]) for name, some in _by(poisoned, _attack)]
    return Table(
        "Error rates",
        f"Rules {RULES}, false alarms of {FALSE_ALARMS:.0%} asked for. {how} Found: called "
        "backdoored, with the right target or map. Intervals are Wilson's, of 95 %, of as many "
        "cases as there are models.",
        ["models", "scans", "AUROC", "backdoored", "suspicious", "found", "target first"],
        rows,
    )


def _group_table(title: str, groups: Mapping[str, Mapping[str, Any]]) -> Table:
    columns = ("false_alarms", "found", "at_least_suspicious", "right_first")
    return Table(
        title,
        "",
        [
            *("models", "AUROC", "clean, called backdoored", "poisoned, found"),
            *("at least suspicious", "target first"),
        ],
        [
            [name, number(rates["auroc"]), *(rate_words(rates[c]) for c in columns)]
            for name, rates in groups.items()
        ],
    )


def _ablations(ablation: Sequence[Ablation]) -> Table:
    return Table(
        "What each evidence is worth",
        "Cross-validated on the backdoors with a target, against all clean models.",
        ["evidence", "AUROC", "target first"],
        [[a.name, number(auroc(a.clean, a.poisoned)), f"{a.right:.1%}"] for a in ablation],
    )


def _rates(clean: Sequence[Outcome], poisoned: Sequence[Outcome]) -> dict[str, Any]:
    """Rates, and how many backdoors have one target from every class, and theirs stands first."""
    to_one = [o for o in poisoned if all_to_one(o.specimen)]
    return {
        "auroc": auroc([o.score for o in clean], [o.score for o in poisoned]),
        "false_alarms": _called(clean, "backdoored"),
        "clean_suspicious": _called(clean, "suspicious"),
        "missed": _called(poisoned, "clean"),
        "found": _rate(poisoned, lambda o: o.found),
        "at_least_suspicious": _rate(poisoned, lambda o: o.verdict != "clean"),
        "right_first": _rate(poisoned, lambda o: o.right),
        "all_to_one_right_first": _rate(to_one, lambda o: o.right),
    }


def _called(outcomes: Sequence[Outcome], verdict: Verdict) -> dict[str, float]:
    return _rate(outcomes, lambda o: o.verdict == verdict)


def _rate(outcomes: Sequence[Outcome], hit: Callable[[Outcome], bool]) -> dict[str, float]:
    """With an interval of as many cases as there are models: draws of one are no others."""
    return rate_facts(map(hit, outcomes), cases=len({o.specimen.name for o in outcomes}))


def auroc(clean: Sequence[float], poisoned: Sequence[float]) -> float | None:
    """Of the scores; None where there are not both."""
    if not clean or not poisoned:
        return None
    truth = [0] * len(clean) + [1] * len(poisoned)
    return float(roc_auc_score(truth, [*clean, *poisoned]))


def _row(name: str, some: Sequence[Outcome], rates: Mapping[str, Any] | None = None) -> list[str]:
    """Of the error rates; clean models have neither an AUROC nor targets."""
    flagged = [rate_words(_called(some, verdict)) for verdict in _ACCUSING]
    right = [rate_words(rates[key]) for key in ("found", "right_first")] if rates else ["", ""]
    return [name, str(len(some)), number(rates["auroc"] if rates else None), *flagged, *right]


def _scan_row(o: Outcome) -> list[str]:
    truth = f"{o.specimen.attack}, target {_target(o)}" if o.specimen.backdoored else "clean"
    right = "" if not o.specimen.backdoored else "yes" if o.right else "no"
    cost = [f"{o.seconds:.1f}", f"{o.passes:,}"]
    return [o.specimen.name, truth, str(o.seed), f"{o.score:.2f}", o.verdict, right, *cost]


def _facts(o: Outcome) -> dict[str, object]:
    return {
        "model": o.specimen.name,
        "backdoored": o.specimen.backdoored,
        "attack": o.specimen.attack,
        "network": o.specimen.network,
        "data": _data(o),
        "target": o.specimen.target,
        "seed": o.seed,
        "score": o.score,
        "verdict": o.verdict,
        "right": o.right,
        "found": o.found,
        "seconds": o.seconds,
        "passes": o.passes,
    }


def _target(o: Outcome) -> str:
    target = o.specimen.target
    words = ", ".join(map(str, target)) if isinstance(target, tuple) else str(target)
    return words if o.specimen.source is None else f"{words} from {o.specimen.source}"


def _by(
    outcomes: Sequence[Outcome], key: Callable[[Outcome], str]
) -> list[tuple[str, list[Outcome]]]:
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(key(outcome), []).append(outcome)
    return sorted(found.items())


def _roc(clean: Sequence[Outcome], poisoned: Sequence[Outcome]) -> bytes:
    """True against false positives; of each attack in grey, of all in colour."""
    figure = Figure(figsize=(5, 4.2), layout="constrained")
    axes = figure.subplots()
    attacks = [some for _, some in _by(poisoned, lambda o: o.specimen.attack or "unknown")]
    for single, some in [*((True, some) for some in attacks), (False, list(poisoned))]:
        if not clean or not some:
            continue
        truth = [0] * len(clean) + [1] * len(some)
        hits = roc_curve(truth, [o.score for o in [*clean, *some]], drop_intermediate=False)
        axes.step(
            hits[0],
            hits[1],
            where="post",
            color=_INK[single],
            linewidth=0.8 if single else 2,
            label=None
            if single
            else f"all, AUROC {number(auroc([o.score for o in clean], [o.score for o in some]))}",
        )
    axes.set(
        xlabel="false alarms", ylabel="poisoned models flagged", xlim=(-0.02, 1), ylim=(0, 1.02)
    )
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", frameon=False)
    buffer = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "shapprune"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
