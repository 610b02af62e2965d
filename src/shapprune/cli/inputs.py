"""What the options of a command name: the model, the images, the device."""

import math
from dataclasses import dataclass, replace

import torch

from shapprune.checkpoints.loading import count_classes, load_classifier
from shapprune.checkpoints.metadata import Stated
from shapprune.checkpoints.source import Source, read_source
from shapprune.cli.console import print_note, progress_shown
from shapprune.cli.options import ModelOptions, PoisonOptions, RecoverOptions, channels
from shapprune.data.dataset import LabeledImages
from shapprune.data.folders import MOST_PIXELS
from shapprune.data.loading import load_images
from shapprune.errors import InputError
from shapprune.method.recovery import Recovery, recover_images
from shapprune.model.classifier import Classifier, check_classifier
from shapprune.utils.text import describe

_PER_CLASS = 10
_MOST_NUMBERS = 3 * MOST_PIXELS  # of an image: what the largest that is read from a file has


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a command works on, each fitted to the others.

    Attributes:
        model: on the device.
        data: the clean images; those recovered, where none were given.
        recovered: how they were recovered, if so.
        source: of the weights.
        num_classes: as typed, or as the source states or shows.
    """

    model: Classifier
    data: LabeledImages
    recovered: Recovery | None
    source: Source
    num_classes: int


def load(options: ModelOptions) -> Inputs:
    """Load what ``scan``, ``repair``, ``demo`` and ``recover`` work on, and print the notes.

    What was not typed is as the source states it.

    Raises:
        InputError: whatever does not fit, in one line.
    """
    source = read_source(options.weights, entry=options.entry)
    stated, notes = source.stated, source.notes
    check_normalisation(options, stated)
    num_classes = options.num_classes or count_classes(source, arch=options.arch)
    input_size = options.input_size or stated.input_size
    check_size(input_size)
    model = load_classifier(
        source,
        arch=options.arch,
        num_classes=num_classes,
        mean=channels(options.mean),
        std=channels(options.std),
    ).to(pick_device(options.device))
    notes += source.notes_on(model.network) + stated.image_notes(input_size)
    stated_at_all = stated.mean is not None or bool((model.std != 1).any() or model.mean.any())
    if options.mean is None and not stated_at_all:
        notes += ("no --mean and --std given and none stated: the network gets images in [0, 1]",)
    generator = torch.Generator().manual_seed(options.seed)
    recovered = None
    if options.images:
        data = load_images(
            options.images,
            num_classes=num_classes,
            input_size=input_size,
            per_class=options.per_class or _PER_CLASS,
            class_names=stated.class_names,
            preprocessing=stated.preprocessing_for(input_size),
            generator=generator,
        )
    else:
        recovered = _recovered(options, model, num_classes, input_size, generator)
        note = "no images were given; those used were recovered from the weights"
        if not recovered.layers:
            note += (
                " without batch norm to guide them, a hint at most: a verdict goes by the largest "
                "margins alone, which cannot show that a model is clean"
            )
        data = LabeledImages(recovered.images.cpu(), recovered.labels.cpu(), (note,))
    names = data.class_names or stated.class_names
    names = names if names and len(names) == num_classes else None
    data = replace(data, notes=notes + data.notes, class_names=names)
    for note in data.notes:
        print_note(note if note.startswith("warning: ") else f"note: {note}")
    check_classifier(model, images=data.images, num_classes=num_classes)
    return Inputs(model, data, recovered, source, num_classes)


def check_normalisation(
    options: ModelOptions | PoisonOptions, stated: Stated | None = None
) -> None:
    """One of mean and std alone would go with a default of the other that nobody meant.

    Args:
        stated: what the source says of itself, if there is one.

    Raises:
        InputError: one was typed, and the other is not stated.
    """
    for name, other in (("mean", "std"), ("std", "mean")):
        missing = getattr(options, other) is None and getattr(stated, other, None) is None
        if getattr(options, name) is not None and missing:
            raise InputError(f"--{name} needs --{other} beside it, and none is stated")


def check_size(input_size: tuple[int, int, int] | None) -> None:
    """Before an image is made: whether it fits into memory.

    Raises:
        InputError: it does not.
    """
    if input_size and math.prod(input_size) > _MOST_NUMBERS:
        raise InputError(
            f"an input size of {' x '.join(map(str, input_size))} is too large: expected at most "
            f"{_MOST_NUMBERS} numbers an image"
        )


def _recovered(
    options: ModelOptions,
    model: Classifier,
    num_classes: int,
    input_size: tuple[int, int, int] | None,
    generator: torch.Generator,
) -> Recovery:
    if input_size is None:  # timm knows the network's default, and not what these weights take
        without = "" if isinstance(options, RecoverOptions) else "without --images, "
        raise InputError(f"{without}--input-size C H W must tell what the network takes")
    blank = torch.zeros(1, *input_size)
    check_classifier(model, images=blank, num_classes=num_classes)
    with progress_shown() as progress:
        return recover_images(
            model,
            input_size=input_size,
            per_class=options.per_class,
            prior_only=options.prior_only,
            generator=generator,
            progress=progress,
        )


def run_facts(options: ModelOptions, inputs: Inputs) -> dict[str, object]:
    """The run's inputs, for the report and result.json."""
    model, data = inputs.model, inputs.data
    archs = " or ".join(inputs.source.stated.archs)
    return {
        "command": options.command,
        "weights": str(options.weights),
        "files": [vars(file) for file in inputs.source.files],
        **inputs.source.facts(model.network),
        "arch": options.arch or archs or "built in, by its names",
        "num_classes": inputs.num_classes,
        "images": options.images or "recovered from the weights",
        "images_given": len(data.images),
        "input_size": list(data.images.shape[1:]),
        "mean": model.mean.flatten().tolist(),
        "std": model.std.flatten().tolist(),
        "notes": list(data.notes),
        "device": str(model.mean.device),
    }


def pick_device(name: str) -> torch.device:
    """The device of that name; of ``auto``, a GPU where there is one.

    Raises:
        InputError: it cannot be used.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # which the device meta has not
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used: {describe(error)}") from error
    return device
