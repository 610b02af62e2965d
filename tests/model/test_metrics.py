"""ACC and ASR of a classifier that reads its answer off the image."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.errors import InputError
from shapprune.model.metrics import accuracy, attack_success_rate, predict


class Reads(nn.Module):
    """The class is what the first pixel says, in tenths."""

    def forward(self, images: Tensor) -> Tensor:
        return F.one_hot((10 * images[:, 0, 0, 0]).round().long(), 10).float()


def says(*classes: int) -> Tensor:
    images = torch.zeros(len(classes), 1, 2, 2)
    images[:, 0, 0, 0] = torch.tensor(classes) / 10
    return images


def writes(number: int, only_after: float = -1.0):
    """A stamp that makes the image say a number, where it says more than ``only_after``."""

    def stamp(images: Tensor) -> Tensor:
        stamped = images.clone()
        stamped[:, 0, 0, 0][images[:, 0, 0, 0] > only_after] = number / 10
        return stamped

    return stamp


def test_predictions():
    assert predict(Reads(), says(3, 0, 9)).tolist() == [3, 0, 9]


def test_predictions_over_many_chunks():
    classes = [i * 7 % 10 for i in range(1001)]
    assert predict(Reads(), says(*classes)).tolist() == classes


def test_predictions_in_eval_mode():
    model = nn.Sequential(nn.Dropout(0.999), Reads()).train()
    assert predict(model, says(3, 7)).tolist() == [3, 7]
    assert model[0].training


def test_accuracy():
    assert accuracy(Reads(), says(1, 2, 3, 4), torch.tensor([1, 2, 0, 4])) == 0.75


def test_asr_leaves_images_of_the_target_out():
    """Of four others, the two that say more than 2 turn to 5."""
    images, labels = says(1, 2, 3, 4, 5, 5), torch.tensor([1, 2, 3, 4, 5, 5])
    stamp = writes(5, only_after=0.25)
    assert attack_success_rate(Reads(), images, labels, stamp=stamp, target=5) == 0.5


def test_asr_goes_by_labels_and_not_by_answers():
    """An image answered with the target before, though its label is another, counts."""
    images, labels = says(5, 1), torch.tensor([1, 1])
    assert attack_success_rate(Reads(), images, labels, stamp=lambda x: x, target=5) == 0.5


def test_asr_of_all_to_all():
    """The next class is wanted. Label 9 wants 9, and is left out."""
    images, labels = says(1, 3, 3, 0), torch.tensor([0, 2, 7, 9])
    rate = attack_success_rate(
        Reads(), images, labels, stamp=lambda x: x, target=lambda y: (y + 1).clamp(max=9)
    )
    assert rate == pytest.approx(2 / 3)


def test_asr_of_many_images():
    labels = torch.arange(1234) % 10
    images = says(*labels.tolist())
    stamp = writes(0, only_after=0.45)  # 5 to 9 of 1 to 9
    rate = attack_success_rate(Reads(), images, labels, stamp=stamp, target=0)
    others = labels[labels != 0]
    assert rate == pytest.approx(float((others >= 5).float().mean()))


def test_no_images():
    with pytest.raises(InputError, match="at least one image"):
        accuracy(Reads(), says(), torch.tensor([]))


@pytest.mark.parametrize("target", [5, lambda y: y])
def test_no_image_of_another_class(target):
    with pytest.raises(InputError, match="another class"):
        attack_success_rate(
            Reads(), says(5, 5), torch.tensor([5, 5]), stamp=lambda x: x, target=target
        )
