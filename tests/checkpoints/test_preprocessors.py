"""What configurations say of an image's way into the network, and that it goes that way."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from shapprune.checkpoints.preprocessors import of_timm, of_transformers
from shapprune.data.preprocessing import Preprocessing, prepare
from shapprune.errors import InputError

SQUARE = {"height": 40, "width": 40}


def given(**more: object) -> dict[str, object]:
    """As transformers writes a ViT's, with changes."""
    base = {"image_processor_type": "ViTImageProcessor", "do_resize": True, "size": SQUARE,
            "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "resample": 2,
            "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.5]}  # fmt: skip
    return {**base, **more}


def seen(cfg: dict[str, object]) -> torch.Tensor:
    """What a network gets of pixels of level 51, by the mean and std read from a configuration."""
    prepared = of_transformers(cfg)
    mean = torch.tensor(prepared.mean or (0.0,))
    return (51 / 255 - mean) / torch.tensor(prepared.std or (1.0,))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, [(0.2 - 0.5) / 0.2, (0.2 - 0.4) / 0.25, (0.2 - 0.3) / 0.5]),
        ({"rescale_factor": 1 / 127.5}, [(0.4 - 0.5) / 0.2, 0.0, (0.4 - 0.3) / 0.5]),
        ({"do_rescale": False}, [(51 - 0.5) / 0.2, (51 - 0.4) / 0.25, (51 - 0.3) / 0.5]),
        ({"do_normalize": False}, [0.2]),
        ({"do_normalize": False, "rescale_factor": 1 / 127.5}, [0.4]),
        ({"do_normalize": False, "do_rescale": False}, [51.0]),
        ({"image_processor_type": "MobileViTImageProcessor", "do_normalize": None}, [0.2]),
        (
            {"image_processor_type": "EfficientNetImageProcessor", "rescale_offset": True,
             "rescale_factor": 1 / 127.5, "include_top": False, "image_std": [1, 1, 1]},
            [-0.6 - 0.5, -0.6 - 0.4, -0.6 - 0.3],
        ),
        (
            {"image_processor_type": "EfficientNetImageProcessor", "include_top": True},
            [-0.3 / 0.2**2, -0.2 / 0.25**2, -0.1 / 0.5**2],
        ),
    ],
)  # fmt: skip
def test_rescaling_and_normalising(more, expected):
    assert seen(given(**more)).tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("more", "resize", "fit", "crop"),
    [
        ({}, (40, 40), "exact", None),
        ({"size": 40}, (40, 40), "exact", None),
        ({"do_resize": False}, None, "exact", None),
        ({"crop_size": {"height": 32, "width": 24}, "do_center_crop": True}, (40, 40), "exact",
         (32, 24)),
        ({"crop_size": 32, "do_center_crop": False}, (40, 40), "exact", None),
        ({"image_processor_type": "DeiTFeatureExtractor", "crop_size": 32}, (40, 40), "exact",
         (32, 32)),
        ({"image_processor_type": "DeiTImageProcessorFast"}, (40, 40), "exact", (224, 224)),
        ({"size": {"shortest_edge": 40}, "crop_size": 32, "do_center_crop": True}, (40, 40),
         "cover", (32, 32)),
        ({"image_processor_type": "CLIPImageProcessor", "size": 40, "crop_size": 32}, (40, 40),
         "cover", (32, 32)),
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}},
         (256, 256), "cover", (224, 224)),
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}},
         (384, 384), "exact", None),
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224},
          "crop_pct": 0.95}, (235, 235), "cover", (224, 224)),
        ({"image_processor_type": "PoolFormerImageProcessor", "size": {"shortest_edge": 224},
          "crop_size": 224}, (248, 248), "cover", (224, 224)),
        ({"image_processor_type": "LevitImageProcessor", "size": {"shortest_edge": 224},
          "crop_size": 224}, (256, 256), "cover", (224, 224)),
    ],
)  # fmt: skip
def test_resizing_and_cropping(more, resize, fit, crop):
    prepared = of_transformers(given(**more))
    assert prepared.spatial == Preprocessing(resize, fit, "bilinear", crop)
    assert prepared.size == (crop or resize)
    assert not prepared.unfollowed


def test_channels_blue_first():
    prepared = of_transformers(given(do_flip_channel_order=True))
    assert prepared.flipped
    assert prepared.mean == (0.3, 0.4, 0.5), "which are meant for the channels after the flip"
    assert of_transformers({"feature_extractor_type": "MobileViTFeatureExtractor"}).flipped
    assert not of_transformers(given(do_flip_channel_order=False)).flipped


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"do_pad": True}, "do_pad"),
        ({"size": {"longest_edge": 40}}, "size"),
        ({"do_thumbnail": True, "do_reduce_labels": True}, "do_thumbnail"),
        ({"image_mean": None}, "do_normalize without image_mean"),
        ({"image_processor_type": "PerceiverImageProcessor", "crop_size": 40}, "a crop before"),
        ({"size": {"shortest_edge": 40}}, "cut to a square"),
    ],
)
def test_what_is_not_followed_is_told(more, told):
    (said,) = of_transformers(given(**more)).unfollowed
    assert told in said


def test_timm():
    cfg = {"input_size": [3, 224, 224], "crop_pct": 0.95, "interpolation": "bicubic",
           "mean": [0.5] * 3, "std": [0.5] * 3}  # fmt: skip
    assert of_timm(cfg).spatial == Preprocessing((235, 235), "cover", "bicubic", (224, 224))
    squashed = of_timm({**cfg, "crop_mode": "squash", "crop_pct": 1.0, "interpolation": "bilinear"})
    assert squashed.spatial == Preprocessing((224, 224), "exact", "bilinear", (224, 224))
    usual = of_timm({"input_size": [3, 224, 224]}).spatial
    assert usual == Preprocessing((256, 256), "cover", "bicubic", (224, 224))
    odd = of_timm({**cfg, "crop_mode": "border", "interpolation": "random"}).unfollowed
    assert "crop_mode 'border'" in odd[0]
    assert "interpolation 'random'" in odd[1]
    assert of_timm({"img_size": 64}, complete=False).spatial is None


def test_what_is_not_of_the_kind_that_was_expected_is_told_or_left():
    cfg = {"input_size": [3, 32, 32], "crop_mode": {}, "interpolation": ["bicubic"]}
    assert of_timm(cfg).spatial == Preprocessing((36, 36), "exact", "bicubic", (32, 32))
    assert len(of_timm(cfg).unfollowed) == 2
    timm_default = of_timm({"input_size": [3, 32, 32], "interpolation": ""})
    assert timm_default.spatial == Preprocessing((36, 36), "cover", "bicubic", (32, 32))
    assert of_timm({"input_size": [3, 1, 1], "crop_pct": 2}).spatial.resize == (1, 1)
    assert of_transformers(given(image_processor_type=10**5000)).size == (40, 40)


@pytest.mark.parametrize(
    "more", [{"size": {"height": 0, "width": 4}}, {"size": 1 << 40}, {"image_mean": ["a"]},
             {"rescale_factor": "x"}, {"rescale_factor": -1}, {"rescale_factor": float("nan")},
             {"rescale_factor": 5e-324}, {"image_mean": [10**400]}, {"size": [10**5000] * 2}]
)  # fmt: skip
def test_lies_are_refused(more):
    with pytest.raises(InputError, match="states"):
        of_transformers(given(**more))


@pytest.mark.parametrize("number", range(6))
def test_resizes_as_pillow_does(number):
    names = ["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    theirs = (
        Image.fromarray(pixels).resize((66, 40), Image.Resampling(number)).crop((17, 4, 49, 36))
    )
    how = Preprocessing((40, 40), "cover", names[number], (32, 32))
    changes: Counter[str] = Counter()
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    ours = prepare(images, how, changes)
    expected = torch.from_numpy(np.asarray(theirs)).permute(2, 0, 1)[None].float() / 255
    assert (ours - expected).abs().max() < 1e-6
    assert list(changes) == [
        f"resized to 40x40 or more ({names[number]}) and cropped to 32x32, as the source states"
    ]


def test_a_crop_of_small_images_is_black_outside():
    cropped = prepare(torch.ones(1, 1, 2, 4), Preprocessing(crop=(4, 2)), Counter())
    assert cropped[0, 0].tolist() == [[0, 0], [1, 1], [1, 1], [0, 0]]


# Against the libraries themselves


class Seeing(nn.Module):
    """Keeps what it was given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x
        return x.mean((2, 3))


PROCESSORS = {
    "ViTImageProcessor": {"size": SQUARE},
    "DeiTImageProcessor": {"size": SQUARE, "crop_size": {"height": 32, "width": 32}},
    "CLIPImageProcessor": {"size": {"shortest_edge": 40}, "crop_size": 32},
    "ConvNextImageProcessor": {"size": {"shortest_edge": 32}},
    "LevitImageProcessor": {"size": {"shortest_edge": 32}, "crop_size": 32},
    "PoolFormerImageProcessor": {"size": {"shortest_edge": 36}, "crop_size": 32},
    "MobileViTImageProcessor": {"size": {"shortest_edge": 40}, "crop_size": 32},
    "MobileNetV2ImageProcessor": {"size": {"shortest_edge": 40}, "crop_size": 32},
    "EfficientNetImageProcessor": {"size": SQUARE, "rescale_offset": True,
                                   "rescale_factor": 1 / 127.5},
    "BitImageProcessor": {"size": {"shortest_edge": 40}, "crop_size": 32, "rescale_factor": 0.01},
}  # fmt: skip


@pytest.mark.parametrize("name", PROCESSORS)
def test_as_transformers_does_it(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs = getattr(transformers, name)(**PROCESSORS[name])
    theirs.save_pretrained(tmp_path)
    cfg = json.loads((tmp_path / "preprocessor_config.json").read_text())
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    expected = theirs(Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
    prepared = of_transformers(cfg)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    ours = prepare(images, prepared.spatial, Counter())
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (prepared.mean, prepared.std))
    got = (ours - mean) / std
    got = got.flip(1) if prepared.flipped else got
    assert got.shape == expected.shape
    assert prepared.size == tuple(expected.shape[2:])
    # Where torchvision is installed, theirs resizes with it, which rounds some pixels otherwise.
    levels = (got - expected).abs() * (std.flip(1) if prepared.flipped else std) * 255
    assert levels.max() < 1.01
    assert (levels > 0.01).float().mean() < 0.1


@pytest.mark.parametrize("mode", ["center", "squash"])
def test_as_timm_does_it(mode):
    data = pytest.importorskip("timm.data")
    cfg = {"input_size": (3, 32, 32), "crop_pct": 0.8, "crop_mode": mode, "mean": (0.5, 0.4, 0.3),
           "std": (0.2, 0.3, 0.4), "interpolation": "bicubic"}  # fmt: skip
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    expected = data.create_transform(**cfg)(Image.fromarray(pixels))[None]
    prepared = of_timm(cfg)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (prepared.mean, prepared.std))
    got = (prepare(images, prepared.spatial, Counter()) - mean) / std
    assert got.shape == expected.shape
    assert (got - expected).abs().max() < 1e-5
