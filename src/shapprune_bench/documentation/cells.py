"""Tables of what the paper's experiments measured, read from the JSON files of their cells."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from shapprune_bench.documentation.files import Json, done, spread
from shapprune_bench.page import Table
from shapprune_bench.tables.defences import WITH_TRIGGER
from shapprune_bench.tables.experiments import FORMER

_OURS, _FIRST, _TOLD, _PAPER = "ours", "ours-first", "ours-target", "paper"
_LEFT_OUT = (*FORMER.values(), WITH_TRIGGER)  # of 0.1.0, or given the trigger


def table1(results: Path) -> Table:
    """ACC and ASR of ours beside the best of the other defences, a row a model."""
    found: dict[str, dict[str, list[Json]]] = {}
    rules: set[str] = set()
    draws: dict[str, set[int]] = {}
    for result in done(results, "cpu/defend_cpu_*_1a_*.json"):
        rules |= {r for r in [result["cell"].get("rules")] if r}
        row = found.setdefault(result["cell"]["recipe"]["name"], {})
        row.setdefault(method := result["cell"]["method"], []).append(result)
        draws.setdefault(method, set()).add(result["cell"]["seed"])
    rows = []
    for name, methods in found.items():
        ours = methods.pop(_OURS, [])
        first, told, paper = (methods.pop(m, []) for m in (_FIRST, _TOLD, _PAPER))
        others = {m: runs for m, runs in methods.items() if m not in _LEFT_OUT}
        if not ours or not others:
            continue
        least = min(others, key=lambda m: _after(others[m])[1])
        low = [m for m in others if _after(others[m])[1] < 10]
        best = max(low, key=lambda m: _after(others[m])[0], default=None)
        rows.append(
            [
                name,
                _both([100 * ours[0]["before"][k] for k in ("accuracy", "asr")]),
                spread([100 * r["after"]["accuracy"] for r in ours]),
                spread([100 * r["after"]["asr"] for r in ours]),
                _both(_after(first)) if first else "",
                _both(_after(told)) if told else "",
                _both(_after(paper)) if paper else "",
                f"{best} {_both(_after(others[best]))}" if best else "none",
                f"{least} {_both(_after(others[least]))}",
            ]
        )
    told_rules = " and ".join(sorted(rules)) or "unknown"
    counts = ", ".join(f"{m} {len(seeds)}" for m, seeds in draws.items() if m not in _LEFT_OUT)
    return Table(
        "ACC and ASR after a repair, one clean image a class",
        "Rows and methods were seen while the rules were made; no threshold was fitted to them. "
        "In per cent on the test images, with the attacker's trigger. Ours with its own verdict, "
        "which leaves a model that it calls clean as it is (least … most of its draws); ours with "
        "`--force-target first`, which then treats the class of the highest score, as other "
        "defences treat the class that stands out most; and told the target, which is its repair "
        "alone. Cells of two numbers are ACC / ASR, medians of the draws; ours by rules "
        f"{told_rules} (of the verdict / of the repair). Draws: {counts}. The two "
        "last columns take the best of eight by the figures on the test images, which favours "
        "them. "
        "All were given the same models and images, which are trained for this table: the zoo's "
        "`cifar10-badnets` on other pages is another. Empty: not measured. "
        "[What each method is](../rivals.md), "
        "[all methods and the paper's own figures](../../benchmarks/results/cpu/report.md).",
        [
            *("row", "before", "ours, ACC", "ours, ASR", "ours, first"),
            *("ours, told the target", "the paper's method"),
            *("baseline with most ACC of those below 10 % ASR", "baseline with least ASR"),
        ],
        rows,
    )


def _after(runs: Sequence[Json], when: str = "after") -> tuple[float, float]:
    """Medians of ACC and ASR in per cent."""
    acc, asr = (100 * median(r[when][key] for r in runs) for key in ("accuracy", "asr"))
    return acc, asr


def _both(pair: Sequence[float]) -> str:
    return f"{pair[0]:.1f} / {pair[1]:.1f}"


def retuning(results: Path) -> Table:
    """What a repair leaves, and what comes back when the user trains on."""
    found: dict[str, dict[str, list[Json]]] = {}
    for result in done(results, "*/retune_*.json"):
        row = found.setdefault(result["cell"]["recipe"]["name"], {})
        row.setdefault(result["cell"]["method"], []).append(result)
    methods = sorted({m for row in found.values() for m in row}, key=_order)
    rows = [
        [name, *(_way(row[m]) if m in row else "" for m in methods)] for name, row in found.items()
    ]
    most = max((len(runs) for row in found.values() for runs in row.values()), default=0)
    draws = "1 draw" if most == 1 else f"up to {most} draws"
    return Table(
        "What comes back after retuning",
        "ACC / ASR in per cent on the test images, with the attacker's trigger: after the repair → "
        f"after more fine-tuning on clean images; medians over {draws} each. Under `none` nothing "
        "is repaired, `paper` is the paper's method as it stands, [the others](../rivals.md) are "
        "baselines. The repair's rules were chosen on these models. Ours goes by its own verdict: "
        "what that calls clean stays as it was. Empty: not measured.",
        ["model", *methods],
        rows,
    )


def _order(method: str) -> tuple[bool, bool, str]:
    """None first, ours last."""
    return method != "none", method == _OURS, method


def _way(runs: Sequence[Json]) -> str:
    return " → ".join(_both(_after(runs, when)) for when in ("after", "retuned"))
