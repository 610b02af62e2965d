"""``shapprune bench``: which cells to compute, on what, and what became of them."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path

from rich.table import Table

from shapprune.bench.cells import Cell
from shapprune.bench.experiments import EXPERIMENTS, Profile, distinct, models_of
from shapprune.bench.measure import measure
from shapprune.bench.on_ray import RayTasks
from shapprune.bench.plan import plan
from shapprune.bench.processes import Processes
from shapprune.bench.report import report
from shapprune.bench.runner import Result, read, run
from shapprune.cli.console import print_note, print_result, write_results
from shapprune.cli.inputs import pick_device
from shapprune.cli.options import BenchOptions
from shapprune.cli.parser import CLEAN, ERROR, INTERRUPTED
from shapprune.errors import InputError
from shapprune.utils.files import check_folder, write_folder

_ON_POPULATIONS = ("population", "detection", "repair")  # of models, by shapprune_bench


def bench(arguments: BenchOptions) -> int:
    """Run the command and return its exit code.

    Raises:
        InputError: what it cannot do, in one line.
    """
    if arguments.what in _ON_POPULATIONS:
        return _on_population(arguments)
    profile = arguments.profile
    if profile == "dev":
        raise InputError(f"{arguments.what} has no profile dev, got --profile {profile}")
    if arguments.what == "report":
        return _report(arguments.results or arguments.out, profile)
    if arguments.what == "list":
        return _list(arguments, profile)
    if arguments.what not in EXPERIMENTS:
        known = ", ".join([*EXPERIMENTS, *_ON_POPULATIONS, "list", "report"])
        raise InputError(f"bench knows {known}; got {arguments.what!r}")
    cells = list(EXPERIMENTS[arguments.what].cells(profile))
    if not cells:
        raise InputError(f"{arguments.what} has no rows in the profile {profile}")
    for names, asked, of in (
        ("rows", arguments.rows, attrgetter("recipe.name")),
        ("methods", arguments.methods, attrgetter("method")),
    ):
        there = [name for name in dict.fromkeys(map(of, cells)) if name]
        for name in asked or ():
            if name not in there:
                it_has = ", ".join(there) or "none"
                raise InputError(f"{arguments.what} has no {name!r} among its {names}: {it_has}")
        cells = [cell for cell in cells if not asked or of(cell) in asked]
    models = models_of(cells)
    cells = [cell for cell in cells if cell.kind != "model"]
    return compute(arguments, (models, cells))  # a model is trained once, before what needs it


def _on_population(arguments: BenchOptions) -> int:
    # These use us, and not we them.
    if arguments.what == "population":
        if arguments.profile != "dev":
            raise InputError(
                f"population has the profile dev alone, got --profile {arguments.profile}"
            )
        from shapprune_bench.population import train_population

        return train_population(arguments)
    if arguments.what == "detection":
        from shapprune_bench.detection import measure_detection

        return measure_detection(arguments)
    from shapprune_bench.repairs import measure_repair

    return measure_repair(arguments)


def compute(
    arguments: BenchOptions,
    stages: Sequence[Sequence[Cell]],
    *,
    ended: Callable[[], None] | None = None,
) -> int:
    """Compute cells, one stage after another, and return the command's exit code.

    Args:
        arguments: the command's: where the data, the cache and the results are, and who computes.
        stages: cells that need the models of an earlier stage come after it.
        ended: called after each cell, and when all are done.

    Raises:
        InputError: see `run`, or a device or a cluster that cannot be used.
    """
    out, every = arguments.folder, [cell for some in stages for cell in some]
    check_folder(out, overwrite=True)
    jobs = 1 if arguments.what == "time" else arguments.jobs
    cache, retry_failed = cache_of(arguments), arguments.retry_failed
    planned = plan(every, folder=out, cache=cache, retry_failed=retry_failed)
    print_result("\n".join(planned.lines(jobs)))
    if arguments.dry_run:
        return CLEAN
    write_folder(out, {}, stale=(".*.tmp",))  # what a killed run left behind
    device = pick_device(arguments.device)
    root = arguments.data_root.absolute()
    work = partial(measure, root=root, cache=cache, device=device)

    def on_change(cell: Cell, result: Result | None) -> None:
        print_note(f"{cell.name}: {_outcome(result) if result else '…'}")
        if result and ended:
            ended()

    try:
        for some in stages:
            executor = (
                RayTasks(work, arguments.ray, gpus=int(device.type == "cuda"))
                if arguments.ray
                else Processes(work, jobs)
            )
            run(some, out, executor=executor, on_change=on_change, retry_failed=retry_failed)
    except KeyboardInterrupt:
        print_note("interrupted; finished cells are kept, and the same command goes on")
        return INTERRUPTED
    if ended:
        ended()
    results = [(cell, read(out, cell)) for cell in every]
    done = [(cell, result) for cell, result in results if result and result["state"] == "done"]
    print_result(f"{len(done)} cells done, {len(results) - len(done)} failed; in {out}")
    met = {(cell.recipe.name, result.get("weights")) for cell, result in done}
    rows = sorted(row for row, several in Counter(row for row, _ in met).items() if several > 1)
    if rows:
        print_note(
            f"{', '.join(rows)}: results of several weights; a recipe makes others elsewhere"
        )
    return CLEAN if len(done) == len(results) else ERROR


def cache_of(arguments: BenchOptions) -> Path:
    """The folder of trained models."""
    return Path(arguments.cache or (arguments.out or Path()) / "models").absolute()


def _outcome(result: Result) -> str:
    if result["state"] == "failed":
        return f"failed: {result['error']}"
    seconds = result.get("wall_seconds")
    return f"done in {seconds:.0f} s" if isinstance(seconds, float) else "done"


def _list(arguments: BenchOptions, profile: Profile) -> int:
    table = Table("", "cells", "done", "minutes", "what", title=f"profile {profile}")
    missing: set[str] = set()
    for name, experiment in EXPERIMENTS.items():
        cells = list(experiment.cells(profile))
        cells = distinct([*models_of(cells), *cells])
        planned = plan(cells, folder=arguments.out, cache=cache_of(arguments))
        minutes = "?" if planned.unknown else f"{planned.seconds / 60:.0f}"
        done = str(planned.cells - planned.left)
        table.add_row(name, str(planned.cells), done, minutes, experiment.title)
        missing |= {
            c.recipe.data
            for c in cells
            if ":" not in c.recipe.data and not (arguments.data_root / c.recipe.data).exists()
        }
    print_result(table)
    if missing:
        print_result(f"missing in {arguments.data_root}: {', '.join(sorted(missing))}")
    return CLEAN


def _report(results: Path | None, profile: Profile) -> int:
    if results is None or not results.is_dir():
        raise InputError(f"report needs a folder of results, got {results}")
    write_results(results, report(results, profile))
    return CLEAN
