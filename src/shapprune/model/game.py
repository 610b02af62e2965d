"""The game that a network's neurons play, evaluated for many coalitions at once."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from shapprune.errors import InputError
from shapprune.model.checks import check_differentiable, check_number
from shapprune.model.classifier import check_examples
from shapprune.model.inference import CHUNK, evaluating, searching
from shapprune.model.masking import hooked, masked
from shapprune.model.neurons import Neurons, check_neurons

Metric: TypeAlias = Literal["success", "log-probability", "margin"]

_BATCH_SIZE = 32  # coalitions whose common layers are looked for
_MOST_ROWS = {"cpu": CHUNK, "cuda": 4096}


class NeuronGame:
    """The game whose players are a network's neurons; its value is how well a coalition answers.

    With clean images and their classes, the metric "success" is ACC; with stamped images and the
    target class, it is ASR, the metric of the paper (Sec. 3.2). `outcomes` has the images one by
    one: stamped and clean images in one game give ASR and ACC in one pass.

    Coalitions are evaluated many at a time, with a mask for each row of a batch. In a network
    without branches, those that agree in the first layers share them: the batch has one row for
    each image and distinct beginning of a mask, and grows from layer to layer. Memory is bounded
    whatever the number of coalitions and images.

    Attributes:
        n, m: number of players and of images.
        passes: image passes asked for so far, shared or not; a backward pass counts as two.

    Args:
        model: the network; used in eval mode, left as it was.
        images: (m, C, H, W) in [0, 1], m at least 1.
        labels: int64 (m,), the answer that counts.
        metric: of an image's logits: "success" is 1 where the answer is the label and else 0,
            "log-probability" is the label's, "margin" is its logit less the largest other one.
        rows: images in a batch at most; None to choose by the free memory. Results do not depend
            on it but for rounding.

    Raises:
        InputError: no images, not as many labels, an unknown metric, another model's neurons.
    """

    @searching()
    def __init__(
        self,
        model: nn.Module,
        neurons: Neurons,
        images: Tensor,
        labels: Tensor,
        *,
        metric: Metric = "success",
        rows: int | None = None,
    ) -> None:
        images, labels, _ = check_examples(model, images, labels)
        check_differentiable(model)
        check_neurons(neurons, model)
        if metric not in get_args(Metric):
            raise InputError(f"metric must be one of {get_args(Metric)}, got {metric!r}")
        self._model, self._neurons = model, neurons
        self._images, self._labels, self._metric = images, labels, metric
        self.n, self.m = len(neurons), len(images)
        self.passes = 0
        if rows is not None:
            check_number("rows", rows, 1)
        self._rows = rows or _affordable_rows(model, images)
        self._branchless = self._shares_correctly()

    def __call__(self, coalitions: Any) -> Any:
        """The mean of the metric over the images.

        Args:
            coalitions: bool (b, n), the neurons that are present; a tensor, or an array as
                shapiq has it, which may also be a single coalition (n,).

        Returns:
            Float (b,), of the same kind.
        """
        if isinstance(coalitions, np.ndarray):
            return self(torch.from_numpy(np.atleast_2d(coalitions))).cpu().numpy()
        return self.outcomes(coalitions).mean(1)

    @searching()
    def outcomes(self, coalitions: Tensor) -> Tensor:
        """The metric of every coalition and image: float (b, m)."""
        found = torch.empty(len(coalitions), len(self._images), device=self._images.device)
        batch_size = _BATCH_SIZE if self._branchless else max(1, self._rows // len(self._images))
        with evaluating(self._model), torch.no_grad():
            for some in torch.arange(len(coalitions)).split(min(batch_size, self._rows)):
                masks = coalitions[some].to(self._images)
                run = self._shared if self._branchless else self._plain
                images = torch.arange(len(self._images)).split(self._rows // len(masks) or 1)
                for few in images:
                    logits = run(masks, self._images[few])
                    found[some[0] : some[-1] + 1, few] = self._measure(logits, self._labels[few])
        self.passes += found.numel()
        return found

    @searching()
    def gradient(self, masks: Tensor) -> Tensor:
        """Gradients of the metric at fractional masks; for "success", of the label's probability.

        Row i of b is played on image ⌊i · m / b⌋ alone: averages over rows estimate the gradient
        of the mean over images, at one image pass a row instead of m.

        Args:
            masks: float (b, n) in [0, 1].

        Returns:
            Float (b, n): the derivative of row i's metric by each of its mask entries.
        """
        gradients = torch.empty_like(masks, device=self._images.device)
        with evaluating(self._model), torch.enable_grad():
            for row in torch.arange(len(masks), device=self._images.device).split(self._rows):
                # At exactly 0, ReLU and max pooling pass no gradient on to an absent neuron.
                part = masks[row.to(masks.device)].to(self._images).clamp(min=1e-3)
                part.requires_grad_()
                image = row * len(self._images) // len(masks)
                with masked(self._model, self._neurons, part):  # checkpoints run it again
                    logits = self._answer(self._images[image])
                    answer = self._measure(logits[None], self._labels[image], smooth=True)
                    (gradients[row],) = torch.autograd.grad(answer.sum(), part)
        self.passes += 3 * len(masks)
        return gradients

    def _answer(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=images.is_cuda):
            logits: Tensor = self._model(images)
        return logits.float()

    def _plain(self, masks: Tensor, images: Tensor) -> Tensor:
        """Logits (b, k, classes), every coalition and image on its own."""
        rows = masks.repeat_interleave(len(images), 0)
        with masked(self._model, self._neurons, rows):
            logits = self._answer(images.repeat(len(masks), *[1] * (images.ndim - 1)))
        return logits.view(len(masks), len(images), -1)

    def _shared(self, masks: Tensor, images: Tensor) -> Tensor:
        """As `_plain`, with the layers that coalitions have in common computed once."""
        with _growing(self._model, self._neurons, masks) as beginning:
            logits = self._answer(images)
        return logits.view(-1, len(images), logits.shape[1])[beginning]

    def _measure(self, logits: Tensor, labels: Tensor, smooth: bool = False) -> Tensor:
        """The metric (b, k) of logits (b, k, classes), or of success what has a gradient."""
        if self._metric == "success" and not smooth:
            return (logits.argmax(-1) == labels).float()
        chosen = labels.expand(logits.shape[:2])[..., None]
        if self._metric == "success":
            return logits.softmax(-1).gather(-1, chosen)[..., 0]
        if self._metric == "log-probability":
            return logits.log_softmax(-1).gather(-1, chosen)[..., 0]
        others = logits.scatter(-1, chosen, -torch.inf).amax(-1)
        return logits.gather(-1, chosen)[..., 0] - others

    def _shares_correctly(self) -> bool:
        """Whether growing batches pass the network: a branch would meet more rows than it has.

        Told by trying, on coalitions that part in the first layer, in the middle and in the last.
        """
        if any(isinstance(module, GraphModule) for module in self._model.modules()):
            return False  # torch.fx prints what it fails on
        masks = torch.ones(4, self.n, device=self._images.device)
        masks[1, -1] = masks[2, self.n // 2] = masks[3, 0] = 0
        images = self._images[:2]
        with evaluating(self._model), torch.no_grad():
            wanted = self._plain(masks, images)
            try:
                return torch.allclose(self._shared(masks, images), wanted, rtol=1e-2, atol=1e-3)
            except (RuntimeError, ValueError, IndexError):
                return False


@contextmanager
def _growing(model: nn.Module, neurons: Neurons, masks: Tensor) -> Iterator[Tensor]:
    """Inside the block, a batch of images grows to one row for each distinct mask and image.

    Yields:
        int64 (b,): which of the repeated batch's masks each of ``masks`` is.
    """
    beginning = torch.zeros(len(masks), dtype=torch.int64, device=masks.device)
    steps = []  # a layer's: rows to take from the layer before, and their masks
    for part in neurons.split(masks):
        before = beginning
        distinct, beginning = torch.cat([before[:, None].to(part), part], 1).unique(
            dim=0, return_inverse=True
        )
        steps.append((distinct[:, 0].long(), distinct[:, 1:]))

    def grow(index: int, output: Tensor) -> Tensor:
        parents, mask = steps[index]
        known = 1 if index == 0 else len(steps[index - 1][0])
        rows = output.view(known, -1, *output.shape[1:])
        if len(parents) > known:  # else they are the same, in the same order
            rows = rows[parents]
        repeated: Tensor = rows.flatten(0, 1)
        return repeated * neurons.layers[index].spread(mask, repeated)

    with hooked(model, neurons, grow):
        yield beginning


def _affordable_rows(model: nn.Module, images: Tensor) -> int:
    """Images in a batch, so that all of a network's activations take a quarter of free memory."""
    sizes: list[int] = []

    def note(_module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.numel() * output.element_size())

    leaves = [module for module in model.modules() if next(module.children(), None) is None]
    handles = [module.register_forward_hook(note) for module in leaves]
    try:
        with evaluating(model), torch.no_grad():
            model(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    most = _MOST_ROWS.get(images.device.type, CHUNK)
    return max(1, min(most, _free_memory(images.device) // 4 // max(1, sum(sizes))))


def _free_memory(device: torch.device) -> int:
    """In bytes; a guess where it cannot be known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", ()):  # not on macOS, nor on Windows
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 4 << 30
