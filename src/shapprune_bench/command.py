"""``shapprune bench``: finds what is asked for and runs it."""

from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from operator import attrgetter
from typing import Any, cast, get_args

from rich.table import Table

from shapprune.cli.console import print_note, print_result, write_results
from shapprune.cli.options import BenchOptions
from shapprune.errors import InputError
from shapprune.reporting.exits import CLEAN, INTERRUPTED
from shapprune.utils.files import similar_file
from shapprune.utils.text import suggest
from shapprune_bench.options import Options
from shapprune_bench.session import Study, carry_out
from shapprune_bench.tables.computing import compute
from shapprune_bench.tables.experiments import EXPERIMENTS, Profile, distinct, models_of
from shapprune_bench.tables.plan import plan
from shapprune_bench.tables.report import report

# Modules with a function ``study``, imported when asked for: some need packages of their own.
STUDIES: Mapping[str, str] = {
    "detection": "shapprune_bench.populations.detection",
    "repair": "shapprune_bench.populations.repairs",
    "clean-repair": "shapprune_bench.studies.clean_repair",
    "repair-rules": "shapprune_bench.studies.repair_rules",
    "rival-detectors": "shapprune_bench.studies.rivals",
    "robustness": "shapprune_bench.studies.robustness",
    "detection-cost": "shapprune_bench.studies.detection_cost",
    "growth": "shapprune_bench.studies.growth",
    "architectures": "shapprune_bench.studies.architectures",
}
_POPULATION, _POPULATIONS = "population", ("dev", "test")  # the profiles are its alone
_DRAWN = ("detection", "repair", "clean-repair", "repair-rules", "rival-detectors", "robustness")
# What takes an option that not all do; a silent one would be taken for followed.
_TAKEN: Mapping[str, tuple[str, ...]] = {
    "rows": (*EXPERIMENTS, *STUDIES, _POPULATION),
    "methods": (*EXPERIMENTS, "rival-detectors", "robustness"),
    "draws": (*EXPERIMENTS, *_DRAWN),
    "per_class": ("detection", "repair"),
    "calibrate": ("detection",),
    "by_verdict": ("repair",),
    "seed": (),
}
_KNOWN = (*EXPERIMENTS, _POPULATION, *STUDIES, "list", "report")
_DEFAULTS = {field.name: field.default for field in fields(BenchOptions)}


def bench(typed: BenchOptions) -> int:
    """Run the command and return its exit code.

    Args:
        typed: the parsed command line.

    Raises:
        InputError: what it cannot do, in one line.
    """
    options = Options.of(typed)
    try:
        return _run(options)
    except KeyboardInterrupt:
        print_note("interrupted; what is finished is kept, and the same command goes on")
        return INTERRUPTED


def _run(options: Options) -> int:
    what = options.what
    for name, takers in _TAKEN.items():
        if what in _KNOWN and what not in takers and getattr(options, name) != _DEFAULTS[name]:
            raise InputError(f"{what} takes no --{name.replace('_', '-')}: leave it out")
    if what in STUDIES:
        return carry_out(_study(options), options)
    if (options.profile in _POPULATIONS) != (what == _POPULATION):
        theirs = " and ".join(_POPULATIONS)
        has = f"the profiles {theirs} alone" if what == _POPULATION else f"no profiles {theirs}"
        raise InputError(f"{what} has {has}, got --profile {options.profile}")
    if what == "report":
        return _report(options)
    if what == "list":
        return _list(options)
    if what == _POPULATION:
        from shapprune_bench.populations.training import train_population  # its recipes are many

        return train_population(options)
    if what not in EXPERIMENTS:
        meant = suggest(what, _KNOWN) or f": it knows {', '.join(_KNOWN)}"
        raise InputError(f"bench does not know {what!r}{meant}")
    return _experiment(options)


def _study(options: Options) -> Study[Any]:
    try:
        module = import_module(STUDIES[options.what])
    except ImportError as error:
        needs = f"{options.what} needs {error.name}: pip install 'shapprune[bench]'"
        raise InputError(needs) from error
    study: Study[Any] = module.study(options)
    return study


def _experiment(options: Options) -> int:
    """Compute the cells of a table or figure, or those that were chosen of it."""
    what, profile = options.what, _profile(options)
    cells = list(EXPERIMENTS[what].cells(profile))
    if not cells:
        raise InputError(f"{what} has no rows in the profile {profile}")
    for names, asked, of in (
        ("rows", options.rows, attrgetter("recipe.name")),
        ("methods", options.methods, attrgetter("method")),
    ):
        there = [name for name in dict.fromkeys(map(of, cells)) if name]
        for name in asked or ():
            if name not in there:
                it_has = suggest(name, there) or f": {', '.join(there) or 'none'}"
                raise InputError(f"{what} has no {name!r} among its {names}{it_has}")
        cells = [cell for cell in cells if not asked or of(cell) in asked]
    cells = [cell for cell in cells if options.draws is None or cell.seed < options.draws]
    models = models_of(cells)
    cells = [cell for cell in cells if cell.kind != "model"]
    return compute(options, (models, cells))  # a model is trained once, before what needs it


def _list(options: Options) -> int:
    table = Table("", "cells", "done", "minutes", "what", title=f"profile {options.profile}")
    missing: set[str] = set()
    for name, experiment in EXPERIMENTS.items():
        cells = list(experiment.cells(_profile(options)))
        cells = distinct([*models_of(cells), *cells])
        planned = plan(cells, folder=options.out, cache=options.models)
        minutes = "?" if planned.unknown else f"{planned.seconds / 60:.0f}"
        done = str(planned.cells - planned.left)
        table.add_row(name, str(planned.cells), done, minutes, experiment.title)
        named = {name for c in cells for name in c.recipe.files}
        missing |= {name for name in named if not (options.root / name).exists()}
    print_result(table)
    print_result(f"beside these: {', '.join([_POPULATION, *STUDIES])}")
    if missing:
        print_result(f"missing in {options.root}: {', '.join(sorted(missing))}")
    return CLEAN


def _report(options: Options) -> int:
    results = options.results or options.out
    if results is None or not results.is_dir():  # without RESULTS, --out is where they are
        meant = similar_file(results) if results else ""
        raise InputError(f"report needs a folder of results, got {results}{meant}")
    write_results(options.out or results, report(results, _profile(options)))
    return CLEAN


def _profile(options: Options) -> Profile:
    assert options.profile in get_args(Profile)  # the parser has no others but those
    return cast(Profile, options.profile)
