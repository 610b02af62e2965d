"""One scan, as `scan` and `scan-all` share it."""

from shapprune import pipeline
from shapprune.cli.console import progress_shown
from shapprune.cli.inputs import Inputs, load
from shapprune.cli.options import RepairOptions, ScanAllOptions, ScanOptions
from shapprune.errors import InputError
from shapprune.method import detection
from shapprune.method.detection import Basis
from shapprune.pipeline import ScanResult


def check_prior(options: ScanOptions | ScanAllOptions | RepairOptions) -> None:
    """Refuse --prior-only with --images, which it is to do without."""
    if options.images and options.prior_only:
        raise InputError("--prior-only is for a scan without images: leave it or --images out")


def check_rate(options: ScanOptions | ScanAllOptions | RepairOptions) -> None:
    """Before long work: whether the bounds hold the rate of false alarms that is asked for.

    Raises:
        InputError: they do not.
    """
    bases: list[Basis] = ["images"] if options.images else ["recovered"]
    if options.prior_only and not options.images:
        bases.append("margins")
    for basis in bases:
        detection.shipped(basis).bound(options.false_alarms)


def examine(options: ScanOptions) -> tuple[ScanResult, Inputs]:
    """Load a model and scan it.

    Raises:
        InputError: whatever does not fit, in one line.
    """
    inputs = load(options)
    with progress_shown() as progress:
        result = pipeline.scan(
            inputs.model,
            inputs.data.images,
            inputs.data.labels,
            recovered=inputs.recovered,
            false_alarms=options.false_alarms,
            seed=options.seed,
            progress=progress,
        )
    return result, inputs
