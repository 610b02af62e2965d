"""What a source of weights says of its network: BackdoorBench's files, timm's and transformers'."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shapprune.errors import InputError
from shapprune.utils.text import quote

_BUILT_IN = ("preactresnet18", "preactresnet34", "resnet18", "resnet34")
_MOST_SIDE = 2048  # pixels
# BackdoorBench's mean and std of each data set; it gives the others' images as they are.
_BACKDOORBENCH = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "mnist": ((0.5,), (0.5,)),
    "tiny": ((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "gtsrb": ((0.0,), (1.0,)),
    "celeba": ((0.0,), (1.0,)),
}


@dataclass(frozen=True)
class Stated:
    """What a source says; None or empty where it does not.

    Attributes:
        archs: architectures that it may be, likeliest first, as `build_network` takes them.
        num_classes: classes that the network tells apart.
        mean, std: a number a channel, of images in [0, 1].
        input_size: (C, H, W).
        class_names: in the order of the labels.
        options: of the architecture, from a ``config.json``.
    """

    archs: tuple[str, ...] = ()
    num_classes: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_size: tuple[int, int, int] | None = None
    class_names: tuple[str, ...] | None = None
    options: Mapping[str, Any] | None = None


def stated_in_checkpoint(content: object) -> Stated:
    """BackdoorBench's ``attack_result.pt`` and ``defense_result.pt`` name network and data."""
    if not isinstance(content, Mapping) or not isinstance(content.get("model_name"), str):
        return Stated()
    name = content["model_name"].lower()
    # Its resnet18 is torchvision's, that of its forks the CIFAR kind.
    own = (f"shapprune.networks.cifar:{name}",) if name in _BUILT_IN else ()
    mean, std = _BACKDOORBENCH.get(str(content.get("clean_data")), (None, None))
    size = content.get("img_size")  # height, width, channels
    size = size if isinstance(size, list | tuple) else ()
    return Stated(
        (*own, f"torchvision:{name}"),
        _count(content.get("num_classes")),
        mean,
        std,
        _size((*size[2:], *size[:2])),
    )


def stated_in_config(config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Stated:
    """A Hugging Face folder's ``config.json``, timm's or transformers' kind.

    Args:
        preprocessor: the ``preprocessor_config.json``, empty if there is none.

    Raises:
        InputError: neither kind.
    """
    if isinstance(config.get("architecture"), str):
        cfg = config.get("pretrained_cfg")
        cfg = {**config, **(cfg if isinstance(cfg, Mapping) else {})}
        given = config.get("model_args")
        given = given if isinstance(given, Mapping) else {}
        options = {k: given[k] for k in ("in_chans", "img_size", "global_pool") if k in given}
        return Stated(
            (f"timm:{config['architecture']}",),
            _count(config.get("num_classes") or cfg.get("num_classes")),
            _numbers(cfg.get("mean")),
            _numbers(cfg.get("std")),
            _size(cfg.get("input_size")),
            _names(cfg.get("label_names")),
            options,
        )
    if isinstance(config.get("model_type"), str):
        labels = config.get("id2label")
        labels = labels if isinstance(labels, Mapping) else {}
        names = tuple(labels.get(str(i)) for i in range(len(labels)))
        size = preprocessor.get("size", config.get("image_size"))
        if isinstance(size, Mapping):
            size = (size.get("height"), size.get("width"))
            size = size if None not in size else (preprocessor["size"].get("shortest_edge"),) * 2
        size = (size, size) if isinstance(size, int) else size
        size = size if isinstance(size, list | tuple) else ()
        normalised = preprocessor.get("do_normalize", True)
        return Stated(
            (f"transformers:{config['model_type']}",),
            _count(len(labels) or config.get("num_labels")),
            _numbers(preprocessor.get("image_mean")) if normalised else None,
            _numbers(preprocessor.get("image_std")) if normalised else None,
            _size((config.get("num_channels", 3), *size)),
            _names(names),
            config,
        )
    raise InputError("config.json names neither an architecture (timm) nor a model_type")


def _count(value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 2 <= value <= 1_000_000:
        raise InputError(f"the file states {quote(str(value))} classes: expected 2 or more")
    return value


def _numbers(value: object) -> tuple[float, ...] | None:
    if not isinstance(value, list | tuple) or not value:
        return None
    if not all(isinstance(v, int | float) and math.isfinite(v) for v in value):
        raise InputError(f"mean and std must be numbers, the file states {quote(str(value))}")
    return tuple(float(v) for v in value)


def _size(value: object) -> tuple[int, int, int] | None:
    if not isinstance(value, list | tuple) or len(value) != 3:
        return None
    if not all(isinstance(v, int) and 1 <= v <= _MOST_SIDE for v in value):
        raise InputError(f"the file states an input of {quote(str(value))}: expected C, H, W")
    return (value[0], value[1], value[2])


def _names(value: object) -> tuple[str, ...] | None:
    if isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value):
        return tuple(value)
    return None
