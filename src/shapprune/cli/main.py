"""The command line: parse, load, call, write."""

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from rich.table import Table

from shapprune import demo, pipeline
from shapprune.attacks import choose_attack, make_backdoored, trigger_bytes
from shapprune.checkpoints.architectures import build_network
from shapprune.checkpoints.inspection import lines_of, look_into
from shapprune.checkpoints.shards import INDEX, part_names
from shapprune.checkpoints.source import read_source
from shapprune.checkpoints.state_dict import weights_bytes
from shapprune.cli.bench import bench
from shapprune.cli.console import (
    careful_output,
    print_note,
    print_result,
    progress_shown,
    show_repaired,
    show_scan,
    show_warning,
    write_results,
)
from shapprune.cli.inputs import check_normalisation, check_size, load, pick_device, run_facts
from shapprune.cli.options import (
    BenchOptions,
    Command,
    DemoOptions,
    InspectOptions,
    ModelOptions,
    PoisonOptions,
    RecoverOptions,
    RepairOptions,
    ScanAllOptions,
    ScanOptions,
    channels,
)
from shapprune.cli.parser import parse
from shapprune.cli.results import (
    OF_A_REPAIR,
    OF_A_SCAN,
    check_places,
    run_files,
    sarif_file,
    to_json,
    to_npz,
)
from shapprune.cli.scan import check_prior, check_rate, examine
from shapprune.cli.scan_all import scan_all
from shapprune.data.loading import load_images
from shapprune.errors import InputError, InputWarning
from shapprune.model.classifier import Classifier, check_classifier
from shapprune.model.metrics import accuracy, attack_success_rate
from shapprune.reporting.exits import CLEAN, ERROR, INTERRUPTED, exit_code
from shapprune.reporting.pictures import images_picture
from shapprune.reporting.summary import versions
from shapprune.utils.files import check_file, check_folder
from shapprune.utils.text import describe, printable

_LONGEST = 2000  # characters of an error, names of a stranger's files in it


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    See `shapprune.reporting.exits`; 0 also where a command without a verdict is done.
    """
    with careful_output():
        return _main(list(sys.argv[1:] if argv is None else argv))


def _main(typed: Sequence[str]) -> int:
    options = parse(typed)
    try:
        with warnings.catch_warnings():
            if not options.debug:
                warnings.simplefilter("ignore")
            warnings.simplefilter("always", InputWarning)
            warnings.showwarning = show_warning
            return _run(options)
    except KeyboardInterrupt:
        print_note("interrupted, no file is left half-written")
        return INTERRUPTED
    except InputError as error:
        message = str(error)
    except (Exception, SystemExit) as error:  # a network's forward may exit, with 0 as well
        if options.debug and not isinstance(error, SystemExit):
            raise
        message = f"{describe(error)} (unexpected: --debug shows where)"
    print_note(f"error: {printable(message, _LONGEST)}")
    return ERROR


def _run(options: Command) -> int:
    match options:
        case ScanOptions():
            return _scan(options)
        case RepairOptions():
            return _repair(options)
        case DemoOptions():
            return _demo(options)
        case RecoverOptions():
            return _recover(options)
        case InspectOptions():
            return _inspect(options)
        case PoisonOptions():
            return _poison(options)
        case ScanAllOptions():
            return scan_all(options)
        case BenchOptions():
            return bench(options)


def _scan(options: ScanOptions) -> int:
    _check_options(options)
    if options.out:
        check_folder(options.out, overwrite=options.overwrite)
    result, inputs = examine(options)
    with _told_anyway(lambda: show_scan(result, inputs.data)):
        if options.out or options.sarif:
            files = run_files(result, options, inputs)
            write_results(options.out, files, sarif_file(result, options, inputs), stale=OF_A_SCAN)
    return exit_code(result)


@contextmanager
def _told_anyway(tell: Callable[[], None]) -> Iterator[None]:
    """Write inside; then the result is told, also where it could not be written, but for Ctrl-C."""
    try:
        yield
    except Exception:
        tell()
        raise
    tell()


def _check_options(options: ScanOptions | RepairOptions) -> None:
    """Refuse before anything is searched a rate of false alarms that the bounds cannot hold, a
    file that cannot be written, and one that must stay."""
    check_prior(options)
    if options.sarif:
        check_file(options.sarif, overwrite=options.overwrite, beside=options.out)
    check_rate(options)
    check_places(options)


def _repair(options: RepairOptions) -> int:
    _check_options(options)
    check_folder(options.out, overwrite=options.overwrite)
    inputs = load(options)
    with progress_shown() as progress:
        result = pipeline.repair(
            inputs.model,
            inputs.data.images,
            inputs.data.labels,
            recovered=inputs.recovered,
            force_targets=options.force_target,
            false_alarms=options.false_alarms,
            unlearn=options.unlearn,
            estimator=options.estimator,
            pruned=options.pruned,
            seed=options.seed,
            progress=progress,
        )
    with _told_anyway(lambda: show_repaired(result, inputs.data)):
        files = run_files(result, options, inputs)
        write_results(options.out, files, sarif_file(result, options, inputs), stale=OF_A_REPAIR)
    return exit_code(result)


def _demo(options: DemoOptions) -> int:
    check_folder(options.out, overwrite=True)
    of_model = ModelOptions(
        command=options.command,
        seed=options.seed,
        device=options.device,
        weights=demo.WEIGHTS,
        arch=demo.ARCH,
        num_classes=demo.NUM_CLASSES,
        mean=(0.0,),
        std=(1.0,),
        images=demo.DATA,
        per_class=1,
    )
    inputs = load(of_model)
    test = load_images(demo.DATA, num_classes=demo.NUM_CLASSES, split="test")
    with progress_shown() as progress:
        result = pipeline.repair(
            inputs.model,
            inputs.data.images,
            inputs.data.labels,
            seed=options.seed,
            progress=progress,
        )
    # The attacker's trigger and unseen images come in here, after the repair, for scoring only.
    trigger, target = demo.true_trigger(), demo.true_target()
    table = Table("", "ACC", "ASR", title=f"{len(test.images)} unseen images, true trigger")
    for name, network in (("before", inputs.model), ("after", result.model)):
        acc = accuracy(network, test.images, test.labels)
        asr = attack_success_rate(
            network, test.images, test.labels, stamp=trigger.stamp, target=target
        )
        table.add_row(name, f"{acc:.1%}", f"{asr:.1%}")
    with _told_anyway(lambda: show_repaired(result, inputs.data)):
        write_results(options.out, run_files(result, of_model, inputs))
    print_result(table)
    return CLEAN


def _recover(options: RecoverOptions) -> int:
    check_folder(options.out, overwrite=options.overwrite)
    inputs = load(options)
    data, recovered = inputs.data, inputs.recovered
    assert recovered
    right = accuracy(inputs.model, recovered.images, recovered.labels)
    facts = {
        **run_facts(options, inputs),
        "layers": recovered.layers,
        "divergence": recovered.divergence if recovered.layers else None,
        "accuracy": right,
        "seconds": recovered.stage.seconds,
        "passes": recovered.stage.passes,
        "seed": options.seed,
        "versions": versions(),
    }
    levels = (data.images * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    pixels = levels.squeeze(-1) if levels.shape[-1] == 1 else levels
    write_results(
        options.out,
        {
            "images.npz": to_npz(train_images=pixels, train_labels=data.labels),
            "images.png": images_picture(data.images),
            "recovery.json": to_json(facts),
        },
    )
    how = (
        f"guided by {recovered.layers} BN layers to a divergence of {recovered.divergence:.3g}"
        if recovered.layers
        else "guided by no batch norm"
    )
    print_result(
        f"recovered {len(data.images)} images, {how}; the model gives {right:.0%} of them their "
        "class"
    )
    return CLEAN


def _inspect(options: InspectOptions) -> int:
    path = options.weights
    files = [path]
    if path.name.endswith(INDEX):
        files = [path.parent / name for name in part_names(path)]
    elif path.is_dir():
        files = sorted(file for end in ("safetensors", "bin") for file in path.glob(f"*.{end}"))
    if not files:
        raise InputError(f"{path} is a folder without .safetensors or .bin files")
    problems = []
    for file in files:
        contents = look_into(file)
        told = f"{file}: {contents.kind}, {file.stat().st_size} bytes"
        print_result(printable(told, _LONGEST))
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


def _poison(options: PoisonOptions) -> int:
    check_folder(options.out, overwrite=options.overwrite)
    check_normalisation(options)
    check_size(options.input_size)
    if options.all_to_all and options.target != PoisonOptions.target:
        raise InputError("--all-to-all has no --target: leave one of them out")
    attack = choose_attack(options.attack, options.attack_options)
    train, test = (
        load_images(
            options.data,
            num_classes=options.num_classes,
            input_size=options.input_size,
            split=split,
        )
        for split in ("train", "test")
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = build_network(options.arch, options.num_classes)
    model = Classifier(network, channels(options.mean), channels(options.std))
    model.to(pick_device(options.device))
    check_classifier(model, images=train.images, num_classes=options.num_classes)
    with progress_shown() as progress:
        made = make_backdoored(
            model,
            train,
            test,
            attack=attack,
            num_classes=options.num_classes,
            target=None if options.all_to_all else options.target,
            rate=options.rate,
            epochs=options.epochs,
            flip=options.flip,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            seed=options.seed,
            source=options.source,
            cover=options.cover,
            progress=lambda share: progress("train", share),
        )
    assert isinstance(made.model, Classifier)
    facts = {
        "command": options.command,
        "data": options.data,
        "arch": options.arch,
        **made.recipe,
        "accuracy": made.accuracy,
        "asr": made.asr,
        "versions": versions(),
    }
    write_results(
        options.out,
        {
            "model.safetensors": weights_bytes(made.model.network),
            "trigger.npz": trigger_bytes(made.trigger),
            "poison.json": to_json(facts),
        },
    )
    print_result(f"ACC {made.accuracy:.1%}, ASR {made.asr:.1%} on {len(test.images)} test images")
    return CLEAN
