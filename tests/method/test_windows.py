"""The best small squares of networks whose triggers are known."""

import pytest
import torch

from shapprune.errors import InputError
from shapprune.method.margins import margins_of
from shapprune.method.windows import best_windows
from toys import CLASSES, SIDE, TARGET, backdoored_net, seeded, toy_images


@pytest.fixture(scope="module")
def windows():
    images, labels = toy_images()
    net = backdoored_net()
    return best_windows(net, images, labels, classes=range(CLASSES), generator=seeded())


def test_a_square_sends_all_images_to_the_target_and_to_no_other_class(windows):
    assert windows.shares[TARGET] == 1
    assert max(share for c, share in enumerate(windows.shares) if c != TARGET) < 0.5


def test_the_target_has_the_largest_margin_under_its_square(windows):
    assert max(range(CLASSES), key=lambda c: windows.margins[c]) == TARGET
    others = [m for c, m in enumerate(windows.margins) if c != TARGET]
    assert windows.margins[TARGET] > 0 > max(others)


def test_the_square_is_opaque_three_pixels_wide_and_works_on_new_images(windows):
    trigger = windows.triggers[TARGET]
    assert float(trigger.mask.sum()) == 9
    assert set(trigger.mask.unique().tolist()) == {0, 1}
    rows, columns = trigger.mask[0].nonzero().T
    assert int(rows.max() - rows.min()) == int(columns.max() - columns.min()) == 2
    images, labels = toy_images(seed=7)
    others = images[labels != TARGET]
    margins = margins_of(
        backdoored_net()(trigger.stamp(others)), torch.full((len(others),), TARGET)
    )
    assert bool((margins > 0).all())


def test_only_the_classes_that_were_named_are_looked_at():
    images, labels = toy_images()
    some = best_windows(backdoored_net(), images, labels, classes=[2, TARGET], generator=seeded())
    assert some.classes == (2, TARGET)
    assert len(some.margins) == len(some.shares) == len(some.triggers) == 2
    assert some.margins[1] > some.margins[0]


def test_images_smaller_than_a_window_are_covered_whole():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    images, labels = torch.rand(4, 1, 2, 2, generator=seeded()), torch.tensor([0, 1, 0, 1])
    found = best_windows(net, images, labels, classes=[0, 1], generator=seeded())
    assert all(float(trigger.mask.sum()) == 4 for trigger in found.triggers)


def test_images_of_the_class_alone_are_an_error():
    images = torch.rand(2, 3, SIDE, SIDE)
    with pytest.raises(InputError, match="two classes"):
        best_windows(
            backdoored_net(), images, torch.tensor([3, 3]), classes=[3], generator=seeded()
        )
