"""What each command was told: one frozen record a command, filled from the command line once.

A field's default is the command's, and stands here alone: the parser passes on what was typed and
nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from shapprune.method.settings import FALSE_ALARMS

# As `method.attribution` has it, which loads torch: the shell completes without.
Estimator: TypeAlias = Literal["multilinear", "algorithm1"]
Profile: TypeAlias = Literal["smoke", "cpu", "zoo", "paper", "dev", "test"]  # of bench


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every command can be told.

    Attributes:
        command: the line as it was typed.
    """

    command: str
    seed: int = 0
    device: str = "auto"
    debug: bool = False


@dataclass(frozen=True, kw_only=True)
class LoadingOptions(Options):
    """Of commands that load models, and images or recover some; None: as the source states.

    Attributes:
        per_class: None: 10 images a class of those given; of those recovered, as many as
            `recover_images` takes for enough.
    """

    arch: str | None = None
    num_classes: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    images: str | None = None
    per_class: int | None = None
    input_size: tuple[int, int, int] | None = None
    prior_only: bool = False


@dataclass(frozen=True, kw_only=True)
class ModelOptions(LoadingOptions):
    """Of commands that load one model."""

    weights: str | Path
    entry: str | None = None


@dataclass(frozen=True, kw_only=True)
class ScanOptions(ModelOptions):
    """``shapprune scan``."""

    false_alarms: float = FALSE_ALARMS
    sarif: Path | None = None
    out: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class ScanAllOptions(LoadingOptions):
    """``shapprune scan-all``.

    Attributes:
        models: a folder, or a list of models; the rest is as `ScanOptions` has it, of those of
            which the list says nothing else.
        ray: a cluster's address; its machines compute then.
    """

    models: Path
    out: Path
    false_alarms: float = FALSE_ALARMS
    jobs: int = 1
    ray: str | None = None
    retry_failed: bool = False


@dataclass(frozen=True, kw_only=True)
class RepairOptions(ModelOptions):
    """``shapprune repair``."""

    out: Path
    overwrite: bool = False
    false_alarms: float = FALSE_ALARMS
    sarif: Path | None = None
    force_target: tuple[int | Literal["y+1", "first"], ...] = ()
    unlearn: bool = True
    estimator: Estimator = "multilinear"
    pruned: int | None = None


@dataclass(frozen=True, kw_only=True)
class RecoverOptions(ModelOptions):
    """``shapprune recover``."""

    out: Path
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class InspectOptions(Options):
    """``shapprune inspect``."""

    weights: Path


@dataclass(frozen=True, kw_only=True)
class DemoOptions(Options):
    """``shapprune demo``."""

    out: Path = Path("shapprune-demo")


@dataclass(frozen=True, kw_only=True)
class PoisonOptions(Options):
    """``shapprune poison``.

    Attributes:
        attack_options: those of the attack that were typed, by their names in the attack's class.
    """

    attack: str
    data: str
    arch: str
    num_classes: int
    out: Path
    overwrite: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_size: tuple[int, int, int] | None = None
    target: int | tuple[int, ...] = 0
    all_to_all: bool = False
    source: int | None = None
    cover: float = 0.0
    rate: float = 0.1
    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 5e-3
    flip: bool = False
    attack_options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BenchOptions(Options):
    """``shapprune bench``.

    Attributes:
        what: an experiment, a study, list or report; the rest is told in `shapprune_bench.options`.
    """

    what: str
    results: Path | None = None
    profile: Profile = "smoke"
    data_root: Path | None = None
    out: Path | None = None
    cache: Path | None = None
    jobs: int = 1
    ray: str | None = None
    rows: tuple[str, ...] | None = None
    methods: tuple[str, ...] | None = None
    draws: int | None = None
    per_class: int = 1
    calibrate: Path | None = None
    by_verdict: bool = False
    retry_failed: bool = False
    dry_run: bool = False


Command: TypeAlias = (
    ScanOptions
    | ScanAllOptions
    | RepairOptions
    | RecoverOptions
    | InspectOptions
    | DemoOptions
    | PoisonOptions
    | BenchOptions
)


def channels(values: Sequence[float] | None) -> float | list[float] | None:
    """A number for all channels, or one a channel."""
    if values is None:
        return None
    return values[0] if len(values) == 1 else list(values)
