"""From the command line to the options of a command."""

import argparse
import shlex
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, NoReturn

from shapprune.cli import arguments
from shapprune.cli.inputs import channels
from shapprune.cli.options import (
    BenchOptions,
    Command,
    DemoOptions,
    InspectOptions,
    PoisonOptions,
    RecoverOptions,
    RepairOptions,
    ScanAllOptions,
    ScanOptions,
)
from shapprune.reporting.exits import ERROR


class _Parser(argparse.ArgumentParser):
    """Keeps what was typed and nothing else: what was not is a default of `options`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(argument_default=argparse.SUPPRESS, **settings)

    def error(self, message: str) -> NoReturn:
        """One line instead of the usage."""
        self.exit(ERROR, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def parse(typed: Sequence[str]) -> Command:
    """The options of the command that was typed; exits with a line where it is none."""
    whole = _Parser(
        prog="shapprune",
        description="Tells whether an image classifier carries a backdoor, and takes it out.",
        epilog="Exit codes: 0 clean or done, 1 backdoored, 2 error, 3 suspicious (of repair, 1 "
        "and 3 where the model was left as it was).",
    )
    whole.add_argument("--version", action="version", version=f"shapprune {version('shapprune')}")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    for name, (text, add_options, record) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(record=record)
        command.add_argument("--seed", type=int, help="of all random draws (0)")
        command.add_argument("--device", help="cpu, cuda or auto (auto)")
        command.add_argument("--debug", action="store_true", help="show where an error came from")
        add_options(command)
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(whole.parse_args(typed)).items()
    }
    record = values.pop("record")
    if record is PoisonOptions:
        values["attack_options"] = _attack_options(values)
    return record(command=shlex.join(["shapprune", *typed]), **values)


def _attack_options(values: dict[str, Any]) -> dict[str, object]:
    """Those that were typed, taken out of all values."""
    options = {name: values.pop(name) for name in arguments.ATTACK_OPTIONS if name in values}
    if "colour" in options:
        options["colour"] = channels(options["colour"])
    if values.pop("random_colour", False):
        options["colour"] = None
    return options


_COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], type[Command]]] = {
    "scan": ("Tell whether a classifier carries a backdoor.", arguments.add_scan, ScanOptions),
    "scan-all": (
        "Scan all models of a folder or a list; the same command goes on where it was stopped.",
        arguments.add_scan_all,
        ScanAllOptions,
    ),
    "repair": (
        "Scan a classifier and take out the backdoor that is found or suspected.",
        arguments.add_repair,
        RepairOptions,
    ),
    "recover": (
        "Recover images that a classifier was trained on from its weights.",
        arguments.add_recover,
        RecoverOptions,
    ),
    "inspect": (
        "List what a weights file or folder holds, without running anything.",
        arguments.add_inspect,
        InspectOptions,
    ),
    "demo": (
        "Scan and repair a small backdoored reader of digits.",
        arguments.add_demo,
        DemoOptions,
    ),
    "poison": (
        "Make a backdoored model, or a clean twin, for research.",
        arguments.add_poison,
        PoisonOptions,
    ),
    "bench": (
        "Make the paper's tables and figures, or pages from what was measured.",
        arguments.add_bench,
        BenchOptions,
    ),
}
