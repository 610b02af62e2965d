"""Models are run and left as they were."""

import pytest
import torch
from torch import Tensor, nn

from shapprune.errors import InputError
from shapprune.model.classifier import check_classifier, check_input
from shapprune.model.inference import cast_like, copy_of, in_full_precision, searching


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
    class Lonely(nn.Linear):
        def __deepcopy__(self, memo):
            raise TypeError("no copies")

    for copy in (copy_of, in_full_precision):
        with fails("cannot be copied, .* make copy.deepcopy of it work .TypeError: no copies"):
            copy(Lonely(2, 3).double())


def test_tensors_with_a_graph_are_copied_without_it():
    model = nn.Linear(2, 3)
    model.kept = {"twice": [model(torch.ones(1, 2))] * 2}
    copy = copy_of(model)
    one, other = copy.kept["twice"]
    assert one is other  # as in the original
    assert torch.equal(one, model.kept["twice"][0])
    assert not one.requires_grad
    assert model.kept["twice"][0].requires_grad
    assert all(p.requires_grad for p in copy.parameters())


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_reparametrised_weights_are_copied_and_stay_so():
    model = nn.utils.weight_norm(nn.Linear(2, 3))
    copy = copy_of(model)
    copy.weight_g.data *= 2
    images = torch.ones(1, 2)
    assert torch.allclose(copy(images) - copy.bias, 2 * (model(images) - model.bias))


def test_weights_made_in_inference_mode_are_worked_on_in_a_copy():
    with torch.inference_mode():
        model = nn.Linear(2, 3)
    copy = in_full_precision(model)
    copy(torch.ones(1, 2)).sum().backward()
    assert copy.weight.grad is not None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_searching_has_gradients_wherever_it_is_called(mode):
    @searching()
    def slope(x):
        x = x.clone().requires_grad_()
        (found,) = torch.autograd.grad((x**2).sum(), x)
        return found

    with mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert slope(torch.tensor([3.0])) == 6
        assert not torch.is_grad_enabled()
        with searching():
            assert not torch.is_autocast_enabled("cpu")


def test_searching_makes_float32_tensors_on_the_cpu():
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"), searching():
            made = torch.ones(1)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert (made.dtype, made.device.type) == (torch.float32, "cpu")


def test_compiled_modules_run_their_hooks_while_searching():
    inner = nn.Sequential(nn.Linear(2, 3))
    model = torch.compile(inner, backend="eager")
    model(torch.ones(1, 2))
    seen = []
    handle = inner[0].register_forward_hook(lambda *_: seen.append(1))
    with searching():
        model(torch.ones(1, 2))
    handle.remove()
    assert seen == [1]
