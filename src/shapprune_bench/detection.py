"""``shapprune bench detection``: scans known models; tells the error rates of the verdict."""

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from shapprune.bench.on_ray import RayTasks
from shapprune.bench.processes import Processes
from shapprune.bench.runner import Result, commit, read, run
from shapprune.cli.console import print_note, print_result, write_results
from shapprune.cli.options import BenchOptions
from shapprune.cli.parser import CLEAN, ERROR, INTERRUPTED
from shapprune.errors import InputError
from shapprune.method.settings import RULES
from shapprune.utils.files import check_folder, write_folder, write_whole
from shapprune_bench.manifest import Specimen, read_manifest
from shapprune_bench.outcomes import calibrated, cross_validated, shipped_outcomes
from shapprune_bench.pages import detection_pages
from shapprune_bench.scans import Scan, measure


def measure_detection(arguments: BenchOptions) -> int:
    """Run the command and return its exit code.

    Raises:
        InputError: what it cannot do, in one line.
    """
    if arguments.results is None:
        raise InputError("detection needs a manifest or a folder of models after its name")
    root = arguments.data_root if arguments.data_root != Path(".") else None
    specimens = read_manifest(arguments.results, data_root=root and root.absolute())
    names = [specimen.name for specimen in specimens]
    for name in arguments.rows or ():
        if name not in names:
            raise InputError(f"{arguments.results} has no model {name!r}")
    tasks = [
        Scan(specimen, arguments.per_class, seed)
        for specimen in specimens
        for seed in range(arguments.draws)
        if not arguments.rows or specimen.name in arguments.rows
    ]
    out = arguments.folder
    check_folder(out, overwrite=True)
    left = [task for task in tasks if read(out, task) is None]
    print_result(f"plan: {len(tasks)} scans, {len(tasks) - len(left)} done, {len(left)} to do")
    if arguments.dry_run:
        return CLEAN
    write_folder(out, {}, stale=(".*.tmp",))  # what a killed run left behind

    def on_change(task: Scan, result: Result | None) -> None:
        print_note(f"{task.name}: {_outcome(result) if result else '…'}")

    executor = (
        RayTasks(measure, arguments.ray) if arguments.ray else Processes(measure, arguments.jobs)
    )
    try:
        run(tasks, out, executor=executor, on_change=on_change, retry_failed=arguments.retry_failed)
    except KeyboardInterrupt:
        print_note("interrupted; finished scans are kept, and the same command goes on")
        return INTERRUPTED
    results = [(task, read(out, task)) for task in tasks]
    done = [(task.specimen, r) for task, r in results if r and r["state"] == "done"]
    print_result(f"{len(done)} scans done, {len(results) - len(done)} failed; in {out}")
    write_results(out, evaluate(done, calibrate=arguments.calibrate))
    return CLEAN if len(done) == len(results) else ERROR


def evaluate(
    done: Sequence[tuple[Specimen, Result]], *, calibrate: Path | None
) -> dict[str, bytes]:
    """The pages on scans; with ``calibrate``, by scores that were fitted to them."""
    known = [(specimen, result) for specimen, result in done if not specimen.attack_failed]
    failed = sorted({specimen.name for specimen, _ in done if specimen.attack_failed})
    if calibrate:
        outcomes, ablation = cross_validated(known)
        content = _calibration(known)
        write_whole(calibrate, (json.dumps(content, indent=1) + "\n").encode())
        print_result(f"calibration written to {calibrate}")
    else:
        outcomes, ablation = shipped_outcomes(known), ()
    return detection_pages(outcomes, ablation, failed=failed, cross_validated=bool(calibrate))


def _calibration(known: Sequence[tuple[Specimen, Result]]) -> dict[str, Any]:
    clean = sum(not specimen.backdoored for specimen, _ in known)
    return {
        "rules": RULES,
        "provenance": {
            "population": "development population (profile dev): shapprune bench population",
            "clean": clean,
            "poisoned": len(known) - clean,
            "groups": len({specimen.group for specimen, _ in known}),
            "method": "leave one group of siblings out; bounds are quantiles of clean scores",
            "commit": commit(),
            "date": datetime.now(timezone.utc).date().isoformat(),
        },
        "bases": calibrated(known),
    }


def _outcome(result: Result) -> str:
    if result["state"] == "failed":
        return f"failed: {result['error']}"
    return f"{result['verdict']} {result['targets']} in {result['seconds']} s"
