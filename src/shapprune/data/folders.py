"""Image folders: one sub-folder a class."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from shapprune.data.dataset import LabeledImages, absence_notes, change_notes, to_channels, to_size
from shapprune.data.preprocessing import Preprocessing, prepare
from shapprune.errors import InputError
from shapprune.utils.files import unreadable
from shapprune.utils.text import describe, list_names, printable, quote

# Decoders that are common and live inside Pillow: EPS, for one, would start Ghostscript.
_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP", "GIF")
_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".pbm", ".tif", ".tiff", ".webp", ".gif")
)
MOST_PIXELS = 25_000_000  # of an image: its bytes and three channels of floats take 0.6 GB
_MOST_SCANS = 100  # of a progressive JPEG; ten are usual, and each passes over all pixels
_MOST_UNSAID = 1 << 20  # pixels that the first image may set the input size to
_PARTS = frozenset(("train", "test", "val", "valid", "validation"))


def part_of_folder(path: Path, split: str) -> Path:
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


def read_folder(
    path: Path,
    num_classes: int,
    class_names: tuple[str, ...],
    input_size: tuple[int, int, int] | None,
    per_class: int | None,
    generator: torch.Generator,
    preprocessing: Preprocessing | None = None,
) -> LabeledImages:
    """The images of a folder with one sub-folder a class.

    For arguments see `shapprune.data.loading.load_images`.

    Raises:
        InputError: what is wrong with it, in one line.
    """
    try:
        folders = [p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")]
    except OSError as error:
        raise unreadable(path, error) from error
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
                image, turned = _read_image(file)
            except Exception as error:  # decoders raise many kinds on damaged files
                skipped.append(f"{printable(str(file.relative_to(path)))} ({_why(error)})")
                continue
            if size is None and image.shape[2] * image.shape[3] > _MOST_UNSAID:
                raise InputError(
                    f"{file} has {image.shape[3]} x {image.shape[2]} pixels: say with input_size "
                    "what the network takes"
                )
            if turned:
                changes["turned upright, as their EXIF orientation says"] += 1
            image = prepare(image, preprocessing, changes)
            size = size or image.shape[2:]
            images.append(to_size(image, size, changes))  # at once: large originals can go
            labels.append(label)
            read += 1
    first = "; ".join(skipped[:5]) + ("; …" if len(skipped) > 5 else "")
    if not images:
        raise InputError(f"{path} holds no readable images" + (f": {first}" if skipped else ""))
    if skipped:
        notes.append(f"skipped {len(skipped)} unreadable image files: {first}")
    channels = input_size[0] if input_size else max(image.shape[1] for image in images)
    batch = torch.cat([to_channels(image, channels, changes) for image in images])
    numbers = torch.tensor(labels)
    notes += [*change_notes(changes, len(batch)), *absence_notes(numbers, num_classes)]
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


def _read_image(file: Path) -> tuple[Tensor, bool]:
    """One image as float32 (1, C, H, W) in [0, 1], C = 1 if it is stored as grey, else 3.

    It is turned as its EXIF orientation says; the second value tells whether it was.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(file, formats=_FORMATS) as opened:
            image: Image.Image = opened
            if image.format == "JPEG" and file.read_bytes().count(b"\xff\xda") > _MOST_SCANS:
                raise ValueError("too many scans")
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            if turned := _is_turned(image):
                image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):  # 16-bit grey; Pillow's convert() would clip it
                pixels = np.asarray(image, dtype=np.float32) / 65535
                if pixels.max() > 1 or pixels.min() < 0:
                    raise ValueError("32-bit pixels")
            elif image.mode == "F":
                raise ValueError("floating-point pixels")
            else:
                grey = image.mode in ("1", "L", "LA", "La")
                pixels = np.array(image.convert("L" if grey else "RGB"), np.float32)
                pixels /= 255
    tensor = torch.from_numpy(pixels)
    tensor = tensor.unsqueeze(0) if tensor.ndim == 2 else tensor.permute(2, 0, 1)
    return tensor.unsqueeze(0), turned


def _is_turned(image: Image.Image) -> bool:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # what is said beside an image may be damaged, and the image whole
        return False
    return orientation in range(2, 9)


def _why(error: Exception) -> str:
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return "too many pixels"
    return "not an image" if isinstance(error, UnidentifiedImageError) else describe(error)
