"""``shapprune scan-all``: many models, each once, and one page of them all."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from shapprune.checkpoints.inspection import MALICIOUS
from shapprune.cli.console import print_note, print_result
from shapprune.cli.inputs import pick_device
from shapprune.cli.listing import entries
from shapprune.cli.options import ScanAllOptions
from shapprune.cli.results import check_apart, to_json, would_be_lost
from shapprune.cli.scan import check_prior, check_rate
from shapprune.cli.scan_task import ScanTask, scan_one, task_of
from shapprune.errors import InputError
from shapprune.method.settings import RULES
from shapprune.reporting.exits import INTERRUPTED, exit_code_of_all
from shapprune.reporting.overview import Line, render_overview, tally, worst_first
from shapprune.reporting.summary import versions
from shapprune.running.on_ray import RayTasks
from shapprune.running.processes import Processes
from shapprune.running.runner import Result, Task, is_left, read, run
from shapprune.utils.files import check_folder, write_folder
from shapprune.utils.text import printable

INDEX_VERSION = "1.0"  # of index.schema.json: the first number changes where readers must


def scan_all(options: ScanAllOptions) -> int:
    """Scan what has no result yet, write the page, and return the command's exit code.

    Raises:
        InputError: the models, the folder or the cluster cannot be used, in one line.
    """
    check_prior(options)
    tasks = [task_of(entry, options) for entry in entries(options)]
    for one in {(t.options.images, t.options.prior_only): t for t in tasks}.values():
        check_rate(one.options)
        check_apart(options.out, one.options.images, "--out")
    out = options.out
    _check_list(tasks, options)
    check_folder(out, overwrite=True)
    if not options.ray:
        pick_device(options.device)
    left = sum(is_left(read(out, task), retry_failed=options.retry_failed) for task in tasks)
    print_result(f"plan: {len(tasks)} models, {len(tasks) - left} done, {left} to do")
    write_folder(out, {}, stale=(".*.tmp",))
    write_folder(out / "models", {}, stale=())
    try:
        _complete(tasks, options)
        lines = _write_index(tasks, options)
    except KeyboardInterrupt:
        _write_index(tasks, options)
        print_note("interrupted; what is finished is kept, and the same command goes on")
        return INTERRUPTED
    print_result(f"{tally(lines)}; worst first in {out / 'index.html'}")
    failed = sum(line.state == "failed" for line in lines)
    if failed:
        print_note(f"note: {failed} failed: --retry-failed scans them again")
    return exit_code_of_all(line.state for line in lines)


def _check_list(tasks: Sequence[ScanTask], options: ScanAllOptions) -> None:
    """Before long work: whether the run would write over the list that it was given."""
    written = {"index.json", *(f"{task.name}.json" for task in tasks)}
    if would_be_lost(options.models, written, options.out):
        raise InputError(f"{options.models} would be replaced by the run: name another --out")


def _complete(tasks: Sequence[ScanTask], options: ScanAllOptions) -> None:
    work = partial(scan_one, out=options.out.absolute())
    executor = (
        RayTasks(work, options.ray, gpus=int(options.device.startswith("cuda")))
        if options.ray
        else Processes(work, options.jobs)
    )

    def on_change(task: Task, result: Result | None) -> None:
        assert isinstance(task, ScanTask)
        if result:
            _write_index(tasks, options)
        line = _line(task, result)
        said = f"{line.state}: {line.said}" if line.state else "…"
        print_note(f"{printable(line.name)}: {said}")

    run(
        tasks,
        options.out,
        executor=executor,
        on_change=on_change,
        retry_failed=options.retry_failed,
    )


def _write_index(tasks: Sequence[ScanTask], options: ScanAllOptions) -> list[Line]:
    """Write index.html and index.json of all results that are there, and return the lines."""
    results = {task.model.name: (task, read(options.out, task)) for task in tasks}
    lines = worst_first([_line(task, result) for task, result in results.values()])
    index = {
        "$schema": f"urn:shapprune:index:{INDEX_VERSION}",
        "schema_version": INDEX_VERSION,
        "command": options.command,
        "rules": RULES,
        "exit_code": exit_code_of_all(line.state for line in lines),
        "complete": all(line.state for line in lines),
        "versions": versions(),
        "models": [_facts(line, *results[line.name]) for line in lines],
    }
    about = [("command", options.command), ("rules", RULES), ("shapprune", versions()["shapprune"])]
    page = render_overview(lines, about=about)
    files = {"index.json": to_json(index), "index.html": page.encode()}
    write_folder(options.out, files, stale=())
    return lines


def _line(task: ScanTask, result: Result | None) -> Line:
    name, found = task.model.name, dict[str, Any](result or {})
    if not found:
        return Line(name)
    if found["state"] == "failed":
        error = _error(found)
        return Line(name, "failed", error, malicious=MALICIOUS in error)
    return Line(
        name,
        found["verdict"],
        found["said"],
        excess=found["score"] - found["bounds"]["suspicious"],
        accuracy=found["accuracy"],
        images=found["images"],
        seconds=found["seconds"],
        notes=tuple(found["notes"]),
        report=(task.report / "report.html").as_posix(),
    )


def _facts(line: Line, task: ScanTask, result: Result | None) -> dict[str, object]:
    """A model in index.json."""
    facts: dict[str, object] = {
        "name": line.name,
        "weights": str(task.options.weights),
        "state": line.state,
    }
    if result and line.state == "failed":
        return facts | {"error": line.said}
    if result:
        told = {k: result[k] for k in _TOLD}
        return facts | told | {"report": line.report, "ended": result["ended"]}
    return facts


_TOLD = (
    *("target_classes", "mapping", "score", "bounds", "as_high", "accuracy", "images", "files"),
    *("notes", "seconds"),
)


def _error(found: Result) -> str:
    """Without the name that errors of the user's have, too."""
    return str(found["error"]).removeprefix("InputError: ")
