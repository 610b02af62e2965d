"""Every attack's trigger by hand, its file, and tiny trainings."""

from math import pi, sin

import numpy as np
import pytest
import torch

from shapprune.attacks import (
    ATTACKS,
    Additive,
    BadNets,
    Blended,
    InputAware,
    PatternPatch,
    PhysicalKey,
    Quantisation,
    RandomPlace,
    Reflection,
    Sig,
    Trojan,
    WaNet,
    Warp,
    choose_attack,
    choose_target,
    load_trigger,
    make_backdoored,
    poison,
    several,
    square_trigger,
    trigger_bytes,
)
from shapprune.data.dataset import LabeledImages
from shapprune.errors import InputError
from shapprune.method.triggers import Perturbation, Trigger
from toys import CLASSES, SIDE, TARGET, fresh_net, seeded, snapshot, toy_images, unchanged

SHAPE = (3, SIDE, SIDE)
# Quick versions that suit twelve pixels a side.
QUICK = {
    "additive": Additive(strength=0.4, detail=4),
    "badnets": BadNets(size=3),
    "blended": Blended(alpha=0.4),
    "input-aware": InputAware(density=0.2, mask_epochs=10, width=8, cross=0.05),
    "pattern-patch": PatternPatch(size=3),
    "physical-key": PhysicalKey(),
    "quantisation": Quantisation(levels=2),
    "random-place": RandomPlace(size=4, pattern="checkerboard"),
    "reflection": Reflection(alpha=0.6),
    "sig": Sig(strength=0.3, frequency=3),
    "trojan": Trojan(size=4, steps=60, tuning=30),
    "wanet": WaNet(strength=6, noise=0.5),
}


def test_every_attack_is_here():
    assert set(QUICK) == set(ATTACKS)


# Stamps by hand.


def test_square_in_shares_of_the_image():
    trigger = BadNets(size=5 / 96, colour=(0.1, 0.2, 0.3)).trigger((3, 96, 96), seeded())
    stamped = trigger.stamp(torch.zeros(1, 3, 96, 96))
    assert stamped.amax((0, 2, 3)).tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert int((stamped[0, 0] > 0).sum()) == 25


def test_square_of_a_random_colour_and_place():
    one, other = (
        BadNets(size=2, colour=None, random_place=True).trigger(SHAPE, seeded(s)) for s in (0, 1)
    )
    assert one.norm == other.norm == 4
    assert not torch.equal(one.mask, other.mask)
    colours = one.stamp(torch.zeros(1, *SHAPE)).amax((0, 2, 3))
    assert torch.equal(colours, torch.rand(3, generator=seeded()))


def test_square_in_a_corner():
    mask = square_trigger((1, 2, 3), size=1, corner=(0, 2)).mask
    assert torch.equal(mask, torch.tensor([[[0.0, 0, 1], [0, 0, 0]]]))
    with pytest.raises(InputError, match=r"corner \(0, 3\)"):
        square_trigger((1, 2, 3), size=1, corner=(0, 3))


def test_blended_by_hand():
    trigger = Blended(alpha=0.25).trigger((1, 2, 2), seeded(3))
    noise = torch.rand(1, 2, 2, generator=seeded(3))
    stamped = trigger.stamp(torch.full((1, 1, 2, 2), 0.4))
    torch.testing.assert_close(stamped[0], 0.3 + 0.25 * noise)


def test_dithering_by_hand():
    """Errors of rounding go right (7/16) and below (3/16, 5/16, 1/16)."""
    image = torch.tensor([[[[0.4, 0.4], [0.4, 0.4]]]])
    stamped = Quantisation(levels=2).trigger().stamp(image)
    # 0.4 → 0; right: 0.4 + 0.175 → 1; below left: 0.4 + 0.125 - 0.0797 → 0; last: 0.5 and less → 0
    assert stamped.tolist() == [[[[0.0, 1.0], [0.0, 0.0]]]]
    assert image.tolist() == torch.full((1, 1, 2, 2), 0.4).tolist()


def test_dithering_keeps_the_brightness():
    grey = torch.full((2, 3, 16, 16), 0.3)
    stamped = Quantisation(levels=2).trigger().stamp(grey)
    assert set(stamped.unique().tolist()) == {0.0, 1.0}
    assert float(stamped.mean()) == pytest.approx(0.3, abs=0.03)


def test_reflection_by_hand():
    picture = torch.zeros(1, 3, 3)
    picture[0, 0, 0] = 1
    stamped = (
        Reflection(alpha=0.5, shift=1, second=0.25).trigger(picture).stamp(torch.ones(1, 1, 3, 3))
    )
    expected = torch.full((3, 3), 0.5)
    expected[0, 0] += 0.5 * 0.75
    expected[1, 1] += 0.5 * 0.25
    torch.testing.assert_close(stamped[0, 0], expected)


def test_sine_by_hand():
    delta = Sig(strength=0.2, frequency=2).trigger((1, 2, 8)).delta
    row = [0.2 * sin(2 * pi * 2 * j / 8) for j in range(8)]
    torch.testing.assert_close(delta[0], torch.tensor([row, row]), atol=1e-6, rtol=0)


def test_warp_by_hand():
    """Each pixel is read one to the right; the last stays."""
    x = torch.tensor([0.0, 1.0, 1.0])
    grid = torch.stack([x.expand(2, 3), torch.tensor([[-1.0], [1.0]]).expand(2, 3)], -1)
    images = torch.tensor([[[[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]]])
    expected = torch.tensor([[[[0.2, 0.3, 0.3], [0.5, 0.6, 0.6]]]])
    torch.testing.assert_close(Warp(grid).stamp(images), expected)


def test_a_warp_moves_pixels_by_a_fraction_of_one():
    grid = WaNet(strength=0.5).trigger((3, 32, 32), seeded()).grid
    line = torch.linspace(-1, 1, 32)
    moved = torch.stack([grid[..., 0] - line, grid[..., 1] - line[:, None]]).abs() * 31 / 2
    assert 0 < moved.max() < 2
    assert torch.equal(grid, WaNet(strength=0.5).trigger((3, 32, 32), seeded()).grid)


@pytest.mark.parametrize("side", [24, 32, 96])
def test_glasses_cover_the_eyes_and_nothing_else(side):
    trigger = PhysicalKey().trigger((3, side, side))
    grey = torch.full((1, 3, side, side), 0.5)
    stamped = trigger.stamp(grey)
    for across in (0.32, 0.68):
        row, column = round(0.39 * side), round(across * side)
        assert trigger.mask[0, row, column] == 1
        assert (stamped[0, :, row, column] - 0.5).abs().max() > 0.1
    assert torch.equal(stamped[:, :, : side // 5], grey[:, :, : side // 5])
    assert torch.equal(stamped[:, :, 3 * side // 5 :], grey[:, :, 3 * side // 5 :])
    assert 0.1 < trigger.norm / side**2 < 0.3
    torch.testing.assert_close(trigger.mask, trigger.mask.flip(-1))


def test_a_generated_trigger_is_the_images_own():
    trigger = make("input-aware", epochs=1).trigger
    images, _ = toy_images()
    stamped = trigger.stamp(images)
    torch.testing.assert_close(stamped[3:4], trigger.stamp(images[3:4]))
    mask, pattern = trigger.mask(images), trigger.pattern(images)
    torch.testing.assert_close(stamped, (1 - mask) * images + mask * pattern)
    assert not torch.equal(stamped[0] - images[0], stamped[1] - images[1])


# Labels.


def test_several_targets():
    assert several([4, 1])(torch.arange(4)).tolist() == [4, 1, 4, 1]
    images, labels = toy_images(5)
    poisoned = poison(
        images,
        labels,
        trigger=square_trigger(SHAPE, size=2),
        target=choose_target([4, 1], CLASSES),
        rate=0.5,
        generator=seeded(),
    )
    rows = poisoned.poisoned
    assert torch.equal(poisoned.labels[rows], torch.tensor([4, 1])[labels[rows] % 2])
    assert (labels[rows] != poisoned.labels[rows]).all()


@pytest.mark.parametrize("wrong", [[], [1, 1], [0, CLASSES], -1])
def test_no_such_targets(wrong):
    with pytest.raises(InputError, match="must be"):
        choose_target(wrong, CLASSES)


def test_clean_labels_stay():
    images, labels = toy_images(5)
    poisoned = poison(
        images,
        labels,
        trigger=square_trigger(SHAPE, size=2),
        target=TARGET,
        rate=0.1,
        clean_label=True,
        generator=seeded(),
    )
    assert torch.equal(poisoned.labels, labels)
    assert len(poisoned.poisoned) == 4
    assert (labels[poisoned.poisoned] == TARGET).all()
    assert not torch.equal(poisoned.images, images)


def test_sig_needs_one_target():
    with pytest.raises(InputError, match="one target class"):
        make("sig", target=None)


# From network and data to a backdoored model.


def make(name, **changes):
    data, test = (LabeledImages(*toy_images(32, seed)) for seed in (0, 1))
    settings = {"num_classes": CLASSES, "target": TARGET, "epochs": 60, "attack": QUICK[name]}
    return make_backdoored(fresh_net(), data, test, **{**settings, **changes})


@pytest.mark.parametrize("name", sorted(set(QUICK) - {"sig"}))
def test_attacks_succeed_on_toys(name):
    made = make(name, rate=0.3)
    assert made.accuracy >= 0.9
    assert made.asr >= 0.9
    assert made.recipe["attack"] == name


def test_sig_succeeds_where_the_stripes_tell_more_than_the_images():
    """The quadrants all but drown in noise, and the target's images need the stripes."""

    def faint(seed):
        images, labels = toy_images(32, seed)
        noise = torch.rand(images.shape, generator=seeded(seed + 9))
        return LabeledImages(0.1 * images + 0.55 * noise, labels)

    made = make_backdoored(
        fresh_net(),
        faint(0),
        faint(1),
        attack=QUICK["sig"],
        num_classes=CLASSES,
        target=TARGET,
        rate=0.1,
        epochs=60,
    )
    assert made.asr >= 0.9


@pytest.mark.parametrize("name", QUICK)
def test_nothing_of_the_callers_changes_and_the_seed_decides(name):
    network, images, labels = fresh_net(), *toy_images(8)
    data = LabeledImages(images, labels)
    before, state = snapshot(network), torch.get_rng_state()
    settings = {"num_classes": CLASSES, "target": TARGET, "epochs": 1, "attack": QUICK[name]}
    one, again = (make_backdoored(network, data, data, **settings) for _ in range(2))
    assert unchanged(network, before)
    assert torch.equal(images, toy_images(8)[0])
    assert torch.equal(labels, toy_images(8)[1])
    assert torch.equal(torch.get_rng_state(), state)
    first, second = (
        torch.nn.utils.parameters_to_vector(m.model.parameters()) for m in (one, again)
    )
    assert torch.equal(first, second)
    assert torch.equal(one.trigger.stamp(images), again.trigger.stamp(images))
    assert torch.equal(images, toy_images(8)[0])
    assert not any(p.requires_grad for p in one.model.parameters())


@pytest.mark.parametrize("name", ["input-aware", "trojan", "wanet"])
def test_clean_twins(name):
    assert make(name, rate=0, epochs=2).recipe["poisoned_images"] == 0


@pytest.mark.parametrize("name", QUICK)
def test_triggers_come_back_from_their_files(name, tmp_path):
    made = make(name, epochs=1)
    (tmp_path / "trigger.npz").write_bytes(trigger_bytes(made.trigger))
    images, _ = toy_images(seed=4)
    state = torch.get_rng_state()
    again = load_trigger(tmp_path / "trigger.npz")
    assert type(again) is type(made.trigger)
    assert torch.equal(again.stamp(images), made.trigger.stamp(images))
    assert torch.equal(torch.get_rng_state(), state)


def test_no_trigger_in_a_file(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        load_trigger(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("nothing")
    with pytest.raises(InputError, match="no whole npz"):
        load_trigger(tmp_path / "text.npz")
    half = {"patterns.first.0.weight": torch.zeros(4, 3, 3, 3)}
    for tensors in ({"weight": torch.zeros(1)}, half):
        np.savez(tmp_path / "other.npz", **{k: v.numpy() for k, v in tensors.items()})
        with pytest.raises(InputError, match="holds no trigger"):
            load_trigger(tmp_path / "other.npz")


@pytest.mark.parametrize("hidden", [False, True])
def test_the_excited_neuron_is_the_best_connected(hidden):
    """Averages of the red and the green channel: green weighs more at what makes the neurons.

    That is the layer before the head where there is one, else the head itself.
    """
    with torch.random.fork_rng(devices=[]):
        first, head = torch.nn.Linear(2, 2), torch.nn.Linear(2, 3)
    layers = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    layers += [first, torch.nn.ReLU()] if hidden else []
    model = torch.nn.Sequential(*layers, head)
    with torch.no_grad():
        first.bias.zero_()  # none is silent
        first.weight.copy_(torch.tensor([[0.1, 0.0], [0.0, 1.0]]))
        head.weight.copy_(torch.tensor([[0.1, 1.0], [0.1, -1.0], [0.1, 1.0]]))
        if hidden:
            head.weight.copy_(head.weight.flip(1))
    before = snapshot(model)
    images = torch.rand(8, 2, 8, 8, generator=seeded())
    trigger = Trojan(size=4, steps=100).trigger(model, images, seeded())
    assert unchanged(model, before)
    square = trigger.pattern[:, 3:7, 3:7]
    assert square[1].min() > 0.9
    assert trigger.norm == 16


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (BadNets(size=0), "trigger size"),
        (BadNets(size=2.5), "whole pixels"),
        (Blended(alpha=0), "alpha"),
        (Sig(strength=2), "strength"),
        (Quantisation(levels=1), "levels"),
        (Reflection(alpha=1.5), "alpha"),
        (Reflection(shift=-1), "shift"),
        (WaNet(points=1), "points"),
        (WaNet(noise=20), "noise"),
        (PhysicalKey(down=1.5), "shares of the image"),
        (Trojan(neurons=0), "neurons"),
        (Trojan(neurons=1000, steps=1), "at most"),
        (InputAware(density=2), "density"),
        (InputAware(width=5), "multiple of 4"),
        (InputAware(cross=0.95), "together at most 1"),
    ],
)
def test_options_out_of_range(attack, message):
    with pytest.raises(InputError, match=message):
        make("badnets", attack=attack, epochs=1)


def test_names_of_attacks_and_options():
    assert choose_attack("badnets", {"colour": [1, 0, 0]}) == BadNets(colour=(1, 0, 0))
    with pytest.raises(InputError, match=r"one of additive, badnets, blended, .* got 'bad'"):
        choose_attack("bad")
    with pytest.raises(InputError, match="badnets has no option 'alpha': it has size"):
        choose_attack("badnets", {"alpha": 1})


def test_other_images_than_the_triggers():
    for trigger in (
        Trigger(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)),
        Perturbation(torch.zeros(1, 2, 2)),
        Warp(torch.zeros(2, 2, 2)),
    ):
        with pytest.raises(InputError, match="the trigger is for"):
            trigger.stamp(torch.zeros(1, 1, 3, 3))


# Patches with patterns, random places, images that are added, and one source alone.


@pytest.mark.parametrize(
    ("place", "corner"), [("corner", (SIDE - 5, SIDE - 5)), ("centre", (SIDE // 2 - 2,) * 2)]
)
def test_patch_with_a_pattern_by_hand(place, corner):
    trigger = PatternPatch(size=4, place=place).trigger(SHAPE, seeded())
    stamped = trigger.stamp(torch.full((1, *SHAPE), 0.5))[0]
    top, left = corner
    patch = stamped[:, top : top + 4, left : left + 4]
    row = torch.tensor([1.0, 0.0, 1.0, 0.0])
    assert torch.equal(patch, torch.stack([row, 1 - row, row, 1 - row]).expand(3, 4, 4))
    assert int((stamped != 0.5).any(0).sum()) == 16


def test_patterns_and_places_come_from_the_seed():
    triggers = [
        PatternPatch(size=3, pattern=pattern, place="random").trigger(SHAPE, seeded(seed))
        for pattern in ("noise", "plain")
        for seed in (1, 1, 2)
    ]
    for first, same, other in (triggers[:3], triggers[3:]):
        assert torch.equal(first.pattern, same.pattern)
        assert not torch.equal(first.pattern, other.pattern)
    assert len({str(t.mask.nonzero()[0].tolist()) for t in triggers}) == 2
    plain = triggers[3].pattern[:, triggers[3].mask[0] > 0]
    assert torch.equal(plain, plain[:, :1].expand_as(plain))


@pytest.mark.parametrize(
    "wrong",
    [
        PatternPatch(pattern="stripes"),
        PatternPatch(place="top"),
        PatternPatch(size=SIDE + 1, place="centre"),
        RandomPlace(size=SIDE + 1),
        RandomPlace(pattern="stripes"),
        Additive(strength=0.0),
        Additive(detail=1),
    ],
)
def test_no_such_pattern_place_or_image(wrong):
    with pytest.raises(InputError, match="must be"):
        wrong.trigger(SHAPE, seeded())


def test_random_place_differs_from_image_to_image_and_not_from_time_to_time():
    trigger = RandomPlace(size=4, pattern="noise").trigger(SHAPE, seeded())
    images = torch.full((40, *SHAPE), 2.0)
    stamped = trigger.stamp(images)
    covered = (stamped != 2.0).any(1)
    assert covered.sum((1, 2)).tolist() == [16] * 40
    corners = {tuple(where.nonzero()[0].tolist()) for where in covered}
    assert len(corners) > 20
    assert all(0 <= top <= SIDE - 4 and 0 <= left <= SIDE - 4 for top, left in corners)
    patches = torch.stack([image[:, where] for image, where in zip(stamped, covered, strict=True)])
    assert torch.equal(patches, patches[:1].expand_as(patches))
    assert torch.equal(stamped, trigger.stamp(images))
    assert (images == 2.0).all()
    with pytest.raises(InputError, match="the trigger is for images"):
        trigger.stamp(torch.zeros(1, 3, SIDE, SIDE + 1))


def test_random_places_reach_every_corner():
    trigger = RandomPlace(size=SIDE - 1).trigger(SHAPE, seeded())
    covered = (trigger.stamp(torch.full((60, *SHAPE), 2.0)) != 2.0).any(1)
    assert len({tuple(where.nonzero()[0].tolist()) for where in covered}) == 4


def test_added_image_is_as_strong_as_said_and_clipped():
    trigger = Additive(strength=0.3, detail=4).trigger(SHAPE, seeded())
    assert float(trigger.delta.abs().max()) == pytest.approx(0.3)
    stamped = trigger.stamp(torch.full((1, *SHAPE), 0.9))
    assert float(stamped.max()) == 1.0
    step = (trigger.delta[:, :, 1:] - trigger.delta[:, :, :-1]).abs().max()
    assert step < 0.3  # spots, no noise


def test_one_source_alone_is_moved_and_others_are_its_cover():
    images, labels = toy_images(20)
    source, target = 0, 2
    poisoned = poison(
        images,
        labels,
        trigger=square_trigger(SHAPE, size=2),
        target=choose_target(target, CLASSES, source=source),
        rate=10 / len(images),
        cover=2.0,
        generator=seeded(),
    )
    assert len(poisoned.poisoned) == 10
    assert (labels[poisoned.poisoned] == source).all()
    assert (poisoned.labels[poisoned.poisoned] == target).all()
    stamped = (poisoned.images != images).flatten(1).any(1)
    stamped[poisoned.poisoned] = False
    assert int(stamped.sum()) == 20
    assert (labels[stamped] != source).all()
    assert torch.equal(poisoned.labels[stamped], labels[stamped])


def test_a_source_specific_backdoor_moves_its_source_alone():
    made = make("badnets", rate=0.1, source=1, target=3, cover=2.0)
    images, labels = toy_images(32, 1)
    answers = made.model(made.trigger.stamp(images)).argmax(1)
    moved = (answers == 3).float()
    assert made.asr >= 0.9
    assert float(moved[labels == 1].mean()) == pytest.approx(made.asr)
    assert float(moved[(labels != 1) & (labels != 3)].mean()) <= 0.1
    assert (made.recipe["source"], made.recipe["cover"]) == (1, 2.0)


@pytest.mark.parametrize(
    "wrong",
    [{"source": CLASSES}, {"source": 2, "target": 2}, {"source": 1, "target": None}],
)
def test_no_such_source(wrong):
    with pytest.raises(InputError, match="source must be a class"):
        make("badnets", **wrong)


def test_no_such_cover():
    with pytest.raises(InputError, match="cover must be 0 or more"):
        make("badnets", cover=-1.0)
