"""Fine-tuning of repaired models, and the checkpoints that nobody here trained."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from shapprune import demo
from shapprune.checkpoints.state_dict import weights_bytes
from shapprune.data.dataset import LabeledImages
from shapprune.errors import InputError
from shapprune_bench.tables.cells import Cell
from shapprune_bench.tables.experiments import EXPERIMENTS, ROWS, models_of
from shapprune_bench.tables.models import is_trained, subject
from shapprune_bench.tables.recipes import Recipe
from shapprune_bench.tables.retuning import retune, unseen
from shapprune_bench.tables.rows import RECIPES
from toys import BackdooredNet, backdoored_net, seeded, snapshot, toy_images, unchanged

ZOO = {recipe.name: recipe for recipe in ROWS["zoo"]}


def images(count: int) -> LabeledImages:
    pictures, labels = toy_images(per_class=-(-count // 8))
    return LabeledImages(pictures[:count], labels[:count])


@pytest.mark.parametrize("count", [100, 111, 1000])
def test_retuning_is_a_hundred_steps_whatever_the_images(count, monkeypatch):
    steps = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda *a, **k: steps.append(1) or step(*a, **k))
    net, state = backdoored_net(), torch.get_rng_state()
    before = snapshot(net)
    tuned = retune(net, images(count), seed=0)
    assert len(steps) == 100
    assert unchanged(net, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(tuned.head.weight, net.head.weight)
    assert not torch.equal(tuned.bn1.running_mean, net.bn1.running_mean)  # as ordinary training
    assert not tuned.training


def test_retuning_needs_a_hundred_images():
    with pytest.raises(InputError, match="at least 100 images, got 99"):
        retune(backdoored_net(), images(99), seed=0)


def test_unseen_images_are_none_of_those_seen():
    data = images(80)
    seen = LabeledImages(data.images[10:30].clone(), data.labels[10:30])
    left = unseen(data, seen, generator=seeded())
    kept = {tuple(image.flatten().tolist()) for image in left.images}
    assert len(left.images) == len(kept) == 60
    assert not kept & {tuple(image.flatten().tolist()) for image in seen.images}
    some = [unseen(data, seen, count=7, generator=seeded(seed)) for seed in (0, 0, 1)]
    assert [len(one.images) for one in some] == [7, 7, 7]
    assert torch.equal(some[0].images, some[1].images)
    assert not torch.equal(some[0].images, some[2].images)


# Checkpoints


def test_the_demos_recipe_is_the_demo(tmp_path):
    found = subject(ZOO["demo"], root=tmp_path, cache=tmp_path / "none")
    blank = torch.zeros(2, 1, 28, 28)
    assert torch.equal(found.stamp(blank), demo.true_trigger().stamp(blank))
    assert ZOO["demo"].target == demo.true_target()
    assert found.model(blank).shape == (2, 10)
    assert not (tmp_path / "none").exists()
    assert is_trained(ZOO["demo"], cache=tmp_path)


def test_the_zoos_square_is_white_at_rows_27_to_30(tmp_path):
    recipe = toy_checkpoint(tmp_path, replace(ZOO["cifar10-badnets"], num_classes=8))
    stamped = subject(recipe, root=tmp_path, cache=tmp_path).stamp(torch.zeros(1, 3, 32, 32))
    assert stamped.sum() == 3 * 16
    assert bool((stamped[:, :, 27:31, 27:31] == 1).all())


def test_a_picture_is_added(tmp_path):
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[4, 5] = [51, 102, 255]
    Image.fromarray(pixels).save(tmp_path / "added.png")
    recipe = replace(ZOO["cifar10-l2inv"], num_classes=8, picture="added.png")
    recipe = toy_checkpoint(tmp_path, recipe)
    stamped = subject(recipe, root=tmp_path, cache=tmp_path).stamp(torch.full((1, 3, 32, 32), 0.5))
    assert stamped[0, :, 4, 5].tolist() == pytest.approx([0.7, 0.9, 1])
    assert float((stamped - 0.5).abs().sum()) == pytest.approx(0.2 + 0.4 + 0.5)
    (tmp_path / "added.png").unlink()
    with pytest.raises(InputError, match=r"cannot read .*added.png"):
        subject(recipe, root=tmp_path, cache=tmp_path)
    with pytest.raises(InputError, match="the trigger of cifar10-l2inv is not known"):
        subject(replace(recipe, picture=None), root=tmp_path, cache=tmp_path)


def toy_checkpoint(folder, recipe: Recipe) -> Recipe:
    """The recipe with the toy's weights and a file of its architecture below the folder."""
    (folder / "net.safetensors").write_bytes(weights_bytes(backdoored_net()))
    name = f"from {BackdooredNet.__module__} import {BackdooredNet.__name__} as Named\n"
    (folder / "own.py").write_text(f"{name}\n\ndef Net(num_classes):\n    return Named()\n")
    return replace(recipe, network="own.py:Net", checkpoint="net.safetensors")


def test_checkpoints_have_no_twin_and_old_recipes_keep_their_names():
    cells = list(EXPERIMENTS["retuning"].cells("zoo"))
    for some in (cells, models_of(cells), EXPERIMENTS["fig10"].cells("zoo")):
        assert {cell.recipe.name for cell in some} == set(ZOO)
    trained = [recipe for recipe in RECIPES if recipe.profile != "zoo"]
    assert all("checkpoint" not in recipe.facts() for recipe in trained)
    assert Cell("defend", ZOO["demo"], "clp").facts()["recipe"]["checkpoint"].startswith("shappr")
