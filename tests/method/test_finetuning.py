"""Fine-tuning on the toy, whose one backdoor neuron is known."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from shapprune.errors import InputError
from shapprune.method.case import Case, check_case
from shapprune.method.finetuning import Pool, StampStack, _reads, distillation_pool, fine_tune
from shapprune.method.settings import PoolSettings, TuningSettings
from shapprune.method.triggers import Perturbation, Trigger, all_to_one
from shapprune.model.masking import remove_neurons
from shapprune.model.metrics import accuracy, attack_success_rate
from shapprune.model.neurons import find_neurons
from toys import (
    BACKDOOR,
    CLASSES,
    TARGET,
    backdoor_neuron,
    backdoored_net,
    seeded,
    toy_images,
    true_trigger,
)

IMAGES, LABELS = toy_images()  # the defender's
UNSEEN = toy_images(per_class=10, seed=1)
MAPS = [all_to_one(TARGET, CLASSES)]
FEW = TuningSettings(most=8, batch_size=16)
FAST = TuningSettings(most=60, least=60, batch_size=16, learning_rate=1e-2)


def true_asr(model: nn.Module) -> float:
    return attack_success_rate(model, *UNSEEN, stamp=true_trigger().stamp, target=TARGET)


def pool_of(case: Case, maps=MAPS, **options) -> Pool:
    return distillation_pool(
        case, maps, settings=PoolSettings(images=256, **options), generator=seeded()
    )


@pytest.fixture(scope="module")
def case():
    return check_case(backdoored_net(), IMAGES, LABELS)


@pytest.fixture(scope="module")
def neurons(case):
    return find_neurons(case.model, IMAGES)


@pytest.fixture(scope="module")
def pool(case):
    return pool_of(case)


def tuned(case, pool, neurons, pruned, **options):
    options = {"settings": FEW, "generator": seeded(), **options}
    return fine_tune(case.model, pool, neurons=neurons, pruned=pruned, **options)


# The pool


class Windowed(nn.Module):
    """An image becomes four rows of a layer, as in Swin; tokens come first, as in many
    transformers; or a layer is called by keyword."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.inner = nn.Linear(8, 8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, images):
        tokens = self.conv(images).relu().flatten(2).transpose(1, 2)  # (n, H W, 8)
        if self.way == "windows":
            seen = self.inner(tokens.reshape(4 * len(images), -1, 8)).reshape(tokens.shape)
        elif self.way == "tokens first":
            seen = self.inner(tokens.transpose(0, 1)).transpose(0, 1)
        else:
            seen = self.inner(input=tokens)
        return self.head(seen.relu().mean(1))


@pytest.mark.parametrize("way", ["windows", "tokens first", "by keyword"])
def test_a_layer_that_does_not_read_a_row_an_image_is_tuned_all_the_same(way):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Windowed(way).eval()
    few = Case(net, IMAGES, LABELS, CLASSES, True)
    made = pool_of(few, least=64)
    assert [len(reads) for reads in made.reads] == [len(made.images)] * 2
    # A row of each read is of one image alone.
    _, reads = _reads(net, made.images[:3], made.dimensions)
    for of_all, of_pool in zip(reads, made.reads, strict=True):
        torch.testing.assert_close(of_all, of_pool[:3])
    student = tuned(few, made, find_neurons(net, IMAGES), ())
    assert any((a != b).any() for a, b in zip(student.parameters(), net.parameters(), strict=True))


def test_the_pool_holds_what_the_teacher_says(case, pool):
    assert 0 <= float(pool.images.min()) <= float(pool.images.max()) <= 1
    assert 200 < len(pool.images) <= 256
    with torch.no_grad():
        torch.testing.assert_close(pool.logits, case.model(pool.images), rtol=1e-4, atol=1e-4)
    assert [len(reads) for reads in pool.reads] == [len(pool.images)] * 2  # conv2 and the head


def test_the_pool_fits_its_memory(case):
    each = 4 * (8 * 12 * 12 + 32)  # bytes of what conv2 and the head read
    small = pool_of(case, maps=(), least=8, memory=20 * each)
    assert len(small.images) == 20
    assert len(pool_of(case, maps=(), least=64, memory=1).images) == 64


def test_what_the_teacher_sends_to_the_target_is_left_out(case):
    """Half of the images carry the trigger."""
    images = torch.cat([IMAGES, true_trigger().stamp(IMAGES)])
    carrying = replace(case, images=images, labels=LABELS.repeat(2))

    def share(maps) -> float:
        found = pool_of(carrying, maps, warped=0, bent=0).logits.argmax(1)
        return float((found == TARGET).float().mean())

    assert share(()) > 0.3
    assert share(MAPS) < 0.2  # the target's own are left


# Stamping


def test_stamping_a_batch_is_stamping_each_image():
    batch = toy_images(per_class=8)[0]
    stamps = [true_trigger(), Perturbation(torch.full((3, 12, 12), 0.1))]
    marked = StampStack.of(stamps).stamp(batch, 1.0, generator=seeded())
    each = [
        any(torch.allclose(row, stamp.stamp(image[None])[0]) for stamp in stamps)
        for image, row in zip(batch, marked, strict=True)
    ]
    assert all(each)
    by = [
        torch.allclose(r, true_trigger().stamp(i[None])[0])
        for i, r in zip(batch, marked, strict=True)
    ]
    assert 0 < sum(by) < len(by)


def test_patches_grow_and_opaque_squares_do_not():
    faint = true_trigger().scaled(0.5)
    stack = StampStack.of([faint], growth=2)
    assert [int((mask > 0).sum()) for mask in stack.masks] == [4, 16, 25]  # it is near the border
    opaque = StampStack.of([true_trigger()], growth=2)
    assert [int((mask > 0).sum()) for mask in opaque.masks] == [4, 4, 4]


def test_strength():
    """A mask of a tenth becomes one to four tenths."""
    mask = torch.full((1, 2, 2), 0.1)
    stack = StampStack.of([Trigger(mask, torch.ones(1, 2, 2))])
    marked = stack.stamp(torch.zeros(200, 1, 2, 2), 4.0, generator=seeded())
    assert 0.1 <= float(marked.min()) < 0.12
    assert 0.38 < float(marked.max()) <= 0.4 + 1e-6


# Tuning


@pytest.mark.parametrize("stamps", [[], [true_trigger()]])
@pytest.mark.parametrize("first", [BACKDOOR, 7])
def test_removed_neurons_end_at_zero_and_statistics_stay(case, pool, neurons, stamps, first):
    pruned = (first, 1, 10)
    repaired = tuned(case, pool, neurons, pruned, stamps=stamps)
    for neuron in pruned:
        name, channel = neurons.locate(neuron)
        for parameter in repaired.get_submodule(name).parameters():
            assert float(parameter[channel]) == 0
    before, after = case.model.state_dict(), repaired.state_dict()
    assert {k: v.shape for k, v in before.items()} == {k: v.shape for k, v in after.items()}
    buffers = [name for name, _ in case.model.named_buffers()]
    assert len(buffers) == 6
    assert all(torch.equal(before[name], after[name]) for name in buffers)
    assert not torch.equal(before["head.weight"], after["head.weight"])  # it did learn


def test_the_copy_is_no_alias(case, pool, neurons):
    repaired = tuned(case, pool, neurons, (backdoor_neuron(),))
    pointers = [
        {tensor.data_ptr() for tensor in model.state_dict().values()}
        for model in (case.model, repaired)
    ]
    assert not pointers[0] & pointers[1]


def test_distillation_brings_accuracy_back(case, pool, neurons):
    """Without triggers: all that sees green is gone, and what sees grey learns to do its work."""
    pruned = (backdoor_neuron(), 2, 3, 10)
    assert accuracy(remove_neurons(case.model, neurons, pruned), *UNSEEN) == 0.5
    repaired = tuned(case, pool, neurons, pruned, settings=FAST)
    assert accuracy(repaired, *UNSEEN) > 0.9
    assert true_asr(repaired) == 0


def test_unlearning_without_pruning(case, pool, neurons):
    """Nothing removed: the stamped images alone teach the network."""
    options = {"stamps": [true_trigger()], "stamped": 0.5, "settings": FAST}
    repaired = tuned(case, pool, neurons, (), **options)
    assert true_asr(repaired) < 0.2
    assert accuracy(repaired, *UNSEEN) > 0.9
    assert true_asr(tuned(case, pool, neurons, (), settings=FAST)) == 1  # without triggers


@pytest.mark.parametrize(("operations", "steps"), [(1, 3), (1e15, 9), (None, 5)])
def test_small_networks_get_more_steps(case, pool, neurons, operations, steps):
    each = 8 * 3 * 9 * 144 + 8 * 8 * 9 * 144 + 32 * 8  # multiply-accumulates
    budget = operations or 3 * 16 * 5 * each
    seen: list[float] = []
    settings = TuningSettings(operations=budget, least=3, most=9, batch_size=16)
    tuned(case, pool, neurons, (), settings=settings, progress=seen.append)
    assert len(seen) == steps
    assert seen[-1] == 1


def test_an_empty_pool(case, pool, neurons):
    with pytest.raises(InputError, match="needs images"):
        tuned(case, replace(pool, images=pool.images[:0]), neurons, ())
