"""No stage changes what it is given, leaves a hook behind, or draws from the global generators."""

import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shapprune.data.augmentation import augment, bend, flip_allowed, mix
from shapprune.errors import InputError
from shapprune.method.attribution import estimate_shapley
from shapprune.method.case import Case
from shapprune.method.evaluation import Evaluator
from shapprune.method.finetuning import Pool, distillation_pool, fine_tune
from shapprune.method.inversion import InvertedTrigger, invert_triggers
from shapprune.method.margins import maximum_margins
from shapprune.method.perturbations import best_perturbations
from shapprune.method.pruning import prune
from shapprune.method.recovery import recover_images
from shapprune.method.settings import (
    MarginSettings,
    PerturbationSettings,
    PoolSettings,
    TuningSettings,
    UntargetedSettings,
    WindowSettings,
)
from shapprune.method.triggers import Perturbation, Trigger, all_to_one
from shapprune.method.untargeted import untargeted_triggers
from shapprune.method.windows import best_windows
from shapprune.model.game import NeuronGame
from shapprune.model.masking import masked, remove_neurons
from shapprune.model.metrics import accuracy, attack_success_rate
from shapprune.model.neurons import find_neurons
from toys import (
    CLASSES,
    TARGET,
    backdoored_net,
    seeded,
    snapshot,
    toy_images,
    true_trigger,
    unchanged,
)

# Found once, on a network that works.
NEURONS = find_neurons(backdoored_net(), toy_images()[0])
TRIGGERS = [(TARGET, true_trigger()), (0, Perturbation(torch.full((3, 12, 12), 0.1)))]
SCORE = torch.linspace(1, 0, len(NEURONS))


def shapley(model, images, labels, generator, estimator):
    return estimate_shapley(
        model,
        images,
        labels,
        neurons=NEURONS,
        triggers=TRIGGERS,
        estimator=estimator,
        samples=16,
        average_iterations=1,
        generator=generator,
    )


def inversion(model, images, labels, generator, kind):
    return invert_triggers(
        model, images, labels, targets=[0, 1, TARGET], kind=kind, steps=6, generator=generator
    )


def recovery(model, images, _labels, generator):
    found = recover_images(
        model, input_size=tuple(images.shape[1:]), per_class=1, steps=4, generator=generator
    )
    return found.images, found.labels, found.divergence


def windows(model, images, labels, generator):
    few = WindowSettings(places=2, steps=(2, 2), images=(2, 2), kept=(1.0, 0.5), views=4)
    return best_windows(
        model, images, labels, classes=[0, TARGET], settings=few, generator=generator
    )


def perturbations(model, images, labels, generator):
    few = PerturbationSettings(steps=3, images=2, views=4)
    return best_perturbations(
        model, images, labels, classes=[0, TARGET], settings=few, generator=generator
    )


def untargeted(model, images, labels, generator):
    window = WindowSettings(places=2, steps=(2,), images=(2,), kept=(1.0,))
    few = UntargetedSettings(steps=3, images=4, views=2, window=window)
    return untargeted_triggers(
        model, images, labels, classes=CLASSES, settings=few, generator=generator
    )


def margins(model, images, _labels, generator):
    return maximum_margins(
        model,
        shape=images.shape[1:],
        classes=CLASSES,
        settings=MarginSettings(starts=1, steps=3),
        generator=generator,
    )


INVERTED = [
    InvertedTrigger(all_to_one(target, CLASSES), stamp, stamp.norm, 1.0, 1)
    for target, stamp in TRIGGERS
]


def case_of(model, images, labels) -> Case:
    return Case(model, images, labels, CLASSES, True, False)


def evaluator_of(model, images, labels, generator) -> Evaluator:
    case = case_of(model, images, labels)
    return Evaluator(case, INVERTED, neurons=NEURONS, generator=generator)


def pruning(model, images, labels, generator, **options):
    measure = evaluator_of(model, images, labels, generator)
    return prune(model, score=SCORE, evaluator=measure, **options)


def pool_of(model, images, labels, generator) -> Pool:
    return distillation_pool(
        case_of(model, images, labels),
        settings=PoolSettings(images=32, least=8),
        generator=generator,
    )


POOL = pool_of(backdoored_net(), *toy_images(), seeded())


def tuning(model, _images, _labels, generator, **options):
    settings = TuningSettings(least=2, most=2, batch_size=8)
    return fine_tune(
        model, POOL, neurons=NEURONS, pruned=[0], settings=settings, generator=generator, **options
    )


# Each takes (model, images, labels, generator).
DRAWING = {
    "patch": lambda *given: inversion(*given, "patch"),
    "perturbation": lambda *given: inversion(*given, "perturbation"),
    "margins": margins,
    "windows": windows,
    "perturbations": perturbations,
    "untargeted": untargeted,
    "multilinear": lambda *given: shapley(*given, "multilinear"),
    "algorithm1": lambda *given: shapley(*given, "algorithm1"),
    "recover": recovery,
    "prune": pruning,
    "fine_tune": tuning,
    "fine_tune, triggers": lambda *given: tuning(*given, stamps=[stamp for _, stamp in TRIGGERS]),
    "pool": pool_of,
}
STAGES = {
    **DRAWING,
    "find_neurons": lambda model, images, *_: find_neurons(model, images),
    "remove_neurons": lambda model, *_: remove_neurons(model, NEURONS, [0, 9]),
    "game": lambda model, images, labels, _: NeuronGame(model, NEURONS, images, labels)(
        torch.ones(3, len(NEURONS), dtype=torch.bool)
    ),
    "gradient": lambda model, images, labels, _: NeuronGame(
        model, NEURONS, images, labels
    ).gradient(torch.ones(3, len(NEURONS))),
    "accuracy": lambda model, images, labels, _: accuracy(model, images, labels),
    "asr": lambda model, images, labels, _: attack_success_rate(
        model, images, labels, stamp=true_trigger().stamp, target=TARGET
    ),
    "flip_allowed": lambda model, images, *_: flip_allowed(model, images),
}
PURE = {
    "augment": lambda images, generator: augment(images, generator=generator, flip=True),
    "bend": lambda images, generator: bend(images, generator=generator),
    "mix": lambda images, generator: mix(images, images.flip(0), generator=generator),
    "trigger": lambda images, _: true_trigger().stamp(images),
    "perturbation": lambda images, _: Perturbation(torch.full((3, 12, 12), 0.5)).stamp(images),
}
MADE_OUTSIDE = backdoored_net()
every_stage = pytest.mark.parametrize("stage", STAGES)


def tensors(result: object) -> Iterator[Tensor]:
    """Every number in a result."""
    if isinstance(result, Tensor):
        yield result.detach()
    elif isinstance(result, bool | int | float):
        yield torch.tensor(float(result))
    elif isinstance(result, nn.Module):
        yield from result.state_dict().values()
    elif isinstance(result, tuple | list):
        for part in result:
            yield from tensors(part)
    elif is_dataclass(result):
        for field in fields(result):
            yield from tensors(getattr(result, field.name))


def same(a: object, b: object) -> bool:
    ours, theirs = list(tensors(a)), list(tensors(b))
    assert len(ours) > 0
    return len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))


def mixed_modes() -> nn.Module:
    """A network with modules in either mode, and parameters with gradients and without."""
    model = backdoored_net().train()
    model.bn2.eval()
    model.conv1.requires_grad_(False)
    return model


@every_stage
def test_the_model_stays_as_it_was(stage):
    model, (images, labels) = mixed_modes(), toy_images()
    before = snapshot(model)
    STAGES[stage](model, images, labels, seeded())
    assert unchanged(model, before)


@every_stage
def test_images_and_labels_stay_as_they_were(stage):
    images, labels = toy_images()
    STAGES[stage](backdoored_net(), images, labels, seeded())
    assert torch.equal(images, toy_images()[0])
    assert torch.equal(labels, toy_images()[1])
    assert not images.requires_grad


@pytest.mark.parametrize("function", PURE)
def test_pure_functions_stay_pure(function):
    images, _ = toy_images()
    result = PURE[function](images, seeded())
    assert torch.equal(images, toy_images()[0])
    assert result.data_ptr() != images.data_ptr()


def test_results_of_earlier_stages_stay_as_they_were():
    given = (TRIGGERS, SCORE, POOL)
    before = [part.clone() for part in tensors(given)]
    for stage in DRAWING.values():
        stage(backdoored_net(), *toy_images(), seeded())
    assert all(map(torch.equal, tensors(given), before))


@every_stage
def test_global_generators_are_left_alone(stage):
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    STAGES[stage](backdoored_net(), *toy_images(), seeded())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])


@pytest.mark.parametrize("function", PURE)
def test_pure_functions_leave_the_global_generator_alone(function):
    state = torch.get_rng_state()
    PURE[function](toy_images()[0], seeded())
    assert torch.equal(torch.get_rng_state(), state)


@every_stage
def test_same_seed_same_result(stage):
    def once(noise: int) -> object:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(noise)  # must not matter
            return STAGES[stage](backdoored_net(), *toy_images(), seeded(3))

    assert same(once(0), once(1))


@pytest.mark.parametrize("stage", sorted(set(DRAWING) - {"prune"}))
def test_other_seed_other_result(stage):
    first, second = (DRAWING[stage](backdoored_net(), *toy_images(), seeded(s)) for s in (3, 4))
    assert not same(first, second)


@every_stage
def test_training_mode_does_not_matter(stage):
    """Batch norms would answer by the batch."""
    training, evaluating = (
        STAGES[stage](backdoored_net().train(mode), *toy_images(), seeded())
        for mode in (True, False)
    )
    assert same(training, evaluating)


@every_stage
@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
def test_the_callers_gradient_mode_does_not_matter(stage, mode):
    with mode():
        result = STAGES[stage](backdoored_net(), *toy_images(), seeded())
    assert same(result, STAGES[stage](backdoored_net(), *toy_images(), seeded()))


@pytest.mark.parametrize(
    "stage", sorted({"patch", "multilinear", "recover", "fine_tune", "find_neurons", "gradient"})
)
def test_public_stages_work_in_inference_mode(stage):
    with torch.inference_mode():
        images, labels = toy_images()  # made there, too
        result = STAGES[stage](MADE_OUTSIDE, images, labels, seeded())
    assert same(result, STAGES[stage](backdoored_net(), *toy_images(), seeded()))


class FailsAtOnce(nn.Module):
    def forward(self, _: Tensor) -> Tensor:
        raise RuntimeError("boom")


class FailsLater(nn.Module):
    """Works as another module does, a few times."""

    def __init__(self, module: nn.Module, calls: int) -> None:
        super().__init__()
        self.module, self.calls = module, calls

    def forward(self, x: Tensor) -> Tensor:
        self.calls -= 1
        if self.calls < 0:
            raise RuntimeError("boom")
        return self.module(x)


@pytest.mark.parametrize("stage", sorted(set(STAGES) - {"remove_neurons"}))
@pytest.mark.parametrize("calls", [0, 1, 3])
def test_no_trace_after_an_exception(stage, calls):
    """The head raises: by then the hooks of all layers before it have run."""
    model = mixed_modes()
    model.head = FailsLater(model.head, calls) if calls else FailsAtOnce()
    before = snapshot(model)
    # Short stages get by with a few calls.
    boom = RuntimeError, InputError  # what a model raises at first says that it does not fit
    with pytest.raises(boom, match="boom") if not calls else suppress(*boom):
        STAGES[stage](model, *toy_images(), seeded())
    assert unchanged(model, before)


def test_masks_go_after_an_exception():
    model = mixed_modes()
    before = snapshot(model)
    with (
        pytest.raises(RuntimeError, match="boom"),
        masked(model, NEURONS, torch.zeros(1, len(NEURONS))),
    ):
        raise RuntimeError("boom")
    assert unchanged(model, before)


def test_masks_of_a_wrong_width():
    model = mixed_modes()
    before = snapshot(model)
    with (
        pytest.raises(InputError, match="one value for each of"),
        masked(model, NEURONS, torch.zeros(1, len(NEURONS) + 1)),
    ):
        pass
    assert unchanged(model, before)


def test_an_interrupted_progress_leaves_no_trace():
    """Ctrl-C, or a window that was closed."""

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    model, (images, labels) = mixed_modes(), toy_images()
    before = snapshot(model)
    given = {"neurons": NEURONS, "generator": seeded(), "progress": interrupt}
    with pytest.raises(KeyboardInterrupt):
        invert_triggers(model, images, labels, targets=[0], generator=seeded(), progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        estimate_shapley(model, images, labels, triggers=TRIGGERS, samples=4, **given)
    with pytest.raises(KeyboardInterrupt):
        pruning(model, images, labels, seeded(), progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(model, POOL, **given)
    assert unchanged(model, before)


def test_results_are_no_views_of_the_callers_tensors():
    images, labels = toy_images()
    found = inversion(backdoored_net(), images, labels, seeded(), "perturbation")
    given = images.untyped_storage().data_ptr()
    for trigger in found.triggers:
        assert trigger.stamp.delta.untyped_storage().data_ptr() != given


def test_snapshots_see_changes():
    """The yardstick of this file, on changes that stages might make."""

    def changed(change) -> bool:
        model = mixed_modes()
        before = snapshot(model)
        change(model)
        return not unchanged(model, before)

    assert not changed(lambda model: None)
    assert changed(lambda model: model.eval())
    assert changed(lambda model: model.requires_grad_(False))
    assert changed(lambda model: model(torch.rand(2, 3, 12, 12)))  # batch norm's statistics
    assert changed(lambda model: model(torch.rand(2, 3, 12, 12)).sum().backward())
    assert changed(lambda model: model.head.bias.data.add_(1))
    assert changed(lambda model: model.conv1.register_forward_hook(lambda *_: None))
    assert changed(lambda model: model.conv1.register_forward_pre_hook(lambda *_: None))


def test_same_sees_changes():
    stamp = true_trigger()
    assert same(stamp, true_trigger())
    assert not same(stamp, Trigger(stamp.mask, stamp.pattern + 1e-3))
    assert not same(backdoored_net(), remove_neurons(backdoored_net(), NEURONS, [0]))
