"""What the commands say on a terminal and leave in a folder. Nothing else prints."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich import progress as bars
from rich.console import Console
from rich.table import Table

from shapprune.data.dataset import LabeledImages
from shapprune.errors import InputWarning
from shapprune.model.compact import Compact
from shapprune.pipeline import RepairResult, ScanResult
from shapprune.reporting import findings
from shapprune.utils.files import write_folder
from shapprune.utils.progress import Progress
from shapprune.utils.text import printable

_MOST_ROWS = 50  # of the table of classes


def print_result(what: str | Table) -> None:
    """Print a result."""
    Console(markup=False, highlight=False, soft_wrap=True).print(what)


def print_note(message: str) -> None:
    """Print what is no result on standard error."""
    print(f"shapprune: {message}", file=sys.stderr)


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as the command's own, in place of `warnings.showwarning`."""
    name = "" if issubclass(category, InputWarning) else f"{category.__name__}: "
    print_note(f"warning: {name}{printable(str(message), 400)}")


@contextmanager
def progress_shown() -> Iterator[Progress]:
    """Bars on a terminal, else one line a stage, on standard error."""
    console = Console(stderr=True, markup=False)
    with bars.Progress(
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as shown:
        tasks: dict[str, bars.TaskID] = {}

        def report(stage: str, share: float) -> None:
            if stage not in tasks:
                tasks[stage] = shown.add_task(stage, total=1.0)
                if not console.is_terminal:
                    print_note(f"{stage} …")
            shown.update(tasks[stage], completed=share)

        yield report


def write_results(folder: Path, files: dict[str, bytes]) -> None:
    """Write a command's files into its folder, in place of those of an earlier run, and say so."""
    write_folder(folder, files, stale=("trigger_*.png", "repaired.*", "compact.*"))
    print_result(f"written to {folder}: {', '.join(files)}")


def show_scan(result: ScanResult, data: LabeledImages) -> None:
    """Print score and evidence of all classes, and the verdict."""
    evidence, judgement = result.evidence, result.judgement
    names = [_class_name(c, data) for c in range(evidence.classes)]
    shown, marks = judgement.ranking[:_MOST_ROWS], findings.marks(judgement)
    reaches = findings.reaches_of(evidence)
    table = Table("class", "score", "margin", *reaches, "")
    for c in sorted(shown):
        times = findings.margin_times(evidence, c)
        table.add_row(
            names[c],
            f"{judgement.scores[c]:.2f}",
            f"{evidence.margins.values[c]:.3g}" if times is None else f"{times:.2f} ×",
            *(_reach(reach.get(c), evidence.scale) for reach in reaches.values()),
            marks.get(c, ""),
        )
    table.title = "Scores (log-odds) and what they are made of"
    if len(shown) < len(names):
        table.title += f", {len(shown)} of {len(names)} classes"
    table.caption = "margin: the largest, against the median class's" + (
        "; window, perturbation: share of other images that a small square or perturbation sends "
        "there, and how surely, against clean images"
        if reaches
        else ""
    )
    print_result(table)
    if judgement.untargeted is not None and evidence.untargeted:
        found = evidence.untargeted
        sizes = [f"{t.kind} {t.norm:.2f}" for t in findings.smallest(found) if t.kind != "window"]
        spread = max(trigger.spread for trigger in found.triggers)
        print_result(
            f"{findings.NO_SINGLE_TARGET}: score {judgement.untargeted:.2f} (smallest triggers "
            f"that move all images: {', '.join(sizes)}; answers spread over {spread:.1f} classes)"
        )
    print_result(findings.verdict_line(judgement, names))
    if not judgement.conclusive:
        print_note(f"note: {findings.why_too_few(judgement)}")


def _reach(reach: findings.Reach | None, scale: float) -> str:
    return f"{findings.percent(reach.share)}, {reach.margin / scale:+.1f}" if reach else "–"


def show_repair(result: RepairResult) -> None:
    """Print what a repair did."""
    repair = result.repair
    if result.unrepaired and result.scan.judgement.undecided:
        print_result("the weights are left as they are: no class stands out that could be repaired")
    elif repair is None:
        print_result("the weights are left as they are")
    else:
        if result.scan.verdict == "suspicious":
            print_result("repaired on suspicion: measure the repaired copy against the original")
        print_result(
            f"pruned {len(repair.removed)} of {len(repair.neurons)} neurons, "
            f"{'unlearned the trigger, ' if repair.unlearned else ''}"
            f"ASR of the inverted trigger {repair.before.asr.value:.0%} → "
            f"{repair.after.asr.value:.0%} (up to {repair.after.asr.high:.0%}), "
            f"accuracy on the given images {repair.before.accuracy.value:.0%} → "
            f"{repair.after.accuracy.value:.0%}"
        )
        if not repair.sufficient:
            print_note(
                "warning: the repair is not sufficient: the inverted trigger still works too often"
            )
    if result.compact:
        _show_compact(result.compact)
    print_result(f"{sum(stage.seconds for stage in result.stages):.0f} seconds")


def _show_compact(compact: Compact) -> None:
    (more, less), (slower, faster) = compact.parameters, compact.operations
    print_result(
        f"compact: {len(compact.taken)} of {len(compact.taken) + len(compact.left)} pruned "
        f"channels taken away, parameters {more:,} → {less:,}, multiply-accumulates of an image "
        f"{slower:,} → {faster:,}"
    )
    for why, count in Counter(left.why for left in compact.left).most_common():
        print_result(f"compact: {count} left as zeros: {printable(why)}")


def _class_name(c: int, data: LabeledImages) -> str:
    return f"{c} {printable(data.class_names[c], 40)}" if data.class_names else str(c)
