"""Models are run and left as they were."""

import pytest
import torch
from torch import Tensor, nn

from shapprune.errors import InputError
from shapprune.model.classifier import check_classifier, check_input
from shapprune.model.inference import cast_like, copy_of, in_full_precision


def fails(message: str):
    """Every refusal is one line, on the point."""
    return pytest.raises(InputError, match=rf"(?s)\A[^\n]*{message}[^\n]*\Z")


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        assert torch.equal(tensor, other[name]), name


class Writes(nn.Module):
    """Into its images and its statistics; a dropout in it draws numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.register_buffer("calls", torch.zeros(()))
        self.head = nn.Linear(3, 4)

    def forward(self, images: Tensor) -> Tensor:
        images.mul_(0.5)
        self.calls = self.calls + 1
        norm = self.norm
        images = nn.functional.batch_norm(
            images, norm.running_mean, norm.running_var, None, None, True
        )
        return self.head(nn.functional.dropout(images.mean((2, 3))))


def test_the_dry_run_leaves_no_trace():
    model = Writes().train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    calls, images = model.calls, torch.rand(2, 3, 8, 8)
    before, random = images.clone(), torch.random.get_rng_state()
    assert check_classifier(model, images=images) == 4
    assert check_input(model, images, torch.tensor([0, 1]))[2] == 4
    assert torch.equal(images, before)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert_same(model.state_dict(), state)
    assert model.calls is calls
    assert all(module.training for module in model.modules())


def test_a_model_without_eval_mode_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    exported = torch.export.export(model, (torch.rand(1, 1, 2, 2),)).module()
    with fails("cannot be set to eval mode, .*NotImplementedError"):
        check_classifier(exported, images=torch.rand(1, 1, 2, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_worked_on_in_a_float32_copy(dtype):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(dtype)
    whole = in_full_precision(model)
    assert {t.dtype for t in whole.state_dict().values()} == {torch.float32, torch.int64}
    assert model[0].weight.dtype == dtype
    cast_like(whole, model)
    assert_same(whole.state_dict(), model.state_dict())


def test_a_float32_model_with_a_float64_buffer_is_worked_on_itself():
    model = nn.Linear(2, 3)
    model.register_buffer("mean", torch.zeros((), dtype=torch.float64))
    assert in_full_precision(model) is model


def test_a_model_that_cannot_be_copied_is_told():
    model = nn.Linear(2, 3).double()
    model.activations = model(torch.ones(1, 2).double())  # holds a graph
    for copy in (copy_of, in_full_precision):
        with fails("cannot be copied, .* keeping no tensor with a graph in it .*deepcopy"):
            copy(model)
