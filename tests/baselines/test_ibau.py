"""I-BAU."""

from importlib import import_module

import torch
from torch.nn import functional as F

from shapprune.baselines.ibau import ibau, implicit_gradient, worst_perturbation
from toys import backdoored_net, build, random_images, seeded, toy_images


def test_implicit_gradient_is_that_of_the_exact_hessian():
    """Inner problem: ridge regression; outer: a logistic loss at its solution."""
    generator = seeded()
    a = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    w = torch.randn(6, generator=generator, dtype=torch.float64).requires_grad_()
    c = torch.randn(3, generator=generator, dtype=torch.float64)

    def inner(x):
        return 0.5 * (a @ x - w).square().sum() + 0.5 * x.square().sum()

    def outer(x):
        return F.softplus(c @ x) + 0.1 * w.square().sum()

    hessian = a.T @ a + torch.eye(3, dtype=torch.float64)
    best = torch.linalg.solve(hessian, a.T @ w)
    (exact,) = torch.autograd.grad(outer(best), w)  # through the solution itself
    rate = 1 / float(torch.linalg.matrix_norm(hessian, 2))
    (found,) = implicit_gradient(outer, inner, best.detach(), [w], rate=rate, iterations=2000)
    torch.testing.assert_close(found, exact)
    # A few iterations are the same number of terms of the Neumann series of the inverse.
    (few,) = implicit_gradient(outer, inner, best.detach(), [w], rate=rate, iterations=3)
    step = torch.eye(3, dtype=torch.float64) - rate * hessian
    slope = torch.sigmoid(c @ best.detach()) * c
    v = sum((torch.linalg.matrix_power(step, k) @ slope for k in range(3)), torch.zeros(3))
    torch.testing.assert_close(few, 0.2 * w.detach() + rate * (a @ v))


def test_the_perturbation_takes_images_from_their_class():
    net, images = build("conv-bn").requires_grad_(False), random_images(12)
    answers = net(images).argmax(1)
    delta = worst_perturbation(net, images.split(4))
    assert delta.shape == (1, 3, 8, 8)
    assert float((net(images + delta).argmax(1) != answers).float().mean()) > 0.5


def test_ibau_mixes_the_classes_of_its_batches(monkeypatch):
    net, (images, labels) = backdoored_net(), toy_images(per_class=4)
    by_class = labels.argsort()
    images, labels = images[by_class], labels[by_class]
    module = import_module("shapprune.baselines.ibau")  # the package's name is the function's
    seen = []

    def search(model, parts):
        seen.extend(parts)
        return worst_perturbation(model, parts)

    monkeypatch.setattr(module, "worst_perturbation", search)
    ibau(net, images, labels, rounds=1, batch_size=4)
    known = {image.numpy().tobytes(): int(c) for image, c in zip(images, labels, strict=True)}
    classes = [{known[image.numpy().tobytes()] for image in batch} for batch in seen]
    assert len(classes) == 8
    assert sum(len(some) for some in classes) > 16


def test_ibau_descends_the_loss_under_its_perturbation():
    net, (images, labels) = backdoored_net(), toy_images()
    repaired = ibau(net, images, labels, rounds=3, learning_rate=1e-2)
    delta = worst_perturbation(net.requires_grad_(False), [images])
    with torch.no_grad():
        before, after = (F.cross_entropy(m(images + delta), labels) for m in (net, repaired))
    assert after < before
