import signal
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch

# Started in the background, a shell's children ignore Ctrl-C, and so would those of the tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What takes seconds a test: whole runs, other processes, training. `make test-fast` leaves it out.
SLOW = [
    "baselines",
    "cli/test_console.py",
    "cli/test_main.py",
    "cli/test_scan_all.py",
    "invariants/test_battery.py",
    "invariants/test_fuzz.py",
    "invariants/test_golden.py",
    "invariants/test_half.py",
    "invariants/test_hostile.py",
    "invariants/test_start.py",
    "shapprune_bench",
    "test_examples.py",
    "test_pipeline.py",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all-extras", action="store_true", help="a missing optional package fails its tests"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--all-extras"):
        pytest.importorskip = _import


def _import(name: str, **_: object) -> ModuleType:
    return import_module(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        place = item.path.relative_to(here).as_posix() if item.path.is_relative_to(here) else ""
        if any(place == slow or place.startswith(f"{slow}/") for slow in SLOW):
            item.add_marker(pytest.mark.slow)
        if place == "invariants/test_hostile.py":  # its files are read once, by one worker
            item.add_marker(pytest.mark.xdist_group("hostile"))


@pytest.fixture(autouse=True)
def _same_weights_every_time() -> None:
    """Networks that a test builds draw from the global generator."""
    torch.manual_seed(0)
