"""What is checked once."""

import torch

from shapprune.method.case import check_case
from shapprune.method.recovery import Recovery
from shapprune.utils.progress import Stage
from toys import CLASSES, backdoored_net, snapshot, toy_images, unchanged


def test_a_case_is_checked_once_and_leaves_the_model_as_it_was():
    net, (images, labels) = backdoored_net(), toy_images()
    before = snapshot(net)
    case = check_case(net, images, labels)
    assert (case.classes, case.real) == (CLASSES, True)
    assert not case.flip_allowed  # left and right are classes
    assert torch.equal(case.labels, labels)
    torch.testing.assert_close(case.model(images), net(images))
    assert unchanged(net, before)


def test_recovered_images_are_told_apart():
    images, labels = toy_images()
    found = Recovery(images, labels, 1, 0.0, Stage("recover", 0.0))
    case = check_case(backdoored_net(), recovered=found)
    assert not case.real
    assert torch.equal(case.labels, labels)


def test_half_precision_is_examined_in_full():
    images, labels = toy_images()
    case = check_case(backdoored_net().half(), images, labels)
    assert {p.dtype for p in case.model.parameters()} == {torch.float32}
