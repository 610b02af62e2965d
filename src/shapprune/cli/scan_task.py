"""A model of `scan-all` as a task of the runner."""

from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from io import StringIO
from pathlib import Path
from stat import S_ISDIR

from shapprune.checkpoints.inspection import MALICIOUS, look_into
from shapprune.checkpoints.shards import INDEX
from shapprune.cli.listing import Entry
from shapprune.cli.options import ScanAllOptions, ScanOptions
from shapprune.cli.results import run_files
from shapprune.cli.scan import examine
from shapprune.errors import InputError
from shapprune.method.settings import RULES
from shapprune.pipeline import ScanResult
from shapprune.reporting import findings, words
from shapprune.reporting.exits import exit_code
from shapprune.running.runner import file_name
from shapprune.utils.files import write_folder
from shapprune.utils.text import printable

_MOST_NAME = 60  # characters of a model's name in that of its files
_UNSEEN = {"command", "device", "debug", "out", "overwrite", "sarif"}  # change no verdict


@dataclass(frozen=True)
class ScanTask:
    """A model to be scanned; see `Task`.

    Attributes:
        model: see `Entry`.
        options: of `scan`; its ``out`` is where the report goes.
        stamp: changes when the weights do.
    """

    model: Entry
    options: ScanOptions
    stamp: str

    @property
    def name(self) -> str:
        """Of its files."""
        return file_name(["scan", self.model.name[-_MOST_NAME:]], self.facts())

    @property
    def report(self) -> Path:
        """The model's folder, relative to that of the page."""
        return Path("models", self.name)

    def facts(self) -> dict[str, object]:
        """What the verdict depends on; images and code by their names, not by what they hold."""
        options = {name: v for name, v in asdict(self.options).items() if name not in _UNSEEN}
        return {"model": self.model.name, "stamp": self.stamp, "rules": RULES, **options}


def task_of(entry: Entry, options: ScanAllOptions) -> ScanTask:
    """The task of a model: what the list says of it goes before what was typed."""
    shared = {field.name for field in fields(ScanOptions)} & {
        field.name for field in fields(options)
    }
    typed = {name: getattr(options, name) for name in shared - {"out"}}
    chosen = {**typed, **entry.settings}
    for name in ("weights", "images", "arch"):
        chosen[name] = _absolute(chosen[name])
    return ScanTask(entry, ScanOptions(**chosen), _stamp(chosen["weights"]))


def _absolute(name: str | None) -> str | None:
    """A file's whole path, with which machines of a cluster find it; other names as they are."""
    if name is None or (":" in name and not name.rpartition(":")[0].endswith(".py")):
        return name
    return str(Path(name).absolute())


def _stamp(weights: str) -> str:
    """Of the names, sizes and times of a model's files; of one that cannot be looked at, the error.

    The parts that an index names are files of its folder.
    """
    path = Path(weights)
    folder = path.parent if path.name.endswith(INDEX) else path
    try:
        files = sorted(folder.iterdir()) if folder.is_dir() else [path]
    except OSError:
        files = [path]  # the scan will say it
    facts = [_about(file) for file in files]
    return sha256(repr(facts).encode()).hexdigest()[:16]


def _about(file: Path) -> tuple[object, ...]:
    try:
        about = file.stat()
    except (OSError, ValueError) as error:  # a link that leads nowhere, or a name of no file
        return file.name, getattr(error, "errno", None)
    if S_ISDIR(about.st_mode):  # its time changes with whatever is written into it
        return (file.name,)
    # Who keeps size and time of a file that changes cannot keep when the system saw it change.
    return file.name, about.st_size, about.st_mtime_ns, about.st_ctime_ns


def scan_one(task: ScanTask, *, out: Path) -> dict[str, object]:
    """Scan a model, write its report below ``out``, and tell the verdict; runs in a worker.

    Raises:
        InputError: why it was not examined, in one line.
    """
    notes = _look_beside(task)
    folder = out / task.report
    # Many speak at once: what a scan says stands in its report.
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        result, inputs = examine(task.options)
        write_folder(
            folder, run_files(result, task.options, inputs), stale=("trigger_*.png", ".*.tmp")
        )
    return {
        **_found(result, inputs.data.class_names),
        "accuracy": result.accuracy,
        "images": None if inputs.recovered else len(inputs.data.images),
        "files": [vars(file) for file in inputs.source.files],
        "notes": [*notes, *inputs.data.notes, *result.warnings],
        "seconds": sum(stage.seconds for stage in result.stages),
    }


def _look_beside(task: ScanTask) -> list[str]:
    """Notes on what lies in a Hugging Face folder and is no part of its model.

    Raises:
        InputError: one of these files is malicious.
    """
    folder, notes = Path(str(task.options.weights)), []
    for name in task.model.beside:
        try:
            problem = next(iter(look_into(folder / name).problems), "")
        except InputError:  # empty, or cannot be read: no model will come of it
            problem = ""
        if problem.startswith(MALICIOUS):
            raise InputError(f"{printable(str(folder / name))}, beside the weights, {problem}")
        notes.append(f"not examined: {printable(name)}, which lies beside the weights")
    return notes


def _found(result: ScanResult, class_names: Sequence[str] | None) -> dict[str, object]:
    judgement = result.judgement
    names = words.labels_of(class_names, result.evidence.classes)
    line = findings.verdict_line(judgement, names).removeprefix(f"verdict: {result.verdict}")
    return {
        "verdict": result.verdict,
        "said": line[2:-1] if line.startswith(" (") else line.lstrip(",: "),
        "target_classes": result.targets,
        "mapping": result.mapping,
        "score": judgement.score,
        "bounds": {"suspicious": judgement.suspicious, "backdoored": judgement.backdoored},
        "as_high": vars(judgement.as_high),
        "exit_code": exit_code(result),
    }
