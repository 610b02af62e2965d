"""The command line: parse, load, call, write. The only place that prints or picks a device."""

import argparse
import json
import shlex
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from rich import progress as bars
from rich.console import Console
from rich.table import Table
from torch import Tensor

from shapprune import demo, pipeline
from shapprune.architectures import build_network
from shapprune.attacks import choose_attack, make_backdoored, trigger_bytes
from shapprune.bench.cells import Cell
from shapprune.bench.experiments import EXPERIMENTS, Profile, distinct, models_of
from shapprune.bench.measure import measure
from shapprune.bench.on_ray import RayTasks
from shapprune.bench.plan import plan
from shapprune.bench.processes import Processes
from shapprune.bench.report import report as bench_report
from shapprune.bench.runner import Result, read, run
from shapprune.compact import Compact
from shapprune.compact_files import compact_files
from shapprune.contents import lines_of, look_into
from shapprune.data import LabeledImages, load_images
from shapprune.errors import InputError
from shapprune.files import check_folder, describe, printable, write_folder
from shapprune.metrics import accuracy, attack_success_rate
from shapprune.models import Classifier, check_classifier, count_classes, load_classifier
from shapprune.options import ATTACK_OPTIONS, parser
from shapprune.pipeline import RepairResult, ScanResult
from shapprune.recovery import Recovery, recover_images
from shapprune.report import images_picture, render_report, suspected_triggers, trigger_picture
from shapprune.sources import Source, read_source
from shapprune.stages import Progress
from shapprune.summary import summarise, versions
from shapprune.weights import weights_bytes

CLEAN, BACKDOORED, ERROR, INTERRUPTED = 0, 1, 2, 130
_PER_CLASS = 10
_MOST_ROWS = 50  # of the table of classes


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 clean or done, 1 backdoor found, 2 error."""
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = parser().parse_args(given)
    arguments.command = shlex.join(["shapprune", *given])
    try:
        with warnings.catch_warnings():
            if not arguments.debug:
                warnings.simplefilter("ignore")
            return _COMMANDS[arguments.name](arguments)
    except KeyboardInterrupt:
        print("shapprune: interrupted, nothing was written", file=sys.stderr)
        return INTERRUPTED
    except InputError as error:
        message = str(error)
    except Exception as error:
        if arguments.debug:
            raise
        message = f"{describe(error)} (unexpected: --debug shows where)"
    print(f"shapprune: error: {message}", file=sys.stderr)
    return ERROR


def _scan(arguments: argparse.Namespace) -> int:
    model, data, recovered, source = _load(arguments)
    with _progress() as progress:
        result = pipeline.scan(
            model,
            data.images,
            data.labels,
            recovered=recovered,
            seed=arguments.seed,
            progress=progress,
        )
    about = _about(arguments, model, data, source)
    _print_scan(result, data)
    if arguments.out:
        _write(arguments.out, _files(result, data, about, source))
    return BACKDOORED if result.targets else CLEAN


def _repair(arguments: argparse.Namespace) -> int:
    model, data, recovered, source = _load(arguments)
    with _progress() as progress:
        result = pipeline.repair(
            model,
            data.images,
            data.labels,
            recovered=recovered,
            force_targets=arguments.force_target,
            unlearn=arguments.unlearn,
            estimator=arguments.estimator,
            mode=arguments.mode,
            count=arguments.neurons,
            compact=arguments.compact,
            seed=arguments.seed,
            progress=progress,
        )
    about = _about(arguments, model, data, source)
    _print_scan(result.scan, data)
    _print_repair(result)
    _write(arguments.out, _files(result, data, about, source))
    return CLEAN


def _demo(arguments: argparse.Namespace) -> int:
    arguments.arch, arguments.num_classes = demo.ARCH, demo.NUM_CLASSES
    arguments.weights, arguments.images = demo.WEIGHTS, demo.DATA
    model, data, _, source = _load(arguments)
    test = load_images(demo.DATA, num_classes=demo.NUM_CLASSES, split="test")
    with _progress() as progress:
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
    _print_scan(result.scan, data)
    _print_repair(result)
    _print(table)
    _write(arguments.out, _files(result, data, _about(arguments, model, data, source), source))
    return CLEAN


def _recover(arguments: argparse.Namespace) -> int:
    model, data, recovered, source = _load(arguments)
    assert recovered
    right = accuracy(model, recovered.images, recovered.labels)
    _print(
        f"recovered {len(data.images)} images, guided by {recovered.layers} BN layers to a "
        f"divergence of {recovered.divergence:.3g}; the model gives {right:.0%} of them their class"
    )
    facts = {
        **_about(arguments, model, data, source),
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
    _write(
        arguments.out,
        {
            "images.npz": _npz(train_images=pixels, train_labels=data.labels),
            "images.png": images_picture(data.images),
            "recovery.json": _json(facts),
        },
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
        _print(f"{file}: {contents.kind}, {file.stat().st_size} bytes")
        for line in lines_of(contents):
            _print(line)
        problems += [f"{file} {problem}" for problem in contents.problems]
    if problems:
        raise InputError(problems[0])
    stated = read_source(path).stated
    for name in ("archs", "num_classes", "mean", "std", "input_size", "class_names"):
        if value := getattr(stated, name):
            said = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            _print(printable(f"states {name}: {said}"))
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
    model = Classifier(network, _channels(arguments.mean), _channels(arguments.std))
    model.to(_device(arguments.device))
    check_classifier(model, images=train.images, num_classes=arguments.num_classes)
    with _progress() as progress:
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
    _print(f"ACC {made.accuracy:.1%}, ASR {made.asr:.1%} on {len(test.images)} test images")
    _write(
        arguments.out,
        {
            "model.safetensors": weights_bytes(made.model.network),
            "trigger.npz": trigger_bytes(made.trigger),
            "poison.json": _json(facts),
        },
    )
    return CLEAN


def _bench(arguments: argparse.Namespace) -> int:
    profile, out = arguments.profile, arguments.out
    if arguments.what == "report":
        return _bench_report(arguments.results or out, profile)
    if arguments.what == "list":
        return _bench_list(arguments)
    if arguments.what not in EXPERIMENTS:
        known = ", ".join([*EXPERIMENTS, "list", "report"])
        raise InputError(f"bench knows {known}; got {arguments.what!r}")
    if out is None:
        raise InputError("--out DIR must tell where the results go")
    cells = list(EXPERIMENTS[arguments.what].cells(profile))
    if arguments.methods:
        known = ", ".join(dict.fromkeys(cell.method for cell in cells if cell.method)) or "none"
        cells = [cell for cell in cells if cell.method in arguments.methods]
        if not cells:
            asked = ", ".join(arguments.methods)
            raise InputError(f"{arguments.what} has none of the methods {asked}: it has {known}")
    if not cells:
        raise InputError(f"{arguments.what} has no rows in the profile {profile}")
    check_folder(out, overwrite=True)
    models = models_of(cells)
    cells = [cell for cell in cells if cell.kind != "model"]
    jobs = 1 if arguments.what == "time" else arguments.jobs
    cache, retry_failed = _bench_cache(arguments), arguments.retry_failed
    planned = plan([*models, *cells], folder=out, cache=cache, retry_failed=retry_failed)
    _print("\n".join(planned.lines(jobs)))
    if arguments.dry_run:
        return CLEAN
    write_folder(out, {}, stale=(".*.tmp",))  # what a killed run left behind
    device = _device(arguments.device)
    root = arguments.data_root.absolute()
    work = partial(measure, root=root, cache=cache, device=device)

    def told(cell: Cell, result: Result | None) -> None:
        _say(f"{cell.name}: {_outcome(result) if result else '…'}")

    try:
        for some in (models, cells):  # a model is trained once, before what needs it
            hands = (
                RayTasks(work, arguments.ray, gpus=int(device.type == "cuda"))
                if arguments.ray
                else Processes(work, jobs)
            )
            run(some, out, hands=hands, told=told, retry_failed=retry_failed)
    except KeyboardInterrupt:
        _say("interrupted; finished cells are kept, and the same command goes on")
        return INTERRUPTED
    results = [read(out, cell) for cell in [*models, *cells]]
    done = sum(result is not None and result["state"] == "done" for result in results)
    _print(f"{done} cells done, {len(results) - done} failed; in {out}")
    return CLEAN if done == len(results) else ERROR


def _bench_cache(arguments: argparse.Namespace) -> Path:
    return Path(arguments.cache or (arguments.out or Path()) / "models").absolute()


def _outcome(result: Result) -> str:
    if result["state"] == "failed":
        return f"failed: {result['error']}"
    seconds = result.get("wall_seconds")
    return f"done in {seconds:.0f} s" if isinstance(seconds, float) else "done"


def _bench_list(arguments: argparse.Namespace) -> int:
    table = Table("", "cells", "done", "minutes", "what", title=f"profile {arguments.profile}")
    missing: set[str] = set()
    for name, experiment in EXPERIMENTS.items():
        cells = list(experiment.cells(arguments.profile))
        cells = distinct([*models_of(cells), *cells])
        planned = plan(cells, folder=arguments.out, cache=_bench_cache(arguments))
        minutes = "?" if planned.unknown else f"{planned.seconds / 60:.0f}"
        done = str(planned.cells - planned.left)
        table.add_row(name, str(planned.cells), done, minutes, experiment.title)
        missing |= {
            c.recipe.data
            for c in cells
            if ":" not in c.recipe.data and not (arguments.data_root / c.recipe.data).exists()
        }
    _print(table)
    if missing:
        _print(f"missing in {arguments.data_root}: {', '.join(sorted(missing))}")
    return CLEAN


def _bench_report(results: Path | None, profile: Profile) -> int:
    if results is None or not results.is_dir():
        raise InputError(f"report needs a folder of results, got {results}")
    _write(results, bench_report(results, profile))
    return CLEAN


def _attack_options(arguments: argparse.Namespace) -> dict[str, object]:
    """The options of the attack that were given, by their names in the attack's class."""
    given = {name: getattr(arguments, name) for name in ATTACK_OPTIONS}
    given["colour"] = _channels(arguments.colour)
    given["random_place"] = arguments.random_place or None
    options = {name: value for name, value in given.items() if value is not None}
    return {**options, "colour": None} if arguments.random_colour else options


def _load(
    arguments: argparse.Namespace,
) -> tuple[Classifier, LabeledImages, Recovery | None, Source]:
    if arguments.out:
        check_folder(arguments.out, overwrite=arguments.overwrite)
    source = read_source(arguments.weights)
    stated, notes = source.stated, source.notes
    # What was not said is the source's from here on, in the report too.
    arguments.num_classes = arguments.num_classes or count_classes(source, arch=arguments.arch)
    arguments.input_size = arguments.input_size or stated.input_size
    model = load_classifier(
        source,
        arch=arguments.arch,
        num_classes=arguments.num_classes,
        mean=_channels(arguments.mean),
        std=_channels(arguments.std),
    ).to(_device(arguments.device))
    if arguments.mean is None and stated.mean is None and arguments.name != "demo":
        notes += ("no --mean and --std given and none stated: the network gets images in [0, 1]",)
    generator = torch.Generator().manual_seed(arguments.seed)
    recovered = None
    if arguments.images:
        data = load_images(
            arguments.images,
            num_classes=arguments.num_classes,
            input_size=arguments.input_size,
            per_class=arguments.per_class or _PER_CLASS,
            class_names=stated.class_names,
            generator=generator,
        )
    else:
        recovered = _recovered(arguments, model, generator)
        note = "no images were given; those used were recovered from the weights"
        if not recovered.layers:
            note += " without batch norm to guide them: take the result for a hint at most"
        data = LabeledImages(recovered.images.cpu(), recovered.labels.cpu(), (note,))
    names = data.class_names or stated.class_names
    names = names if names and len(names) == arguments.num_classes else None
    data = replace(data, notes=notes + data.notes, class_names=names)
    for note in data.notes:
        _say(f"note: {note}")
    check_classifier(model, images=data.images, num_classes=arguments.num_classes)
    return model, data, recovered, source


def _recovered(
    arguments: argparse.Namespace, model: Classifier, generator: torch.Generator
) -> Recovery:
    stated = getattr(model.network, "pretrained_cfg", {})  # timm's say what they were trained on
    size = arguments.input_size or stated.get("input_size")
    if size is None:
        raise InputError("without --images, --input-size C H W must tell what the network takes")
    blank = torch.zeros(1, *size)
    check_classifier(model, images=blank, num_classes=arguments.num_classes)
    with _progress() as progress:
        return recover_images(
            model,
            input_size=tuple(size),
            per_class=arguments.per_class,
            prior_only=arguments.prior_only,
            generator=generator,
            progress=progress,
        )


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


def _write(folder: Path, files: dict[str, bytes]) -> None:
    write_folder(folder, files, stale=("trigger_*.png", "repaired.*", "compact.*"))
    _print(f"written to {folder}: {', '.join(files)}")


def _print_scan(result: ScanResult, data: LabeledImages) -> None:
    table = Table("class", *(inversion.kind for inversion in result.inversions), "index", "")
    indices, bound = result.detection.indices, result.detection.bound
    cleared = {trial.targets[0] for trial in result.trials} - set(result.targets)
    shown = sorted(range(len(indices)), key=lambda c: -indices[c])[:_MOST_ROWS]
    for c in sorted(shown):
        table.add_row(
            _class_name(c, data),
            *(f"{inversion.norms[c]:.2f}" for inversion in result.inversions),
            f"{indices[c]:.2f}",
            "target" if c in result.targets else "cleared" if c in cleared else "",
        )
    table.title = "Norms of the inverted triggers"
    if len(shown) < len(indices):
        table.title += f", {len(shown)} of {len(indices)} classes"
    _print(table)
    targets = ", ".join(_class_name(c, data) for c in result.targets)
    _print(
        f"verdict: {result.verdict}"
        + (f", target class {targets}" if result.targets else "")
        + f" (anomaly index {result.anomaly_index:.2f}, bound {bound:.2f})"
    )
    if result.accuracy < 0.5:
        _say(
            f"warning: the model gives only {result.accuracy:.0%} of the given images their "
            "label: do the labels, --mean and --std fit?"
        )


def _print_repair(result: RepairResult) -> None:
    repair = result.repair
    if repair is None:
        _print("the weights are left as they are")
    else:
        _print(
            f"pruned {len(repair.pruning.removed)} of {len(repair.neurons)} neurons, "
            f"{'unlearned the trigger, ' if repair.unlearned else ''}"
            f"ASR of the inverted trigger {repair.before.asr:.0%} → {repair.after.asr:.0%}, "
            f"accuracy on the given images {repair.before.accuracy:.0%} → "
            f"{repair.after.accuracy:.0%}"
        )
    if result.compact:
        _print_compact(result.compact)
    _print(f"{sum(stage.seconds for stage in result.stages):.0f} seconds")


def _print_compact(compact: Compact) -> None:
    (more, less), (slower, faster) = compact.parameters, compact.operations
    _print(
        f"compact: {len(compact.taken)} of {len(compact.taken) + len(compact.left)} pruned "
        f"channels taken away, parameters {more:,} → {less:,}, multiply-accumulates of an image "
        f"{slower:,} → {faster:,}"
    )
    for why, count in Counter(left.why for left in compact.left).most_common():
        _print(f"compact: {count} left as zeros: {printable(why)}")


def _class_name(c: int, data: LabeledImages) -> str:
    return f"{c} {printable(data.class_names[c], 40)}" if data.class_names else str(c)


def _print(what: str | Table) -> None:
    Console(markup=False, highlight=False, soft_wrap=True).print(what)


def _say(message: str) -> None:
    print(f"shapprune: {message}", file=sys.stderr)


@contextmanager
def _progress() -> Iterator[Progress]:
    """Bars on a terminal, else one line a stage, on standard error."""
    console = Console(stderr=True, markup=False)
    with bars.Progress(
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as shown:
        tasks: dict[str, bars.TaskID] = {}

        def report(stage: str, share: float) -> None:
            if stage not in tasks:
                tasks[stage] = shown.add_task(stage, total=1.0)
                if not console.is_terminal:
                    _say(f"{stage} …")
            shown.update(tasks[stage], completed=share)

        yield report


def _about(
    arguments: argparse.Namespace, model: Classifier, data: LabeledImages, source: Source
) -> dict[str, object]:
    """The run's inputs, for the report and result.json."""
    return {
        "command": arguments.command,
        "weights": str(arguments.weights),
        "arch": arguments.arch or " or ".join(source.stated.archs) or "built in, by its names",
        "num_classes": arguments.num_classes,
        "images": arguments.images or "recovered from the weights",
        "images_given": len(data.images),
        "input_size": list(data.images.shape[1:]),
        "mean": model.mean.flatten().tolist(),
        "std": model.std.flatten().tolist(),
        "notes": list(data.notes),
        "device": str(model.mean.device),
    }


def _json(content: dict[str, object]) -> bytes:
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()


def _npz(**tensors: Tensor) -> bytes:
    buffer = BytesIO()
    np.savez(buffer, **{name: tensor.numpy() for name, tensor in tensors.items()})  # type: ignore[arg-type]
    return buffer.getvalue()


def _channels(values: list[float] | None) -> float | list[float] | None:
    return values[0] if values and len(values) == 1 else values


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used: {describe(error)}") from error
    return device


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "scan": _scan,
    "repair": _repair,
    "demo": _demo,
    "recover": _recover,
    "inspect": _inspect,
    "poison": _poison,
    "bench": _bench,
}
