"""Cells from the plan to the last result: models first, then what is measured on them."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from shapprune.cli.console import print_note, print_result
from shapprune.cli.inputs import pick_device
from shapprune.errors import InputError
from shapprune.reporting.exits import CLEAN, ERROR
from shapprune.running.runner import Result, is_left, read
from shapprune.utils.files import check_folder
from shapprune_bench.options import Options
from shapprune_bench.session import complete, ended_words, make_folder
from shapprune_bench.tables.cells import Cell
from shapprune_bench.tables.measure import measure
from shapprune_bench.tables.plan import plan


def compute(
    options: Options,
    stages: Sequence[Sequence[Cell]],
    *,
    ended: Callable[[], None] | None = None,
) -> int:
    """Compute cells, one stage after another, and return the command's exit code.

    Args:
        options: where the data, the models and the results are, and who computes.
        stages: cells that need the models of an earlier stage come after it.
        ended: called after each cell, and when all are done.

    Raises:
        InputError: see `run`, or a device or a cluster that cannot be used.
    """
    out, every = options.folder, [cell for some in stages for cell in some]
    check_folder(out, overwrite=True)
    jobs = 1 if options.what == "time" else options.jobs
    planned = plan(every, folder=out, cache=options.models, retry_failed=options.retry_failed)
    print_result("\n".join(planned.lines(jobs)))
    if missing := _missing(every, options):
        words = f"missing in {options.root}, see --data-root: {missing}"
        if not options.dry_run:
            raise InputError(words)
        print_note(words)
    if options.dry_run:
        return CLEAN
    make_folder(out)
    device = pick_device(options.device)
    root = options.root.absolute()
    work = partial(measure, root=root, cache=options.models, device=device)
    gpus = int(device.type == "cuda")
    for some in stages:
        complete(some, work, options, outcome=_outcome, jobs=jobs, gpus=gpus, ended=ended)
    if ended:
        ended()
    results = [(cell, read(out, cell)) for cell in every]
    done = [(cell, result) for cell, result in results if result and result["state"] == "done"]
    lost = len(results) - len(done)
    print_result(ended_words("cells", done=len(done), failed=lost, out=out))
    met = {(cell.recipe.name, result.get("weights")) for cell, result in done}
    rows = sorted(row for row, several in Counter(row for row, _ in met).items() if several > 1)
    if rows:
        print_note(
            f"{', '.join(rows)}: results of several weights; a recipe makes others elsewhere"
        )
    return CLEAN if len(done) == len(results) else ERROR


def _missing(cells: Sequence[Cell], options: Options) -> str:
    """What is not there of the data that cells without a result need; each would fail alone."""
    root, out = options.root, options.folder
    left = [c for c in cells if is_left(read(out, c), retry_failed=options.retry_failed)]
    names = dict.fromkeys(name for cell in left for name in cell.recipe.files)
    return ", ".join(name for name in names if not (root / name).exists())


def _outcome(result: Result) -> str:
    seconds = result.get("wall_seconds")
    return f"done in {seconds:.0f} s" if isinstance(seconds, float) else "done"
