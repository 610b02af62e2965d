"""What a source of weights says of its network: training scripts' files, timm's, transformers'."""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shapprune.checkpoints.preprocessors import Prepared, of_timm, of_transformers
from shapprune.data.preprocessing import Preprocessing
from shapprune.errors import InputError
from shapprune.utils.text import quote_value

_BUILT_IN = ("preactresnet18", "preactresnet34", "resnet18", "resnet34")
_MOST_SIDE = 2048  # pixels
# Where training scripts keep their options, and what they call what we look for there.
_OPTION_KEYS = ("args", "hyper_parameters", "hparams", "cfg", "config", "opt", "meta", "kwargs")
_ARCH_KEYS = (
    *("arch", "architecture", "model_name", "arch_name", "model_type", "model", "backbone"),
    *("net", "network", "encoder", "name", "type"),
)
_COUNT_KEYS = ("num_classes", "nb_classes", "n_classes", "classes_num", "num_labels")
_NAME_KEYS = ("class_names", "classes", "class_to_idx", "idx_to_class", "CLASSES", "label_names")
_IMAGE_KEYS = ("input_size", "img_size", "mean", "std", "crop_pct", "crop_mode", "interpolation")
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
        preprocessing: how images are resized and cropped.
        flipped: whether the network takes the channels in reverse, blue first.
        unfollowed: what is stated of images and not followed, in words.
    """

    archs: tuple[str, ...] = ()
    num_classes: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_size: tuple[int, int, int] | None = None
    class_names: tuple[str, ...] | None = None
    options: Mapping[str, Any] | None = None
    preprocessing: Preprocessing | None = None
    flipped: bool = False
    unfollowed: tuple[str, ...] = ()

    def preprocessing_for(self, size: Sequence[int] | None) -> Preprocessing | None:
        """What is stated, unless images of another size (C, H, W) are wanted."""
        fits = size is None or tuple(size) == self.input_size
        return self.preprocessing if fits else None

    def image_notes(self, size: Sequence[int] | None) -> tuple[str, ...]:
        """What is not followed of what is stated for images, given the size that is wanted."""
        notes = []
        if self.preprocessing and not self.preprocessing_for(size):
            notes.append(
                "warning: the source states another input size, and how images are resized and "
                "cropped to it: that is not followed"
            )
        if self.unfollowed:
            notes.append(
                f"warning: stated for images and not followed: {'; '.join(self.unfollowed)}"
            )
        if self.flipped:
            notes.append("the network gets the channels blue first, as the source states")
        return tuple(notes)


def stated_in_checkpoint(content: object) -> Stated:
    """What training scripts write beside the weights, BackdoorBench's among them.

    A name of an architecture is taken for one of torchvision's or timm's and never for code.
    """
    if not isinstance(content, Mapping):
        return Stated()
    if isinstance(content.get("model_name"), str) and "clean_data" in content:
        return _backdoorbench(content)
    options = _options(content)
    name = next((o[k] for k in _ARCH_KEYS for o in options if _is_name(o.get(k))), None)
    archs: tuple[str, ...] = ()
    if name:
        own = (f"shapprune.networks.cifar:{name.lower()}",) if name.lower() in _BUILT_IN else ()
        archs = (*own, f"torchvision:{name}", f"timm:{name}")
    classes = next((o[k] for k in _COUNT_KEYS for o in options if _is_count(o.get(k))), None)
    names = next((n for o in options for k in _NAME_KEYS if (n := _class_names(o.get(k)))), None)
    cfg = {k: o[k] for o in reversed(options) for k in _IMAGE_KEYS if o.get(k) is not None}
    image = of_timm(cfg, complete=False)
    channels = len(image.mean) if image.mean and len(image.mean) in (1, 3) else 3
    size = cfg.get("input_size")
    channels = size[0] if isinstance(size, list | tuple) and len(size) == 3 else channels
    return Stated(
        archs,
        classes,
        image.mean if image.std else None,
        image.std if image.mean else None,
        _size((channels, *image.size)) if image.size else None,
        names,
        None,
        image.spatial,
        unfollowed=image.unfollowed,
    )


def _backdoorbench(content: Mapping[str, Any]) -> Stated:
    """BackdoorBench's ``attack_result.pt`` and ``defense_result.pt``."""
    name = content["model_name"].lower()
    # Its resnet18 is torchvision's, that of its forks the CIFAR kind.
    own = (f"shapprune.networks.cifar:{name}",) if name in _BUILT_IN else ()
    data = content["clean_data"]
    mean, std = _BACKDOORBENCH.get(data if isinstance(data, str) else "", (None, None))
    size = content.get("img_size")  # height, width, channels
    size = size if isinstance(size, list | tuple) else ()
    return Stated(
        (*own, f"torchvision:{name}"),
        _count(content.get("num_classes")),
        mean,
        std,
        _size((*size[2:], *size[:2])),
    )


def _options(content: Mapping[Any, Any]) -> list[Mapping[Any, Any]]:
    """A checkpoint's own entries, then those of its options, then of the model in these."""
    found = [content, *(_as_mapping(content.get(key)) for key in _OPTION_KEYS)]
    found += [_as_mapping(o.get(key)) for o in found[1:] for key in ("model", "arch", "data")]
    return [options for options in found if options]


def _as_mapping(value: object) -> Mapping[Any, Any]:
    if isinstance(value, argparse.Namespace):
        return vars(value)
    return value if isinstance(value, Mapping) else {}


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[A-Za-z]\w*([.-]\w+)*", value))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 2 <= value <= 1_000_000


def _class_names(value: object) -> tuple[str, ...] | None:
    """Of a list of names, or of names with their numbers, either way round."""
    if isinstance(value, Mapping) and value:
        pairs = [(n, c) if isinstance(n, int) else (c, n) for n, c in value.items()]
        if all(isinstance(number, int) for number, _ in pairs):
            numbered = dict(pairs)
            value = [numbered.get(i) for i in range(len(pairs))]
    return _names(value)


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
        size = cfg.get("input_size")
        return _with_image(
            Stated(
                (f"timm:{config['architecture']}",),
                _count(config.get("num_classes") or cfg.get("num_classes")),
                input_size=_size(size),
                class_names=_names(cfg.get("label_names")),
                options=options,
            ),
            of_timm(cfg),
        )
    if isinstance(config.get("model_type"), str):
        labels = config.get("id2label")
        labels = labels if isinstance(labels, Mapping) else {}
        image = of_transformers(preprocessor, config.get("image_size"))
        return _with_image(
            Stated(
                (f"transformers:{config['model_type']}",),
                _count(len(labels) or config.get("num_labels")),
                input_size=_size((config.get("num_channels", 3), *(image.size or ()))),
                class_names=_names(tuple(labels.get(str(i)) for i in range(len(labels)))),
                options=config,
            ),
            image,
        )
    raise InputError("config.json names neither an architecture (timm) nor a model_type")


def _with_image(stated: Stated, image: Prepared) -> Stated:
    return replace(
        stated,
        mean=image.mean,
        std=image.std,
        preprocessing=image.spatial,
        flipped=image.flipped,
        unfollowed=image.unfollowed,
    )


def _count(value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 2 <= value <= 1_000_000:
        raise InputError(f"the file states {quote_value(value)} classes: expected 2 or more")
    return value


def _size(value: object) -> tuple[int, int, int] | None:
    if not isinstance(value, list | tuple) or len(value) != 3:
        return None
    if not all(isinstance(v, int) and 1 <= v <= _MOST_SIDE for v in value):
        raise InputError(f"the file states an input of {quote_value(value)}: expected C, H, W")
    return (value[0], value[1], value[2])


def _names(value: object) -> tuple[str, ...] | None:
    if isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value):
        return tuple(value)
    return None
