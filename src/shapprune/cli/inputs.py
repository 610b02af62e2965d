"""What the options of a command name: the model, the images, the device."""

import argparse
from dataclasses import replace

import torch

from shapprune.checkpoints.loading import count_classes, load_classifier
from shapprune.checkpoints.source import Source, read_source
from shapprune.cli.console import print_note, progress_shown
from shapprune.data.dataset import LabeledImages
from shapprune.data.loading import load_images
from shapprune.errors import InputError
from shapprune.method.recovery import Recovery, recover_images
from shapprune.model.classifier import Classifier, check_classifier
from shapprune.utils.files import check_folder
from shapprune.utils.text import describe

_PER_CLASS = 10


def load(
    arguments: argparse.Namespace,
) -> tuple[Classifier, LabeledImages, Recovery | None, Source]:
    """Load what ``scan``, ``repair``, ``demo`` and ``recover`` are given; notes are said.

    What was not said and the source states is filled into ``arguments``.

    Raises:
        InputError: whatever does not fit, in one line.
    """
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
        mean=channels(arguments.mean),
        std=channels(arguments.std),
    ).to(pick_device(arguments.device))
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
            note += (
                " without batch norm to guide them, a hint at most: a verdict goes by the largest "
                "margins alone, which cannot show that a model is clean"
            )
        data = LabeledImages(recovered.images.cpu(), recovered.labels.cpu(), (note,))
    names = data.class_names or stated.class_names
    names = names if names and len(names) == arguments.num_classes else None
    data = replace(data, notes=notes + data.notes, class_names=names)
    for note in data.notes:
        print_note(f"note: {note}")
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
    with progress_shown() as progress:
        return recover_images(
            model,
            input_size=tuple(size),
            per_class=arguments.per_class,
            prior_only=arguments.prior_only,
            generator=generator,
            progress=progress,
        )


def run_facts(
    arguments: argparse.Namespace, model: Classifier, data: LabeledImages, source: Source
) -> dict[str, object]:
    """The run's inputs, for the report and result.json."""
    return {
        "command": arguments.command,
        "weights": str(arguments.weights),
        "files": [vars(file) for file in source.files],
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


def channels(values: list[float] | None) -> float | list[float] | None:
    """A number for all channels, or one a channel."""
    return values[0] if values and len(values) == 1 else values


def pick_device(name: str) -> torch.device:
    """The device of that name; of ``auto``, a GPU where there is one.

    Raises:
        InputError: it cannot be used.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used: {describe(error)}") from error
    return device
