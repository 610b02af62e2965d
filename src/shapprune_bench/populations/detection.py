"""``shapprune bench detection``: scans known models; tells the error rates of the verdict."""

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from shapprune.cli.console import print_result
from shapprune.method.settings import RULES
from shapprune.running.runner import Result, commit
from shapprune.utils.files import check_file, write_whole
from shapprune_bench.options import Options
from shapprune_bench.populations.manifest import Specimen
from shapprune_bench.populations.outcomes import (
    calibrated,
    check_enough,
    cross_validated,
    shipped_outcomes,
)
from shapprune_bench.populations.pages import detection_pages
from shapprune_bench.populations.scans import Scan, measure
from shapprune_bench.populations.selection import chosen_models
from shapprune_bench.session import Study


def study(options: Options) -> Study[Scan]:
    """The scans of the manifest's models.

    Raises:
        InputError: see `chosen_models` and, of a calibration, `check_enough`.
    """
    chosen = chosen_models(options)
    if options.calibrate:
        check_file(options.calibrate, overwrite=True, beside=options.out)
        check_enough(chosen)
    tasks = [
        Scan(specimen, options.per_class, seed) for specimen in chosen for seed in options.seeds
    ]

    def pages(done: Sequence[tuple[Scan, Result]]) -> dict[str, bytes]:
        pairs = [(task.specimen, result) for task, result in done]
        there = {task for task, _ in done}
        lost = [task.specimen.name for task in tasks if task not in there]
        return evaluate(pairs, calibrate=options.calibrate, unscanned=lost)

    return Study("scans", tasks, measure, _outcome, pages, needs=lambda task: task.specimen.files)


def evaluate(
    done: Sequence[tuple[Specimen, Result]],
    *,
    calibrate: Path | None,
    unscanned: Sequence[str] = (),
) -> dict[str, bytes]:
    """The pages on scans; with ``calibrate``, by scores that were fitted to them.

    Args:
        unscanned: models with a scan that failed, one a scan.
    """
    known = [(specimen, result) for specimen, result in done if not specimen.attack_failed]
    failed = sorted({specimen.name for specimen, _ in done if specimen.attack_failed})
    if calibrate:
        outcomes, ablation = cross_validated(known)
        content = _calibration(known)
        write_whole(calibrate, (json.dumps(content, indent=1) + "\n").encode())
        print_result(f"calibration written to {calibrate}")
    else:
        outcomes, ablation = shipped_outcomes(known), ()
    return detection_pages(
        outcomes,
        ablation,
        failed=failed,
        unscanned=unscanned,
        cross_validated=bool(calibrate),
    )


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
    return f"{result['verdict']} {result['targets']} in {result['seconds']} s"
