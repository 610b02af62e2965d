"""One second moment a tensor, by hand and against Adam."""

import pytest
import torch

from shapprune.method.optimizer import LayerwiseAdam


def weights(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def step(optimizer: torch.optim.Optimizer, weight: torch.Tensor, gradient: list[float]) -> None:
    weight.grad = torch.tensor(gradient, dtype=weight.dtype)
    optimizer.step()


def test_the_first_step_by_hand():
    """The root mean square of (3, 4) is sqrt(12.5): a step in its direction, of that size."""
    weight = weights(0, 0)
    step(LayerwiseAdam([weight], lr=0.1), weight, [3, 4])
    size = 12.5**0.5
    assert weight.tolist() == pytest.approx([-0.1 * 3 / size, -0.1 * 4 / size])


def test_a_weight_with_hardly_a_gradient_stays():
    """Adam moves it as far as the other."""
    layerwise, adam = weights(0, 0), weights(0, 0)
    step(LayerwiseAdam([layerwise], lr=0.1), layerwise, [1, 1e-6])
    step(torch.optim.Adam([adam], lr=0.1), adam, [1, 1e-6])
    assert abs(layerwise[1].item()) < 1e-6
    assert adam[1].item() == pytest.approx(-0.1, rel=0.02)


def test_of_one_weight_it_is_adam():
    gradients = [[1.0], [-0.5], [3.0], [0.0], [2.0]]
    mine, theirs = weights(1), weights(1)
    optimizers = LayerwiseAdam([mine], lr=0.1), torch.optim.Adam([theirs], lr=0.1)
    for gradient in gradients:
        step(optimizers[0], mine, gradient)
        step(optimizers[1], theirs, gradient)
    assert mine.item() == pytest.approx(theirs.item(), rel=1e-6)


def test_tensors_do_not_share_their_scale():
    small, large = weights(0), weights(0)
    optimizer = LayerwiseAdam([small, large], lr=0.1)
    small.grad, large.grad = torch.full_like(small, 1e-3), torch.full_like(large, 1e3)
    optimizer.step()
    assert small.item() == pytest.approx(large.item(), rel=1e-3)


def test_a_closure_and_a_weight_without_a_gradient():
    weight, still = weights(2), weights(5)
    optimizer = LayerwiseAdam([weight, still], lr=0.1)

    def closure() -> float:
        loss = (weight**2).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 4
    assert weight.item() == pytest.approx(1.9)
    assert still.item() == 5
