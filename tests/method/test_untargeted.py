"""Triggers without a target, on networks whose map is known."""

import pytest
import torch
from torch import Tensor, nn

from shapprune.errors import InputError
from shapprune.method.evidence import untargeted_features
from shapprune.method.triggers import Perturbation, Trigger
from shapprune.method.untargeted import UntargetedTrigger, untargeted_triggers
from toys import CLASSES, SIDE, backdoored_net, seeded, toy_images


class AllToAll(nn.Module):
    """Answers as the toy without its backdoor does, and with the next class where it is blue."""

    def __init__(self) -> None:
        super().__init__()
        self.net = backdoored_net()
        self.net.head.weight.data.view(CLASSES, 8, 4)[:, 4] = 0

    def forward(self, images: Tensor) -> Tensor:
        logits = self.net(images)
        blue = (images[:, 2] - 0.5).clamp(min=0).sum((1, 2))
        share = blue.clamp(max=1)[:, None]
        return (1 - share) * logits + share * logits.roll(1, 1)


def found(net, **options):
    images, labels = toy_images()
    return untargeted_triggers(net, images, labels, classes=CLASSES, generator=seeded(), **options)


def test_all_to_all_shows_its_map_under_a_small_trigger():
    result = found(AllToAll())
    clearest = result.clearest
    assert clearest.mapping == tuple((c + 1) % CLASSES for c in range(CLASSES))
    assert clearest.moved > 0.9
    assert clearest.spread > 0.9 * CLASSES
    assert untargeted_features(result)["spread"] > 0.9


def test_a_backdoor_with_one_target_sends_all_there():
    smallest = min(
        (t for t in found(backdoored_net()).triggers if t.kind == "patch"), key=lambda t: t.norm
    )
    assert smallest.spread < 2


def test_spread_mapping_and_agreement_of_known_answers():
    answers = torch.tensor([[0, 4, 0], [1, 0, 3], [4, 0, 0]])
    trigger = UntargetedTrigger(
        "patch", Trigger(torch.ones(1, 2, 2), torch.ones(1, 2, 2)), 4, 1, answers
    )
    assert trigger.mapping == (1, 2, 0)
    assert trigger.agreement == pytest.approx(11 / 12)
    shares = torch.tensor([5, 4, 3]) / 12
    assert trigger.spread == pytest.approx(float((-(shares * shares.log()).sum()).exp()))
    assert trigger.relative_norm == 1


def test_classes_that_were_not_moved_have_no_answer_in_the_map():
    answers = torch.tensor([[2, 0], [0, 0]])
    trigger = UntargetedTrigger("perturbation", Perturbation(torch.ones(1, 2, 2)), 2.0, 0, answers)
    assert trigger.mapping == (None, None)
    assert trigger.agreement == 0
    assert trigger.relative_norm == 1


def test_the_triggers_move_images_and_their_norms_are_their_stamps():
    images, labels = toy_images(seed=3)
    for trigger in found(AllToAll()).triggers:
        assert trigger.norm == pytest.approx(trigger.stamp.norm)
        answers = AllToAll()(trigger.stamp.stamp(images)).argmax(1)
        assert float((answers != labels).float().mean()) > 0.5


def test_no_images_are_an_error():
    with pytest.raises(InputError, match="needs images"):
        untargeted_triggers(
            AllToAll(),
            torch.empty(0, 3, SIDE, SIDE),
            torch.empty(0, dtype=torch.int64),
            classes=CLASSES,
            generator=seeded(),
        )
