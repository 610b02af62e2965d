"""The stages, one after the other, on a network whose one backdoor neuron is known."""

from dataclasses import replace
from statistics import median

import pytest
import torch
from shapprune.finetuning import fine_tune
from shapprune.proxies import Proxies, Yardstick
from shapprune.pruning import CurvePoint, Pruning, best_of, prune
from torch import nn

from shapprune import mending, proxies, pruning
from shapprune.detection import detect
from shapprune.errors import InputError
from shapprune.method.attribution import estimate_shapley, mixture_score, stamped_images
from shapprune.method.triggers import Perturbation, Trigger
from shapprune.metrics import accuracy, attack_success_rate
from shapprune.neurons import find_neurons, remove_neurons
from shapprune.stages import Clock
from shapprune.triggers import InvertedTrigger, invert_triggers
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
ESTIMATORS = {
    "multilinear": {"samples": 128},
    "algorithm1": {"average_iterations": 5},
}
both_estimators = pytest.mark.parametrize("estimator", ESTIMATORS)


def true_asr(model: torch.nn.Module) -> float:
    return attack_success_rate(model, *UNSEEN, stamp=true_trigger().stamp, target=TARGET)


@pytest.fixture(scope="module")
def net():
    return backdoored_net()


@pytest.fixture(scope="module")
def neurons(net):
    return find_neurons(net, IMAGES)


@pytest.fixture(scope="module")
def inversion(net):
    return invert_triggers(
        net, IMAGES, LABELS, targets=range(CLASSES), steps=120, generator=seeded()
    )


@pytest.fixture(scope="module")
def triggers(inversion):
    return [(TARGET, inversion.triggers[TARGET].stamp)]


@pytest.fixture(scope="module")
def values(net, neurons, triggers):
    def estimate(estimator, **options):
        return estimate_shapley(
            net,
            IMAGES,
            LABELS,
            neurons=neurons,
            triggers=triggers,
            estimator=estimator,
            generator=seeded(),
            **{**ESTIMATORS[estimator], **options},
        )

    return estimate


def test_the_toy_is_backdoored(net, neurons):
    assert accuracy(net, *UNSEEN) == 1
    assert true_asr(net) == 1
    assert neurons.locate(backdoor_neuron()) == ("bn1", BACKDOOR)
    clean = remove_neurons(net, neurons, [backdoor_neuron()])
    assert accuracy(clean, *UNSEEN) == 1
    assert true_asr(clean) == 0


# Inversion and detection


def test_inversion_finds_the_trigger(net, inversion):
    found = inversion.triggers[TARGET]
    assert isinstance(found.stamp, Trigger)
    assert found.norm < min(t.norm for t in inversion.triggers if t.target != TARGET) / 3
    rate = attack_success_rate(net, *UNSEEN, stamp=found.stamp.stamp, target=TARGET)
    assert rate > 0.9
    blue = found.stamp.pattern[2][found.stamp.mask[0] > 0.5]
    assert len(blue) > 0
    assert float(blue.mean()) > 0.8


def test_detection_tells_the_target(inversion):
    for method in ("mad", "mad-small"):
        assert detect(inversion.norms, method=method).targets == (TARGET,)


def test_without_the_backdoor_neuron_the_target_is_one_of_many(net, neurons):
    clean = remove_neurons(net, neurons, [backdoor_neuron()])
    norms = invert_triggers(
        clean, IMAGES, LABELS, targets=range(CLASSES), steps=120, generator=seeded()
    ).norms
    assert norms[TARGET] > 0.9 * median(norms)


def test_inverted_triggers_are_what_they_say(inversion):
    assert inversion.kind == "patch"
    assert [t.target for t in inversion.triggers] == list(range(CLASSES))
    for trigger in inversion.triggers:
        mask, pattern = trigger.stamp.mask, trigger.stamp.pattern
        assert mask.shape == (1, 12, 12)
        assert pattern.shape == (3, 12, 12)
        assert trigger.norm == pytest.approx(trigger.stamp.norm, rel=1e-4)
        for part in (mask, pattern):
            assert 0 <= float(part.min()) <= float(part.max()) <= 1
            assert not part.requires_grad
        assert 0 <= trigger.asr <= 1
        assert 0 < trigger.steps <= 120
    assert inversion.passes > 0


def test_inversion_of_perturbations(net):
    inversion = invert_triggers(
        net, IMAGES, LABELS, targets=[TARGET, 0], kind="perturbation", steps=80, generator=seeded()
    )
    assert inversion.kind == "perturbation"
    for trigger in inversion.triggers:
        assert isinstance(trigger.stamp, Perturbation)
        assert trigger.norm == pytest.approx(trigger.stamp.norm, rel=1e-4)
        rate = attack_success_rate(net, *UNSEEN, stamp=trigger.stamp.stamp, target=trigger.target)
        assert rate > 0.8


def test_inversion_of_one_class_several_times(net):
    """Different starts, different triggers."""
    twice = invert_triggers(
        net, IMAGES, LABELS, targets=[TARGET] * 2, steps=20, generator=seeded()
    ).triggers
    assert not torch.equal(twice[0].stamp.mask, twice[1].stamp.mask)


def test_hopeless_classes_stop_early():
    """No trigger makes the network say 0: that trigger is large, and its steps are saved."""
    net = backdoored_net()
    with torch.no_grad():
        net.head.bias[0] = -50

    def invert(give_up):
        return invert_triggers(
            net,
            IMAGES,
            LABELS,
            targets=range(CLASSES),
            steps=80,
            give_up=give_up,
            generator=seeded(),
        )

    patient, hasty = invert(False), invert(True)
    assert [t.steps for t in patient.triggers] == [80] * CLASSES
    assert hasty.triggers[0].steps < 60
    assert hasty.triggers[TARGET].steps == 80
    assert hasty.passes / patient.passes == pytest.approx(
        sum(t.steps for t in hasty.triggers) / (80 * CLASSES)
    )
    for inversion in (patient, hasty):
        assert inversion.triggers[0].asr == 0
        assert inversion.triggers[0].norm == max(inversion.norms)
        assert detect(inversion.norms).targets == (TARGET,)


def test_inversion_needs_images_of_other_classes(net):
    only = LABELS == TARGET
    with pytest.raises(InputError, match="classes"):
        invert_triggers(net, IMAGES[only], LABELS[only], targets=[TARGET], generator=seeded())


# Shapley values


@both_estimators
def test_the_backdoor_neuron_ranks_first(values, estimator):
    found = values(estimator)
    order = found.scores[0].argsort(descending=True).tolist()
    assert order[0] == backdoor_neuron()
    assert found.asr.values.argmax() == backdoor_neuron()
    assert found.estimator == estimator
    assert found.scores[0].shape == (16,)
    assert found.passes > 0


def test_accuracy_is_taken_off_the_score(values):
    found = values("multilinear")
    assert float(found.accuracy.values[:4].min()) > 0.01  # what sees red and green
    assert float(found.scores[0][:4].max()) < float(found.scores[0][4:8].min())
    expected = found.asr.values - found.accuracy.values.clamp(min=0)
    torch.testing.assert_close(found.scores[0], expected)
    assert values("algorithm1").accuracy is None


@both_estimators
def test_modes(values, estimator):
    normal, mixture, difference = (
        values(estimator, mode=mode) for mode in ("normal", "mixture", "difference")
    )
    assert normal.accuracy is None
    assert torch.equal(normal.scores[0], normal.asr.values)
    assert len(difference.scores) == 1
    for score in mixture.scores:
        kept = score > -torch.inf
        assert torch.equal(score[kept], mixture.asr.values[kept])
        assert mixture.accuracy.values[kept].max() <= mixture.accuracy.values[~kept].min()
        assert score.argmax() == backdoor_neuron()
    shares = [float((score > -torch.inf).float().mean()) for score in mixture.scores]
    assert shares == sorted(set(shares))


def test_the_mixture_by_hand():
    """Six neurons: of the half that matters least to the accuracy, the best for the ASR."""
    asr = torch.tensor([0.9, 0.5, 0.8, 0.1, 0.7, 0.3])
    accuracy = torch.tensor([0.6, 0.0, 0.5, -0.1, 0.1, 0.9])
    score = mixture_score(asr, accuracy, 0.5)
    assert score.isfinite().tolist() == [False, True, False, True, True, False]
    assert score.argsort(descending=True)[:3].tolist() == [4, 1, 3]
    most = mixture_score(asr, accuracy, 5 / 6)
    assert most.argsort(descending=True).tolist()[:5] == [0, 2, 4, 1, 3]
    assert torch.equal(mixture_score(asr, accuracy, 1.0), asr)
    assert mixture_score(asr, accuracy, 0.01).isfinite().sum() == 1


@both_estimators
def test_estimation_progress(values, estimator):
    seen = []
    values(estimator, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1


def test_stamped_images():
    stamp = Perturbation(torch.full((3, 12, 12), 0.5))
    stamped, answers = stamped_images(IMAGES, LABELS, [(TARGET, true_trigger()), (0, stamp)])
    others = IMAGES[LABELS != TARGET], IMAGES[LABELS != 0]
    assert answers.tolist() == [TARGET] * len(others[0]) + [0] * len(others[1])
    torch.testing.assert_close(
        stamped, torch.cat([true_trigger().stamp(others[0]), stamp.stamp(others[1])])
    )


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_estimation_errors(net, neurons, estimator):
    def estimate(images, labels, triggers, **options):
        estimate_shapley(
            net,
            images,
            labels,
            neurons=neurons,
            triggers=triggers,
            estimator=estimator,
            generator=seeded(),
            **options,
        )

    with pytest.raises(InputError, match="mode must be"):
        estimate(IMAGES, LABELS, [(TARGET, true_trigger())], mode="both")
    with pytest.raises(InputError, match="trigger"):
        estimate(IMAGES, LABELS, [])
    only = LABELS == TARGET
    with pytest.raises(InputError, match="another class"):
        estimate(IMAGES[only], LABELS[only], [(TARGET, true_trigger())])


# Pruning


class Answers(nn.Module):
    """Says class 0 of dark images, and of all others a class of its own."""

    def __init__(self, bright: int) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.eye(3)[bright], requires_grad=False)

    def forward(self, x):
        bright = (x.mean((1, 2, 3)) > 0.5).float()[:, None]
        return bright * self.answer + (1 - bright) * torch.eye(3)[0]


def yardstick_of_two(original: nn.Module, labels: list[int], **options: bool) -> Yardstick:
    """By a dark and a bright image, for the target 2."""
    return Yardstick(
        original,
        torch.tensor([0.1, 0.9]).view(2, 1, 1, 1).expand(2, 1, 4, 4),
        torch.tensor(labels),
        triggers=[(2, Perturbation(torch.zeros(1, 4, 4)))],
        generator=seeded(),
        **options,
    )


def test_agreement_with_a_backdoor_does_not_count_on_recovered_images():
    """All images are of class 1; the original gives half of them the target 2, and half 0."""

    def agreement(trusted: bool, bright: int) -> float:
        yardstick = yardstick_of_two(Answers(2), [1, 1], trusted=trusted)
        assert not yardstick.sink
        return yardstick(Answers(bright)).agreement

    assert agreement(True, 1) == 0.5
    assert agreement(False, 1) == 1
    assert agreement(True, 2) == agreement(False, 2) == 1
    assert agreement(False, 0) == 1  # and of the images that are left, all are dark


@pytest.mark.parametrize(
    ("bright", "labels", "sink"),
    [
        (2, [0, 1], True),  # the bright half, of class 1; the dark half is right
        (2, [1, 1], False),  # class 0 gets as many wrongly
        (2, [0, 2], False),  # of the target's own images
        (1, [0, 0], False),  # another class does
    ],
)
def test_a_target_that_takes_distorted_images_of_other_classes_is_a_sink(bright, labels, sink):
    yardstick = yardstick_of_two(Answers(bright), labels)
    assert yardstick.sink == sink
    # What a sink takes does not count.
    assert yardstick(Answers(0)).agreement == (1.0 if sink else 0.5)


def test_a_sink_takes_four_times_as_many_as_the_next_class_and_a_twelfth():
    def is_sink(mine: int, next_class: int, right: int) -> bool:
        answers = torch.tensor(2).repeat(mine), torch.tensor(1).repeat(next_class)
        answers = torch.cat([*answers, torch.tensor(0).repeat(right)])
        return proxies._is_sink(answers, answers == 0, torch.tensor([2]))

    assert is_sink(40, 10, 50)
    assert not is_sink(39, 10, 51)
    assert is_sink(2, 0, 22)
    assert not is_sink(2, 0, 23)
    assert not is_sink(0, 0, 0)


def test_a_sink_is_no_matter_of_how_many_triggers():
    """The target takes a quarter of the images, and another class as many."""
    images = torch.tensor([0.1, 0.9, 0.1, 0.1]).view(4, 1, 1, 1).expand(4, 1, 4, 4)
    triggers = [(2, Perturbation(torch.zeros(1, 4, 4)))] * 5
    yardstick = Yardstick(
        Answers(2),
        images,
        torch.tensor([0, 1, 1, 0]),
        triggers=triggers,
        generator=seeded(),
    )
    assert not yardstick.sink


def test_right_answers_that_are_kept():
    """The dark image is right; what becomes of the bright one, which is wrong, does not matter."""
    yardstick = yardstick_of_two(Answers(2), [0, 1])
    assert yardstick(Answers(1)).kept == yardstick(Answers(2)).kept == 1
    assert yardstick_of_two(Answers(1), [0, 1])(Answers(2)).kept == 0.5
    assert yardstick_of_two(Answers(1), [1, 0])(Answers(2)).kept == 0.5  # none is: all count


def test_the_asr_of_each_trigger():
    """Of two triggers of class 2, made eight times as strong, one makes dark images bright."""
    images = torch.tensor([0.1, 0.9]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    nothing, light = Perturbation(torch.zeros(1, 4, 4)), Perturbation(torch.full((1, 4, 4), 0.1))
    yardstick = Yardstick(
        Answers(1),
        images,
        torch.tensor([0, 1]),
        triggers=[(2, nothing), (2, light)],
        generator=seeded(),
    )
    asr = yardstick(Answers(2)).asr_by_trigger
    assert 0.3 < asr[0] < 0.7  # the bright half
    assert asr[1] == 1
    assert yardstick(Answers(2)).asr == pytest.approx(sum(asr) / 2)
    assert yardstick(Answers(1)).asr_by_trigger == (0, 0)


@pytest.mark.parametrize(("works", "counted"), [((True, False), 0), ((False, True), 1)])
def test_only_triggers_that_work_count_if_not_all_do(works, counted):
    images = torch.tensor([0.1, 0.9]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    stamps = [Perturbation(torch.full((1, 4, 4), 0.1 if works_ else -0.1)) for works_ in works]
    yardstick = Yardstick(
        Answers(2),
        images,
        torch.tensor([0, 0]),
        triggers=[(2, stamp) for stamp in stamps],
        generator=seeded(),
    )
    before, after = yardstick(Answers(2)), yardstick(Answers(1))
    assert sorted(before.asr_by_trigger) == [0, 1]
    assert before.asr == before.asr_by_trigger[counted] == 1
    assert after.asr == 0


def test_patches_are_measured_a_pixel_wider():
    class Beside(nn.Module):
        """Says the target of images whose pixel beside the trigger's is bright."""

        def __init__(self) -> None:
            super().__init__()
            self.answers = nn.Parameter(torch.eye(3), requires_grad=False)

        def forward(self, x):
            return self.answers[2 * (x[:, 0, 4, 5] > 0.9).long()]

    mask = torch.zeros(1, 8, 8)
    mask[0, 4, 4] = 1
    yardstick = Yardstick(
        Beside(),
        torch.zeros(2, 1, 8, 8),
        torch.tensor([0, 1]),
        triggers=[(2, Trigger(mask, mask))],
        generator=seeded(),
    )
    assert yardstick(Beside()).asr == 1


@pytest.mark.parametrize(
    ("curve", "chosen"),  # right answers kept, and ASR, of 0, 1, 2, … neurons removed
    [
        ([(1, 1), (0.95, 0.3), (0.9, 0.1), (0.88, 0.0)], 2),  # the first that suffices
        ([(1, 1), (0.95, 0.3), (0.84, 0.1), (0.8, 0.0)], 1),  # too many would be lost
        ([(1, 1), (0.86, 0.5), (0.85, 0.4), (0.8, 0.0)], 2),
        ([(1, 1), (0.8, 0.5)], 0),
        ([(1, 1), (0.95, 1), (0.9, 1), (0.8, 0.2)], 2),  # alike by the proxy: the more are gone
    ],
)
def test_how_many_neurons_by_hand(curve, chosen):
    points = [CurvePoint(k, Proxies(0, 0, kept, asr, ())) for k, (kept, asr) in enumerate(curve)]
    assert pruning._choose(points, 0.1, 0.15) is points[chosen]


@pytest.mark.parametrize(
    ("cases", "best"),
    [
        ({"a": (0.9, 0.05), "b": (0.95, 0.08), "c": (0.99, 0.5)}, "b"),  # agreement, asr
        ({"a": (0.9, 0.3), "b": (0.95, 0.2), "c": (0.99, 0.5)}, "b"),
        ({"a": (0.9, 0.05), "b": (0.9, 0.01)}, "a"),
    ],
)
def test_the_best_pruning_by_hand(cases, best):
    def pruning(agreement: float, asr: float) -> Pruning:
        curve = (
            CurvePoint(0, Proxies(1, 1, 1, 1, ())),
            CurvePoint(1, Proxies(0.5, agreement, 1, asr, ())),
        )
        return Pruning(nn.Identity(), torch.zeros(2), (0,), curve, asr, asr <= 0.1)

    prunings = {name: pruning(*case) for name, case in cases.items()}
    assert best_of(list(prunings.values())) is prunings[best]


def pruned(net, neurons, score, triggers, **options):
    return prune(
        net,
        IMAGES,
        LABELS,
        neurons=neurons,
        score=score,
        triggers=triggers,
        generator=seeded(),
        **options,
    )


@both_estimators
def test_pruning_takes_the_backdoor_and_leaves_the_rest(net, neurons, triggers, values, estimator):
    found = pruned(net, neurons, values(estimator).scores[0], triggers)
    assert found.removed[0] == backdoor_neuron()
    assert len(found.removed) <= 2
    assert true_asr(found.model) == 0
    assert accuracy(found.model, *UNSEEN) == 1
    expected = remove_neurons(net, neurons, found.removed).state_dict()
    for key, value in found.model.state_dict().items():
        assert torch.equal(value, expected[key])
    removed = [point.removed for point in found.curve]
    assert removed[0] == 0
    assert removed == sorted(removed)


def test_pruning_goes_on_until_the_backdoor_is_gone(net, neurons, triggers):
    """The neuron that matters comes second."""
    score = torch.zeros(16)
    score[7], score[backdoor_neuron()] = 2, 1
    assert pruned(net, neurons, score, triggers).removed == (7, backdoor_neuron())


@pytest.mark.parametrize("count", [0, 1, 3, 16])
def test_pruning_as_many_as_asked(net, neurons, triggers, count):
    score = torch.arange(16.0)
    found = pruned(net, neurons, score, triggers, count=count)
    assert found.removed == tuple(range(15, 15 - count, -1))
    for neuron in found.removed:
        name, channel = neurons.locate(neuron)
        assert float(found.model.get_submodule(name).weight[channel].detach()) == 0


@pytest.mark.parametrize("count", [-1, 17])
def test_pruning_an_impossible_count(net, neurons, triggers, count):
    with pytest.raises(InputError, match="count"):
        pruned(net, neurons, torch.zeros(16), triggers, count=count)


# Fine-tuning


def without(net, neurons, removed):
    """Those neurons pruned, whatever they are worth."""
    score = torch.zeros(len(neurons))
    score[list(removed)] = 1
    found = pruned(net, neurons, score, [(TARGET, true_trigger())], count=len(removed))
    assert set(found.removed) == set(removed)
    return found


def tuned(net, neurons, removed, **options):
    pruning = without(net, neurons, removed)
    return pruning.model, fine_tune(
        net,
        pruning,
        IMAGES,
        LABELS,
        neurons=neurons,
        **{"steps": 8, "batch_size": 16, "generator": seeded(), **options},
    )


@pytest.mark.parametrize("unlearning", [False, True])
@pytest.mark.parametrize("first", [BACKDOOR, 7])
def test_pruned_neurons_stay_at_zero_and_statistics_stay(net, neurons, triggers, unlearning, first):
    """Whether pruning has removed the backdoor already or not."""
    removed = (first, 1, 10)
    student, repaired = tuned(net, neurons, removed, triggers=triggers if unlearning else ())
    for neuron in removed:
        name, channel = neurons.locate(neuron)
        for parameter in repaired.get_submodule(name).parameters():
            assert float(parameter[channel]) == 0
    before, after = student.state_dict(), repaired.state_dict()
    assert {k: v.shape for k, v in before.items()} == {k: v.shape for k, v in after.items()}
    buffers = [name for name, _ in student.named_buffers()]
    assert len(buffers) == 6
    assert all(torch.equal(before[name], after[name]) for name in buffers)
    assert not torch.equal(before["head.weight"], after["head.weight"])  # it did learn


def test_the_repaired_model_is_no_alias(net, neurons):
    student, repaired = tuned(net, neurons, (backdoor_neuron(),), steps=1)
    pointers = [
        {tensor.data_ptr() for tensor in model.state_dict().values()}
        for model in (net, student, repaired)
    ]
    assert not pointers[2] & (pointers[0] | pointers[1])


def test_repair_after_pruning(net, neurons, triggers):
    _, repaired = tuned(net, neurons, (backdoor_neuron(),), triggers=triggers)
    assert true_asr(repaired) == 0
    assert accuracy(repaired, *UNSEEN) == 1


def test_distillation_brings_accuracy_back(net, neurons):
    """Without triggers: all that sees green is gone, and what sees grey learns to do its work."""
    removed = (backdoor_neuron(), 2, 3, 10)
    student, repaired = tuned(net, neurons, removed, steps=60, learning_rate=1e-2)
    assert accuracy(student, *UNSEEN) == 0.5
    assert accuracy(repaired, *UNSEEN) > 0.9
    assert true_asr(repaired) == 0


def test_unlearning_without_pruning(net, neurons, triggers):
    """Nothing removed: the stamped images alone teach the network."""
    _, repaired = tuned(net, neurons, (), triggers=triggers, steps=60, learning_rate=1e-2)
    assert true_asr(repaired) < 0.2
    assert accuracy(repaired, *UNSEEN) > 0.9


def test_the_teacher_is_not_believed_on_recovered_images(net, neurons):
    """They carry the trigger here, and nothing else is there to unlearn."""
    images = torch.cat([IMAGES, true_trigger().stamp(IMAGES)])
    pruning = without(net, neurons, ())

    def asr_after(trusted: bool, hide: bool) -> float:
        student = fine_tune(
            net,
            pruning,
            images,
            LABELS.repeat(2),
            neurons=neurons,
            triggers=[(TARGET, Perturbation(torch.zeros(3, 12, 12)))],
            steps=60,
            batch_size=16,
            learning_rate=1e-2,
            trusted=trusted,
            hide=hide,
            generator=seeded(),
        )
        return true_asr(student)

    assert asr_after(trusted=True, hide=False) > 0.5
    assert asr_after(trusted=True, hide=True) < 0.2
    assert asr_after(trusted=False, hide=True) < 0.2


def test_the_pruned_network_teaches_what_recovered_images_are(net, neurons):
    """They carry the trigger, which the original knows and the pruned network does not."""
    images = true_trigger().stamp(IMAGES)
    pruning = replace(
        without(net, neurons, ()), model=without(net, neurons, (backdoor_neuron(),)).model
    )

    def asr_after(trusted: bool) -> float:
        student = fine_tune(
            net,
            pruning,
            images,
            LABELS,
            neurons=neurons,
            triggers=[(TARGET, Perturbation(torch.zeros(3, 12, 12)))],
            steps=60,
            batch_size=16,
            learning_rate=1e-2,
            feature_weight=0.0,
            trusted=trusted,
            generator=seeded(),
        )
        return true_asr(student)

    assert asr_after(trusted=True) > 0.5
    assert asr_after(trusted=False) < 0.2


@pytest.mark.parametrize(("left", "rows"), [(0.0, 2), (0.5, 5), (1.0, 8)])
def test_the_less_pruning_has_done_the_more_is_stamped(net, neurons, left, rows):
    """Of a batch of 16, an eighth to a half."""
    stamped = []

    class Counted(Perturbation):
        def amplified(self, factor: float) -> "Counted":
            return self

        def stamp(self, images):
            stamped.append(len(images))
            return images

    fine_tune(
        net,
        replace(without(net, neurons, ()), asr=left),
        IMAGES,
        LABELS,
        neurons=neurons,
        triggers=[(TARGET, Counted(torch.zeros(3, 12, 12)))],
        steps=2,
        batch_size=16,
        generator=seeded(),
    )
    assert sum(stamped) == 2 * rows


@pytest.mark.parametrize(
    ("unlearn", "sink", "goes"), [(True, False, True), (False, False, False), (True, True, False)]
)
def test_only_what_has_unlearned_goes_back_and_no_sink(
    net, triggers, unlearn, sink, goes, monkeypatch
):
    gone = []
    monkeypatch.setattr(proxies, "_is_sink", lambda *_: sink)
    monkeypatch.setattr(mending, "way_back", lambda tuned, *_, **__: gone.append(tuned) or net)
    inverted = [InvertedTrigger(target, stamp, 1.0, 1.0, 1) for target, stamp in triggers]
    mended = mending.mend(
        net, IMAGES, LABELS, triggers=inverted, unlearn=unlearn, seed=0, clock=Clock(None)
    )
    assert len(gone) == goes
    assert (mended.model is net) == goes


@pytest.mark.parametrize(
    ("sink", "trusted", "unlearn", "hidden", "rate"),
    [
        (False, True, True, False, 1e-3),
        (True, True, True, True, 2e-3),
        (True, True, False, True, 1e-3),  # the paper's recipe
        (False, False, True, True, 1e-3),
        (True, False, True, True, 1e-3),  # not told of recovered images
    ],
)
def test_a_sink_is_hidden_from_the_student_which_learns_faster(
    net, triggers, sink, trusted, unlearn, hidden, rate, monkeypatch
):
    told = []

    def tune(original, *_, hide, learning_rate, **__):
        told.append((hide, learning_rate))
        return original

    monkeypatch.setattr(mending, "fine_tune", tune)
    monkeypatch.setattr(proxies, "_is_sink", lambda *_: sink)
    inverted = [InvertedTrigger(target, stamp, 1.0, 1.0, 1) for target, stamp in triggers]
    mending.mend(
        net,
        IMAGES,
        LABELS,
        triggers=inverted,
        trusted=trusted,
        unlearn=unlearn,
        seed=0,
        clock=Clock(None),
    )
    assert told == [(hidden, rate)]


def test_fine_tuning_needs_images(net, neurons):
    pruning = without(net, neurons, ())
    with pytest.raises(InputError, match="images"):
        fine_tune(net, pruning, IMAGES[:0], LABELS[:0], neurons=neurons, generator=seeded())
