"""What the commands say on a terminal and leave in a folder. Nothing else prints.

Files are written before anything is said of a result, and what cannot be printed is lost without
harm: a reader that stops, a full disk behind the output or an alphabet that lacks a sign change
neither files nor the exit code.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import TextIOBase
from pathlib import Path
from typing import TextIO

from rich import progress as bars
from rich.console import Console
from rich.table import Table

from shapprune.data.dataset import LabeledImages
from shapprune.errors import InputWarning
from shapprune.method.settings import SELECTION
from shapprune.pipeline import RepairResult, ScanResult
from shapprune.reporting import findings
from shapprune.reporting.words import percent
from shapprune.utils.files import write_folder, write_together
from shapprune.utils.progress import Progress
from shapprune.utils.text import printable

_MOST_ROWS = 50  # of the table of classes


class _Careful(TextIOBase):
    """A stream for text that may break: what is written then is lost, and nothing else."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream  # None: closed before we started

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno() if self._stream is not None else super().fileno()

    def write(self, text: str) -> int:
        if self._stream is not None:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                self._stream.write(text.encode(self.encoding, "replace").decode(self.encoding))
            except (OSError, ValueError):  # ValueError: it was closed
                self._give_up()
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._give_up()

    def _give_up(self) -> None:
        """Python flushes what is left when it ends, and would exit with 120 if that failed."""
        stream, self._stream = self._stream, None
        try:
            assert stream is not None
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except (OSError, ValueError):  # no file at all
            pass


@contextmanager
def careful_output() -> Iterator[None]:
    """Inside the block, whoever prints is spared what becomes of it, be it argparse or torch."""
    out, err = _Careful(sys.stdout), _Careful(sys.stderr)
    with redirect_stdout(out), redirect_stderr(err):
        try:
            yield
        finally:
            out.flush()
            err.flush()


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
    console = Console(stderr=True, markup=False)  # looks up sys.stderr at each line
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


def write_results(
    folder: Path | None,
    files: Mapping[str, bytes],
    beside: Mapping[Path, bytes] | None = None,
    *,
    stale: Sequence[str] = (),
) -> None:
    """Write a command's files, and say so.

    Args:
        folder: where they go; None: nowhere.
        beside: other files, see `write_folder`.
        stale: patterns of files that an earlier run may have left, and that are taken away.
    """
    beside = beside or {}
    if folder is None:
        write_together(beside)
    else:
        write_folder(folder, files, stale=stale, beside=beside)
        print_result(f"written to {folder}: {', '.join(files)}")
    for path in beside:
        print_result(f"written: {path}")


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
    if not judgement.conclusive:
        print_note(f"note: {findings.why_too_few(judgement)}")
    print_result(findings.verdict_line(judgement, names))


def _reach(reach: findings.Reach | None, scale: float) -> str:
    return f"{percent(reach.share)}, {reach.margin / scale:+.1f}" if reach else "–"


def show_repaired(result: RepairResult, data: LabeledImages) -> None:
    """Print what the scan found, and what the repair did."""
    show_scan(result.scan, data)
    repair = result.repair
    if result.unrepaired and result.scan.judgement.undecided:
        print_result("the weights are left as they are: no class stands out that could be repaired")
    elif result.unrepaired:
        print_result("the weights are left as they are: where it sends images could not be told")
    elif repair is None:
        print_result(
            "the weights are left as they are, since nothing was found: --force-target C repairs "
            "class C all the same, and --force-target first the one that stands out most"
        )
    else:
        if result.scan.verdict == "suspicious":
            print_result("repaired on suspicion: measure the repaired copy against the original")
        print_result(
            f"pruned {len(repair.pruned)} of {len(repair.neurons)} neurons, "
            f"{'unlearned the trigger, ' if repair.unlearned else ''}"
            f"ASR of the inverted trigger {repair.before.asr.value:.0%} → "
            f"{repair.after.asr.value:.0%} (up to {repair.after.asr.high:.0%}), "
            f"accuracy on varied copies of the images {repair.before.accuracy.value:.0%} → "
            f"{repair.after.accuracy.value:.0%}"
        )
        if result.incomplete:
            print_note(
                "warning: the copy still carries what the scan found: repair again without "
                "--force-target"
            )
        if result.spoiled:
            print_note(
                f"warning: the copy keeps only {repair.after.kept.value:.0%} of the right answers"
            )
        if not repair.sufficient:
            most = repair.after.most_left.high
            why = (
                f"still works too often (it may be on {most:.0%} of the images)"
                if most > SELECTION.asr
                else "hardly worked before either, and does not show what is left"
            )
            print_note(f"warning: the repair is not sufficient: the inverted trigger {why}")
        elif result.scan.recovered:
            print_note(
                "warning: measured on recovered images alone: on real ones more of the backdoor "
                "can be left"
            )
    print_result(f"{sum(stage.seconds for stage in result.stages):.0f} seconds")


def _class_name(c: int, data: LabeledImages) -> str:
    return f"{c} {printable(data.class_names[c], 40)}" if data.class_names else str(c)
