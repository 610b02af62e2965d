"""From what was typed to a frozen record of the command's own."""

import os
import shlex
import subprocess
import sys
from dataclasses import FrozenInstanceError, asdict, fields
from pathlib import Path
from typing import get_args

import pytest

from shapprune import attacks
from shapprune.cli import options as options_module
from shapprune.cli.arguments import ATTACKS
from shapprune.cli.options import (
    BenchOptions,
    DemoOptions,
    InspectOptions,
    PoisonOptions,
    RecoverOptions,
    RepairOptions,
    ScanAllOptions,
    ScanOptions,
)
from shapprune.cli.parser import EXAMPLES, parse
from shapprune.method import attribution
from shapprune.reporting.exits import ERROR

# The least that each command must be told, and what its record then holds beside the defaults.
LEAST = {
    "scan net.pt": ScanOptions(command="", weights="net.pt"),
    "scan-all m --out o": ScanAllOptions(command="", models=Path("m"), out=Path("o")),
    "repair net.pt --out o": RepairOptions(command="", weights="net.pt", out=Path("o")),
    "recover net.pt --out o": RecoverOptions(command="", weights="net.pt", out=Path("o")),
    "inspect net.pt": InspectOptions(command="", weights=Path("net.pt")),
    "demo": DemoOptions(command=""),
    "poison --attack sig --data d --arch a:b --num-classes 3 --out o": PoisonOptions(
        command="", attack="sig", data="d", arch="a:b", num_classes=3, out=Path("o")
    ),
    "bench list": BenchOptions(command="", what="list"),
}
COMMON = "--seed 3 --device cpu --debug"
NETWORK = "--arch a:b --num-classes 3 --mean 0.1 0.2 0.3 --std 1"
MODEL = f"net.pt {COMMON} {NETWORK} --per-class 2 --input-size 3 8 9 --prior-only --entry e"
OF_COMMON = {"seed": 3, "device": "cpu", "debug": True}
OF_NETWORK = {"arch": "a:b", "num_classes": 3, "mean": (0.1, 0.2, 0.3), "std": (1.0,)}
OF_MODEL = {
    **OF_COMMON,
    **OF_NETWORK,
    "weights": "net.pt",
    "per_class": 2,
    "input_size": (3, 8, 9),
    "prior_only": True,
    "entry": "e",
}
OF_OUT = {"out": Path("o"), "overwrite": True}
# Every option at once.
MOST = {
    f"scan {MODEL} --images i --false-alarms 0.1 --sarif s --out o --overwrite": {
        **OF_MODEL,
        **OF_OUT,
        "images": "i",
        "false_alarms": 0.1,
        "sarif": Path("s"),
    },
    f"scan-all m {COMMON} {NETWORK} --per-class 2 --input-size 3 8 9 --prior-only --images i "
    "--false-alarms 0.1 --out o --jobs 2 --ray local --retry-failed": {
        **OF_COMMON,
        **OF_NETWORK,
        "models": Path("m"),
        "out": Path("o"),
        "per_class": 2,
        "input_size": (3, 8, 9),
        "prior_only": True,
        "images": "i",
        "false_alarms": 0.1,
        "jobs": 2,
        "ray": "local",
        "retry_failed": True,
    },
    f"repair {MODEL} --images i --false-alarms 0.1 --sarif s --out o --overwrite --force-target 2 "
    "--force-target y+1 --force-target first --no-unlearn --estimator algorithm1 --prune 4": {
        **OF_MODEL,
        **OF_OUT,
        "images": "i",
        "false_alarms": 0.1,
        "sarif": Path("s"),
        "force_target": (2, "y+1", "first"),
        "unlearn": False,
        "estimator": "algorithm1",
        "pruned": 4,
    },
    f"recover {MODEL} --out o --overwrite": {**OF_MODEL, **OF_OUT, "images": None},
    f"inspect net.pt {COMMON}": {**OF_COMMON, "weights": Path("net.pt")},
    f"demo {COMMON} --out o": {**OF_COMMON, "out": Path("o")},
    f"poison {COMMON} {NETWORK} --attack badnets --data d --out o --overwrite --input-size 3 8 9 "
    "--target 1 2 --all-to-all --source 0 --cover 1 --rate 0.2 --epochs 2 --batch-size 4 "
    "--learning-rate 0.1 --flip --trigger-size 0.5 --pattern plain --neurons 2 --colour 1 0 0 "
    "--random-place": {
        **OF_COMMON,
        **OF_NETWORK,
        **OF_OUT,
        "attack": "badnets",
        "data": "d",
        "input_size": (3, 8, 9),
        "target": (1, 2),
        "all_to_all": True,
        "source": 0,
        "cover": 1.0,
        "rate": 0.2,
        "epochs": 2,
        "batch_size": 4,
        "learning_rate": 0.1,
        "flip": True,
        "attack_options": {
            "size": 0.5,
            "pattern": "plain",
            "neurons": 2,
            "colour": [1.0, 0.0, 0.0],
            "random_place": True,
        },
    },
    f"bench table1 r {COMMON} --profile cpu --data-root d --out o --cache c --jobs 2 --ray local "
    "--rows a b --methods m --draws 3 --per-class 0 --calibrate f --by-verdict --retry-failed "
    "--dry-run": {
        **OF_COMMON,
        "what": "table1",
        "results": Path("r"),
        "profile": "cpu",
        "data_root": Path("d"),
        "out": Path("o"),
        "cache": Path("c"),
        "jobs": 2,
        "ray": "local",
        "rows": ("a", "b"),
        "methods": ("m",),
        "draws": 3,
        "per_class": 0,
        "calibrate": Path("f"),
        "by_verdict": True,
        "retry_failed": True,
        "dry_run": True,
    },
}


@pytest.mark.parametrize("line", LEAST)
def test_what_was_not_typed_is_the_records_default(line):
    options = parse(shlex.split(line))
    assert options.command == f"shapprune {line}"
    expected = LEAST[line]
    assert type(options) is type(expected)
    assert {**asdict(options), "command": ""} == asdict(expected)


@pytest.mark.parametrize("line", MOST)
def test_every_option_reaches_its_field(line):
    options = parse(shlex.split(line))
    found = asdict(options)
    assert found.pop("command") == f"shapprune {line}"
    assert found == MOST[line]
    defaults = {field.name: field.default for field in fields(options)}
    left = [name for name, value in found.items() if value == defaults[name]]
    assert left == (["images"] if options.command.split()[1] == "recover" else [])


def test_one_number_is_for_all_channels_and_a_random_colour_has_none():
    poison = "poison --attack badnets --data d --arch a:b --num-classes 3 --out o"
    one = parse(shlex.split(f"{poison} --colour 0.5"))
    none = parse(shlex.split(f"{poison} --random-colour"))
    assert isinstance(one, PoisonOptions)
    assert isinstance(none, PoisonOptions)
    assert one.attack_options == {"colour": 0.5}
    assert none.attack_options == {"colour": None}


def test_nothing_writes_into_options():
    options = parse(["scan", "net.pt"])
    with pytest.raises(FrozenInstanceError):
        options.seed = 1  # type: ignore[misc]


def refused(line: str, capsys) -> str:
    with pytest.raises(SystemExit) as ended:
        parse(shlex.split(line))
    assert ended.value.code == ERROR
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("scn net.pt", "shapprune: error: there is no command 'scn': did you mean 'scan'?"),
        ("x", "there is no command 'x': expected one of scan, scan-all, repair,"),
        ("scan net.pt --imgaes d", "shapprune scan: error: there is no option '--imgaes': did you "
                                   "mean '--images'?"),
        ("repair net.pt --Out=x", "there is no option '--Out': did you mean '--out'"),
        ("scan net.pt --quite-another", "there is no option '--quite-another' (see shapprune scan"),
        ("bench table1 --profile smok", "invalid choice: 'smok'"),
        ("repair net.pt", "the following arguments are required: --out"),
        ("repair net.pt --out o --force-target \u0663", "a class from 0, first or y+1, got"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_told_with_what_is_like_it(line, says, capsys):
    told = refused(line, capsys)
    assert says in told
    assert told.count("\n") == 1


def test_abbreviations_and_what_follows_two_dashes_are_no_options():
    options = parse(["scan", "--input", "3", "8", "9", "--", "--net.pt"])
    assert isinstance(options, ScanOptions)
    assert (options.weights, options.input_size) == ("--net.pt", (3, 8, 9))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_help_of_a_command_ends_with_an_example(name, capsys):
    with pytest.raises(SystemExit) as ended:
        parse([name, "--help"])
    assert ended.value.code == 0
    _, _, example = capsys.readouterr().out.partition("\nexample:\n")
    program, *typed = shlex.split(example.replace("\\\n", ""))
    assert (program, typed[0]) == ("shapprune", name)
    (least,) = (type(options) for line, options in LEAST.items() if line.split()[0] == name)
    assert type(parse(typed)) is least


def test_what_the_parser_knows_without_torch_is_what_there_is():
    assert tuple(attacks.ATTACKS) == ATTACKS
    assert get_args(options_module.Estimator) == get_args(attribution.Estimator)


@pytest.mark.parametrize(
    ("typed", "follows"),
    [
        ("sc", {"scan", "scan-all"}),
        ("repair net.pt --est", {"--estimator"}),
        ("repair net.pt --estimator ", {"multilinear", "algorithm1"}),
    ],
)
def test_a_shell_completes(typed, follows, tmp_path):
    pytest.importorskip("argcomplete")
    line = f"shapprune {typed}"
    asked = {
        **{"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))},
        "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "told"),
        "PYTHONPROFILEIMPORTTIME": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "shapprune"],
        env={**os.environ, **asked},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    told = (tmp_path / "told").read_text().split("\v")
    assert {word.strip() for word in told} == follows
    assert " torch\n" not in done.stderr  # which takes seconds to load


@pytest.mark.parametrize(
    ("typed", "what"),
    [
        (["scan", "net.pt", "--images", ""], "'--images'"),
        (["scan", "net.pt", "--arch="], "'--arch'"),
        (["scan", "net.pt", "--out", "  "], "'--out'"),
        (["repair", "", "--out", "o"], "an argument"),
        (["scan-all", "m", "--out", "o", "--ray", ""], "'--ray'"),
        (["bench", "", "--rows", "a"], "an argument"),
    ],
)
def test_what_is_empty_is_not_taken_for_left_out(typed, what, capsys):
    """A shell's variable that is not set: without images, a scan would say less in silence."""
    with pytest.raises(SystemExit, match="2"):
        parse(typed)
    assert f"{what} is empty, as of a variable that is not set" in capsys.readouterr().err
