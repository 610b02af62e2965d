"""Variations of images: what they may change, and by how much."""

from math import cos, sin

import pytest
import torch
from torch import nn

from shapprune.data.augmentation import augment, flip_allowed, mix, warp
from toys import backdoored_net, seeded, toy_images


def images(n: int = 16) -> torch.Tensor:
    return torch.rand(n, 3, 12, 10, generator=seeded(5))


def still(batch: torch.Tensor, **options) -> torch.Tensor:
    """Augmented by what the options say, and nothing else."""
    return augment(batch, **{"generator": seeded(), "shift": 0.0, "colour": 0.0, **options})


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("colour", [0.2, 2.0])
def test_augmented_images_are_images(flip, colour):
    varied = augment(images(), generator=seeded(), flip=flip, colour=colour, shift=0.3)
    assert varied.shape == images().shape
    assert varied.dtype == torch.float32
    assert varied.is_contiguous()
    assert float(varied.min()) >= 0
    assert float(varied.max()) <= 1


def test_the_generator_decides():
    once, again = (augment(images(), generator=seeded(1), flip=True) for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, augment(images(), generator=seeded(2), flip=True))
    generator = seeded(1)
    assert torch.equal(augment(images(), generator=generator, flip=True), once)
    assert not torch.equal(augment(images(), generator=generator, flip=True), once)


def test_every_image_is_varied_on_its_own():
    same = images(1).expand(8, -1, -1, -1)
    varied = augment(same, generator=seeded())
    assert len(varied.flatten(1).unique(dim=0)) == 8


def test_nothing_asked_nothing_done():
    assert torch.allclose(still(images()), images(), atol=1e-6)


def test_every_other_image_is_mirrored():
    batch = images(64)
    varied = still(batch, flip=True)
    same = (varied - batch).abs().amax((1, 2, 3)) < 1e-6
    mirrored = (varied - batch.flip(-1)).abs().amax((1, 2, 3)) < 1e-6
    assert bool((same ^ mirrored).all())
    assert 16 < int(mirrored.sum()) < 48


def test_shifts_reach_and_do_not_pass_the_limit():
    """A white pixel in the middle moves by up to 0.25 of 12 rows and of 10 columns."""
    batch = torch.zeros(200, 1, 12, 10)
    batch[:, :, 6, 5] = 1
    where = still(batch, shift=0.25).nonzero()[:, 2:]
    assert len(where) == 200
    assert set((where[:, 0] - 6).tolist()) == {-3, -2, -1, 0, 1, 2, 3}
    assert set((where[:, 1] - 5).tolist()) == {-2, -1, 0, 1, 2}


def test_shifts_repeat_the_border():
    rows = torch.linspace(0, 1, 12)[:, None].expand(12, 10)
    varied = still(rows.expand(20, 1, 12, 10), shift=0.25)
    assert torch.equal(varied, varied[..., :1].expand_as(varied))  # columns are alike
    steps = varied[:, 0, 1:, 0] - varied[:, 0, :-1, 0]
    assert bool((steps > -1e-6).all())  # nothing wraps round


def test_colours_stay_near():
    """A flat image keeps its mean but for the brightness, by a tenth at most a channel."""
    flat = torch.full((100, 3, 4, 4), 0.5)
    varied = still(flat, colour=0.2)
    assert torch.allclose(varied, varied[..., :1, :1].expand_as(varied), atol=1e-6)
    change = (varied - flat)[..., 0, 0]
    assert 0.09 < float(change.abs().max()) <= 0.1 + 1e-6
    assert float((change[:, 0] - change[:, 1]).abs().max()) > 0.05  # each channel on its own


def test_mixtures_lie_between():
    a, b = images(200), images(200).flip(0)
    mixed = mix(a, b, generator=seeded(), share=1.0)
    assert bool((mixed >= torch.minimum(a, b) - 1e-6).all())
    assert bool((mixed <= torch.maximum(a, b) + 1e-6).all())
    assert torch.equal(mixed, mix(a, b, generator=seeded(), share=1.0))


def test_a_share_is_mixed():
    a, b = torch.zeros(400, 1, 8, 8), torch.ones(400, 1, 8, 8)
    assert torch.equal(mix(a, b, generator=seeded(), share=0.0), a)
    mixed = mix(a, b, generator=seeded(), share=0.5).flatten(1)
    pure = (mixed == 0).all(1).float().mean()
    blended = ((mixed > 0) & (mixed < 1)).any(1).float().mean()
    pasted = 1 - pure - blended
    assert 0.45 < float(pure) < 0.65  # some pasted rectangles miss the image
    assert 0.18 < float(blended) < 0.32
    assert 0.12 < float(pasted) < 0.32


def test_flips_where_the_model_answers_as_before():
    batch, _ = toy_images()
    assert not flip_allowed(backdoored_net(), batch)  # left and right are classes
    colours = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert flip_allowed(colours, batch)


def fixed(monkeypatch, *draws: float) -> None:
    """Every share that is drawn next, in order."""
    left = list(draws)
    monkeypatch.setattr(torch, "rand", lambda n, **_: torch.full((n,), left.pop(0)))


STILL = (0.5, 4 / 7, 0.5, 0.5, 0.5)  # of angle, zoom, aspect, across, down: no change


def test_a_warp_of_nothing_changes_nothing(monkeypatch):
    batch = images()
    fixed(monkeypatch, *STILL)
    torch.testing.assert_close(warp(batch, generator=seeded()), batch)


def ramp() -> torch.Tensor:
    """On a square, the horizontal place of each pixel's centre, in [-1, 1] from edge to edge."""
    return ((torch.arange(20.0) + 0.5) / 10 - 1).expand(1, 1, 20, 20)


@pytest.mark.parametrize(
    ("place", "draw", "across", "down"),  # how far the ramp climbs a step to the right and down
    [
        (0, 1.0, cos(0.44), -sin(0.44)),  # 25°
        (0, 0.0, cos(0.44), sin(0.44)),
        (1, 0.0, 0.6, 0.0),  # a part of the image, enlarged
        (2, 1.0, 1.2, 0.0),  # the width alone by this way, the height by the other
    ],
)
def test_a_warp_goes_as_far_as_it_says(monkeypatch, place, draw, across, down):
    draws = [*STILL]
    draws[place] = draw
    fixed(monkeypatch, *draws)
    warped = warp(ramp(), generator=seeded())[0, 0]
    middle = warped[7:13, 7:13]  # nothing from behind the border is there
    assert float(middle.mean()) == pytest.approx(0, abs=1e-6)
    assert float(middle.diff(dim=1).mean()) == pytest.approx(across / 10, abs=1e-5)
    assert float(middle.diff(dim=0).mean()) == pytest.approx(down / 10, abs=1e-5)


def test_what_is_enlarged_is_moved_within_the_image(monkeypatch):
    """By 0.3 of what lies outside of it: at a zoom of 0.6, 0.12 of half of the image."""
    fixed(monkeypatch, 0.5, 0.0, 0.5, 1.0, 0.5)
    middle = warp(ramp(), generator=seeded())[0, 0, 7:13, 7:13]
    assert float(middle.mean()) == pytest.approx(0.3 * 0.4, abs=1e-5)


def test_every_image_is_warped_on_its_own():
    same = images(1).expand(8, -1, -1, -1)
    warped = warp(same, generator=seeded())
    assert warped.shape == same.shape
    assert len(warped.flatten(1).unique(dim=0)) == 8
    assert 0 <= float(warped.min()) < float(warped.max()) <= 1
    assert torch.equal(warped, warp(same, generator=seeded()))
