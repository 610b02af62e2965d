"""What timm's and transformers' configurations say of an image's way into the network."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shapprune.data.preprocessing import INTERPOLATIONS, Preprocessing
from shapprune.errors import InputError
from shapprune.utils.text import printable, quote_value

_MOST_SIDE = 4096  # pixels
_LARGEST = 1e30  # of mean and std, which become numbers of float32
# What transformers' processors do where their configuration does not say it, by their names.
# A lone number is the shorter side; with others it is both.
_SHORTER_SIDE = {
    *("Bit", "CLIP", "ConvNext", "Levit", "MobileNetV1", "MobileNetV2", "MobileViT"),
    *("PoolFormer", "Flava", "ChineseCLIP", "TextNet"),
}
_CROPS = {
    *("Bit", "CLIP", "DeiT", "Levit", "MobileNetV1", "MobileNetV2", "MobileViT", "Perceiver"),
    *("PoolFormer", "Flava", "ChineseCLIP"),
}
_BILINEAR = {"", "ViT", "MobileNetV1", "MobileNetV2", "Segformer", "TextNet"}  # others: bicubic
_FOLLOWED = {
    *("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"),
    *("do_flip_channel_order", "do_flip_channels", "do_reduce_labels"),
}


@dataclass(frozen=True)
class Prepared:
    """An image's way into a network.

    Attributes:
        size: (H, W) that the network gets, None where nothing says it.
        spatial: resizing and cropping.
        mean, std: of images in [0, 1], whatever the configuration rescales them to; None where it
            does not normalise and leaves them in [0, 1] without saying so.
        flipped: whether the channels are put in reverse, blue first.
        unfollowed: what else it says, in words.
    """

    size: tuple[int, int] | None = None
    spatial: Preprocessing | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    flipped: bool = False
    unfollowed: tuple[str, ...] = ()


def of_timm(cfg: Mapping[str, Any], *, complete: bool = True) -> Prepared:
    """Of timm's ``pretrained_cfg``, or of the options of its training script.

    Args:
        complete: what is left out is timm's default; else it is not known.
    """
    size = cfg.get("input_size")
    size = size if isinstance(size, list | tuple) and len(size) in (2, 3) else ()
    size = _side(size[-2:]) or _side(cfg.get("img_size"))  # the channels may stand before them
    mean, std = numbers(cfg.get("mean")), numbers(cfg.get("std"))
    share = _given(cfg, "crop_pct", 0.875 if complete else None)
    if size is None or share is None:
        return Prepared(size, None, mean, std)
    if not isinstance(share, int | float) or not 0.1 <= share <= 2:
        raise InputError(f"the file states crop_pct {quote_value(share)}: expected a share")
    unfollowed = []
    mode, name = _given(cfg, "crop_mode", "center"), _given(cfg, "interpolation", "bicubic")
    if not isinstance(mode, str) or mode not in ("center", "squash"):
        unfollowed.append(f"crop_mode {quote_value(mode)} (squash is used)")
        mode = "squash"
    if not isinstance(name, str) or name not in INTERPOLATIONS:
        unfollowed.append(f"interpolation {quote_value(name)} (bicubic is used)")
        name = "bicubic"
    spatial = Preprocessing(
        (_shared(size[0], share), _shared(size[1], share)),
        "cover" if mode == "center" else "exact",
        name,
        size,
    )
    return Prepared(size, spatial, mean, std, unfollowed=tuple(unfollowed))


def of_transformers(cfg: Mapping[str, Any], image_size: object = None) -> Prepared:
    """Of a ``preprocessor_config.json``.

    Args:
        image_size: what the network's own configuration says, where this one does not.
    """
    kind = cfg.get("image_processor_type") or cfg.get("feature_extractor_type")
    kind = kind if isinstance(kind, str) else ""
    kind = re.sub(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$", "", kind)
    flags = [k for k, v in cfg.items() if k.startswith("do_") and v is True and k not in _FOLLOWED]
    unfollowed = [printable(flag, 60) for flag in flags]
    spatial, size = None, None
    if cfg:
        spatial, more = _spatial(cfg, kind)
        unfollowed += more
        size = spatial.crop or (spatial.resize if spatial.fit == "exact" else None)
        if size is None and spatial.resize:  # images keep their proportions: a square is cut
            size = spatial.resize
            unfollowed.append("images of other proportions are cut to a square")
            spatial = Preprocessing(spatial.resize, "cover", spatial.interpolation, size)
    mean, std = _normalisation(cfg, kind)
    if cfg.get("do_normalize") and not (cfg.get("image_mean") and cfg.get("image_std")):
        unfollowed.append("do_normalize without image_mean and image_std (give --mean and --std)")
    usual = kind == "MobileViT"
    flipped = bool(_first(cfg, ("do_flip_channel_order", "do_flip_channels"), usual))
    if flipped and mean and std:
        mean, std = mean[::-1], std[::-1]  # which it applies after the flip, and we before
    return Prepared(size or _side(image_size), spatial, mean, std, flipped, tuple(unfollowed))


def _spatial(cfg: Mapping[str, Any], kind: str) -> tuple[Preprocessing, list[str]]:
    unfollowed: list[str] = []
    resize, fit = _sides(cfg.get("size"), kind) if _first(cfg, ("do_resize",), True) else (None, "")
    crop = _sides(cfg.get("crop_size"), "")[0]
    if not _first(cfg, ("do_center_crop",), kind in _CROPS or (crop is not None and not kind)):
        crop = None
    elif crop is None:
        crop = (256, 256) if kind == "MobileViT" else (224, 224)
    if isinstance(cfg.get("size"), Mapping) and resize is None and cfg.get("do_resize", True):
        unfollowed.append(f"size {quote_value(cfg['size'])}")
    share = cfg.get("crop_pct")
    share = share if isinstance(share, int | float) and 0.1 <= share <= 2 else None
    if resize and kind.startswith("ConvNext") and fit == "cover":
        if resize[0] < 384:
            share = share or 224 / 256
            resize, crop = (_shared(resize[0], share),) * 2, resize
        else:
            fit = "exact"
    elif resize and kind == "PoolFormer":
        share, fit = share or 0.9, "cover"
        resize = (_shared(resize[0], share), _shared(resize[1], share))
    elif resize and kind == "Levit" and fit == "cover":
        resize = (int(256 / 224 * resize[0]),) * 2
    elif kind == "Perceiver" and crop and resize:
        unfollowed.append("a crop before resizing")
        crop = None
    names = list(INTERPOLATIONS)
    number = cfg.get("resample")
    name = "bilinear" if kind in _BILINEAR else "bicubic"
    name = names[number] if isinstance(number, int) and 0 <= number < len(names) else name
    return Preprocessing(resize, "cover" if fit == "cover" else "exact", name, crop), unfollowed


def _normalisation(
    cfg: Mapping[str, Any], kind: str
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and std for images in [0, 1] that together do what rescaling and normalising do."""
    mean, std = numbers(cfg.get("image_mean")), numbers(cfg.get("image_std"))
    if cfg and not _first(cfg, ("do_normalize",), kind != "MobileViT"):
        mean, std = (0.0,), (1.0,)
    factor = cfg.get("rescale_factor")
    factor = 1 / 255 if factor is None else factor
    if cfg.get("do_rescale") is False:
        factor = 1.0
    if not isinstance(factor, int | float) or not 1e-6 <= factor <= 255:
        raise InputError(f"the file states rescale_factor {quote_value(factor)}")
    offset = 1.0 if cfg.get("rescale_offset") is True else 0.0
    scale = 255 * factor if cfg else 1.0
    if mean and std and kind == "EfficientNet" and cfg.get("include_top", True):
        std = tuple(s * s for s in std)  # it divides twice
    if math.isclose(scale, 1, rel_tol=1e-6) and not offset:
        return mean, std
    mean, std = mean or (0.0,), std or (1.0,)
    return tuple((m + offset) / scale for m in mean), tuple(s / scale for s in std)


def _given(cfg: Mapping[str, Any], key: str, default: Any) -> Any:
    """What a configuration says; nothing is said by None, 0 and an empty text."""
    value = cfg.get(key)
    empty = value is None or (isinstance(value, str | int | float) and not value)
    return default if empty else value


def _shared(side: int, share: float) -> int:
    """The side of what is resized before this share of it is cut out."""
    return max(1, math.floor(side / share))


def _first(cfg: Mapping[str, Any], keys: tuple[str, ...], default: bool) -> bool:
    return bool(next((cfg[k] for k in keys if cfg.get(k) is not None), default))


def _sides(value: object, kind: str) -> tuple[tuple[int, int] | None, str]:
    """(H, W) of a size in transformers' ways, and whether it is to be covered or had exactly."""
    if isinstance(value, Mapping):
        if "shortest_edge" in value and "longest_edge" not in value:
            return _side(value["shortest_edge"]), "cover"
        return _side((value.get("height"), value.get("width"))), "exact"
    return _side(value), "cover" if kind in _SHORTER_SIDE and isinstance(value, int) else "exact"


def _side(value: object) -> tuple[int, int] | None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = (value, value)
    if not isinstance(value, list | tuple) or len(value) != 2 or None in value:
        return None
    if not all(isinstance(v, int) and 1 <= v <= _MOST_SIDE for v in value):
        raise InputError(f"the file states an image of {quote_value(value)}: expected H, W")
    return value[0], value[1]


def numbers(value: object) -> tuple[float, ...] | None:
    """One number a channel, None for what is no list.

    Raises:
        InputError: a list of other things.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, list | tuple) or not value:
        return None
    if not all(isinstance(v, int | float) and abs(v) <= _LARGEST for v in value):
        raise InputError(f"mean and std must be numbers, the file states {quote_value(value)}")
    return tuple(float(v) for v in value)
