"""The command line: parse, load, call, write."""

import argparse
import json
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from shapprune import demo, pipeline
from shapprune.attacks import choose_attack, make_backdoored, trigger_bytes
from shapprune.checkpoints.architectures import build_network
from shapprune.checkpoints.compact_files import compact_files
from shapprune.checkpoints.inspection import lines_of, look_into
from shapprune.checkpoints.source import Source, read_source
from shapprune.checkpoints.state_dict import weights_bytes
from shapprune.cli.bench import bench
from shapprune.cli.console import (
    careful_output,
    print_note,
    print_result,
    progress_shown,
    show_repair,
    show_scan,
    write_results,
)
from shapprune.cli.inputs import channels, load, pick_device, run_facts
from shapprune.cli.parser import (
    ATTACK_OPTIONS,
    CLEAN,
    ERROR,
    INTERRUPTED,
    parser,
)
from shapprune.data.dataset import LabeledImages
from shapprune.data.loading import load_images
from shapprune.errors import InputError
from shapprune.method import detection
from shapprune.method.detection import Basis
from shapprune.model.classifier import Classifier, check_classifier
from shapprune.model.metrics import accuracy, attack_success_rate
from shapprune.pipeline import RepairResult, ScanResult
from shapprune.reporting.exits import exit_code
from shapprune.reporting.html import render_report
from shapprune.reporting.pictures import images_picture, trigger_picture
from shapprune.reporting.sarif import sarif
from shapprune.reporting.summary import summarise, versions
from shapprune.reporting.triggers import suspected_triggers
from shapprune.utils.files import check_file, check_folder
from shapprune.utils.text import describe, printable


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 clean or done, 1 backdoored, 2 error, 3 suspicious; of `repair`, 1 and 3 where the model was
    left as it was.
    """
    with careful_output():
        return _main(list(sys.argv[1:] if argv is None else argv))


def _main(given: Sequence[str]) -> int:
    arguments = parser().parse_args(given)
    arguments.command = shlex.join(["shapprune", *given])
    try:
        with warnings.catch_warnings():
            if not arguments.debug:
                warnings.simplefilter("ignore")
            return _COMMANDS[arguments.name](arguments)
    except KeyboardInterrupt:
        print_note("interrupted, no file is left half-written")
        return INTERRUPTED
    except InputError as error:
        message = str(error)
    except Exception as error:
        if arguments.debug:
            raise
        message = f"{describe(error)} (unexpected: --debug shows where)"
    print_note(f"error: {message}")
    return ERROR


def _scan(arguments: argparse.Namespace) -> int:
    _check_options(arguments)
    model, data, recovered, source = load(arguments)
    with progress_shown() as progress:
        result = pipeline.scan(
            model,
            data.images,
            data.labels,
            recovered=recovered,
            false_alarms=arguments.false_alarms,
            seed=arguments.seed,
            progress=progress,
        )
    about = run_facts(arguments, model, data, source)
    try:
        if arguments.out or arguments.sarif:
            files = _files(result, data, about, source)
            write_results(arguments.out, files, _sarif(arguments, result, data, about))
    finally:
        show_scan(result, data)
    return exit_code(result)


def _check_options(arguments: argparse.Namespace) -> None:
    """Refuse before anything is searched a rate of false alarms that the bounds cannot hold, and a
    file that cannot be written."""
    if arguments.sarif:
        check_file(arguments.sarif, overwrite=arguments.overwrite, beside=arguments.out)
    bases: list[Basis] = ["images"] if arguments.images else ["recovered"]
    if arguments.prior_only and not arguments.images:
        bases.append("margins")
    for basis in bases:
        detection.shipped(basis).bound(arguments.false_alarms)


def _repair(arguments: argparse.Namespace) -> int:
    _check_options(arguments)
    model, data, recovered, source = load(arguments)
    with progress_shown() as progress:
        result = pipeline.repair(
            model,
            data.images,
            data.labels,
            recovered=recovered,
            force_targets=arguments.force_target,
            false_alarms=arguments.false_alarms,
            unlearn=arguments.unlearn,
            estimator=arguments.estimator,
            mode=arguments.mode,
            count=arguments.neurons,
            compact=arguments.compact,
            seed=arguments.seed,
            progress=progress,
        )
    about = run_facts(arguments, model, data, source)
    try:
        files = _files(result, data, about, source)
        write_results(arguments.out, files, _sarif(arguments, result, data, about))
    finally:
        show_scan(result.scan, data)
        show_repair(result)
    return exit_code(result)


def _demo(arguments: argparse.Namespace) -> int:
    arguments.arch, arguments.num_classes = demo.ARCH, demo.NUM_CLASSES
    arguments.weights, arguments.images = demo.WEIGHTS, demo.DATA
    model, data, _, source = load(arguments)
    test = load_images(demo.DATA, num_classes=demo.NUM_CLASSES, split="test")
    with progress_shown() as progress:
        result = pipeline.repair(
            model, data.images, data.labels, seed=arguments.seed, progress=progress
        )
    # The attacker's trigger and unseen images come in here, after the repair, for scoring only.
    trigger, target = demo.true_trigger(), demo.true_target()
    table = Table("", "ACC", "ASR", title=f"{len(test.images)} unseen images, true trigger")
    for name, network in (("before", model), ("after", result.model)):
        acc = accuracy(network, test.images, test.labels)
        asr = attack_success_rate(
            network, test.images, test.labels, stamp=trigger.stamp, target=target
        )
        table.add_row(name, f"{acc:.1%}", f"{asr:.1%}")
    about = run_facts(arguments, model, data, source)
    try:
        write_results(arguments.out, _files(result, data, about, source))
    finally:
        show_scan(result.scan, data)
        show_repair(result)
        print_result(table)
    return CLEAN


def _recover(arguments: argparse.Namespace) -> int:
    model, data, recovered, source = load(arguments)
    assert recovered
    right = accuracy(model, recovered.images, recovered.labels)
    facts = {
        **run_facts(arguments, model, data, source),
        "layers": recovered.layers,
        "divergence": recovered.divergence if recovered.layers else None,
        "accuracy": right,
        "seconds": recovered.stage.seconds,
        "passes": recovered.stage.passes,
        "seed": arguments.seed,
        "versions": versions(),
    }
    levels = (data.images * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    pixels = levels.squeeze(-1) if levels.shape[-1] == 1 else levels
    write_results(
        arguments.out,
        {
            "images.npz": _npz(train_images=pixels, train_labels=data.labels),
            "images.png": images_picture(data.images),
            "recovery.json": _json(facts),
        },
    )
    print_result(
        f"recovered {len(data.images)} images, guided by {recovered.layers} BN layers to a "
        f"divergence of {recovered.divergence:.3g}; the model gives {right:.0%} of them their class"
    )
    return CLEAN


def _inspect(arguments: argparse.Namespace) -> int:
    path: Path = arguments.weights
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} is a folder without safetensors")
    problems = []
    for file in files:
        contents = look_into(file)
        print_result(f"{file}: {contents.kind}, {file.stat().st_size} bytes")
        for line in lines_of(contents):
            print_result(line)
        problems += [f"{file} {problem}" for problem in contents.problems]
    if problems:
        raise InputError(problems[0])
    stated = read_source(path).stated
    for name in ("archs", "num_classes", "mean", "std", "input_size", "class_names"):
        if value := getattr(stated, name):
            said = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            print_result(printable(f"states {name}: {said}"))
    return CLEAN


def _poison(arguments: argparse.Namespace) -> int:
    check_folder(arguments.out, overwrite=arguments.overwrite)
    attack = choose_attack(arguments.attack, _attack_options(arguments))
    train, test = (
        load_images(
            arguments.data,
            num_classes=arguments.num_classes,
            input_size=arguments.input_size,
            split=split,
        )
        for split in ("train", "test")
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(arguments.seed)
        network = build_network(arguments.arch, arguments.num_classes)
    model = Classifier(network, channels(arguments.mean), channels(arguments.std))
    model.to(pick_device(arguments.device))
    check_classifier(model, images=train.images, num_classes=arguments.num_classes)
    with progress_shown() as progress:
        made = make_backdoored(
            model,
            train,
            test,
            attack=attack,
            num_classes=arguments.num_classes,
            target=None if arguments.all_to_all else arguments.target,
            rate=arguments.rate,
            epochs=arguments.epochs,
            flip=arguments.flip,
            batch_size=arguments.batch_size,
            learning_rate=arguments.learning_rate,
            seed=arguments.seed,
            source=arguments.source,
            cover=arguments.cover,
            progress=lambda share: progress("train", share),
        )
    assert isinstance(made.model, Classifier)
    facts = {
        "command": arguments.command,
        "data": arguments.data,
        "arch": arguments.arch,
        **made.recipe,
        "accuracy": made.accuracy,
        "asr": made.asr,
        "versions": versions(),
    }
    write_results(
        arguments.out,
        {
            "model.safetensors": weights_bytes(made.model.network),
            "trigger.npz": trigger_bytes(made.trigger),
            "poison.json": _json(facts),
        },
    )
    print_result(f"ACC {made.accuracy:.1%}, ASR {made.asr:.1%} on {len(test.images)} test images")
    return CLEAN


def _attack_options(arguments: argparse.Namespace) -> dict[str, object]:
    """The options of the attack that were given, by their names in the attack's class."""
    given = {name: getattr(arguments, name) for name in ATTACK_OPTIONS}
    given["colour"] = channels(arguments.colour)
    given["random_place"] = arguments.random_place or None
    options = {name: value for name, value in given.items() if value is not None}
    return {**options, "colour": None} if arguments.random_colour else options


def _files(
    result: ScanResult | RepairResult,
    data: LabeledImages,
    about: dict[str, object],
    source: Source,
) -> dict[str, bytes]:
    """What a run leaves behind; result.json comes last, so that its presence means the rest's."""
    files: dict[str, bytes] = {}
    if isinstance(result, RepairResult):
        assert isinstance(result.model, Classifier)
        files |= source.repaired(result.model.network)
        if result.compact and result.compact.taken:
            files |= compact_files(result.compact, like=source.weights)
    for target, stamp in suspected_triggers(result):
        files[f"trigger_{target}.png"] = trigger_picture(stamp)
    names = data.class_names
    page = render_report(
        result, images=data.images, labels=data.labels, about=about, class_names=names
    )
    files["report.html"] = page.encode()
    files["result.json"] = _json(summarise(result, about=about, class_names=names))
    return files


def _sarif(
    arguments: argparse.Namespace,
    result: ScanResult | RepairResult,
    data: LabeledImages,
    about: dict[str, object],
) -> dict[Path, bytes]:
    """The SARIF log, if one was asked for."""
    if not arguments.sarif:
        return {}
    weights = str(arguments.weights)
    here, place = Path.cwd(), Path(weights).absolute()
    if not weights.startswith("hf:"):
        weights = str(place.relative_to(here) if place.is_relative_to(here) else place)
    names = data.class_names
    log = sarif(result, labels=data.labels, about=about, class_names=names, weights=weights)
    return {arguments.sarif: _json(log)}


def _json(content: dict[str, object]) -> bytes:
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()


def _npz(**tensors: Tensor) -> bytes:
    buffer = BytesIO()
    np.savez(buffer, **{name: tensor.numpy() for name, tensor in tensors.items()})  # type: ignore[arg-type]
    return buffer.getvalue()


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "scan": _scan,
    "repair": _repair,
    "demo": _demo,
    "recover": _recover,
    "inspect": _inspect,
    "poison": _poison,
    "bench": bench,
}
