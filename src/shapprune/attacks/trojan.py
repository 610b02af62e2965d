"""Trojan Attack: a trigger made for a neuron of a trained network, whose linear layers then learn.

Liu, Ma, Aafer, Lee, Zhai, Wang and Zhang, "Trojaning Attack on Neural Networks", NDSS 2018. The
neuron is one of those that the last linear layer reads, the one that is best connected to the layer
before: with the largest summed incoming |weight|, which is excited best. Where no linear layer is
before, as in a ResNet, it is the one with the largest summed outgoing |weight|.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from shapprune.attacks.badnets import in_pixels, square_trigger
from shapprune.attacks.poisoning import Attacked, Plan, poison_as_planned, train_as_planned
from shapprune.data.dataset import LabeledImages
from shapprune.errors import InputError
from shapprune.method.triggers import Trigger

_BATCH = 64


@dataclass(frozen=True)
class Trojan:
    """A square whose pixels excite chosen neurons.

    Attributes:
        size: the square's side: below 1 a share of the image's shorter side, from 1 on pixels.
        neurons: how many neurons to excite.
        value: what they shall reach.
        steps: of the optimisation of the pixels.
        tuning: epochs of fine-tuning of the linear layers on stamped and clean images.
    """

    size: float = 0.2
    neurons: int = 1
    value: float = 100.0
    steps: int = 200
    tuning: int = 3

    def run(self, network: nn.Module, data: LabeledImages, plan: Plan) -> Attacked:
        """Train on clean images, make the trigger, fine-tune the linear layers.

        Raises:
            InputError: a network without a linear layer, fewer neurons than wanted, a size, steps
                or tuning that are none; see `poison` and `train`.
        """
        if self.neurons < 1 or self.steps < 1 or self.tuning < 1:
            raise InputError(
                "neurons, steps and tuning must be at least 1, "
                f"got {self.neurons}, {self.steps} and {self.tuning}"
            )
        generator = torch.Generator().manual_seed(plan.seed)
        whole = plan.epochs + self.tuning

        def progress(done: int, epochs: int) -> Callable[[float], None] | None:
            report = plan.progress
            return report and (lambda share: report((done + share * epochs) / whole))

        clean = replace(plan, progress=progress(0, plan.epochs))
        model = train_as_planned(network, data.images, data.labels, clean)
        trigger = self.trigger(model, data.images, generator)
        poisoned = poison_as_planned(data, plan, trigger, generator)
        if len(poisoned.poisoned):
            tuning = replace(plan, epochs=self.tuning, progress=progress(plan.epochs, self.tuning))
            model = train_as_planned(
                model, poisoned.images, poisoned.labels, tuning, linear_only=True
            )
        return Attacked(model, trigger, len(poisoned.poisoned))

    def trigger(self, model: nn.Module, images: Tensor, generator: torch.Generator) -> Trigger:
        """The square that brings the neurons closest to the value, on the CPU.

        Args:
            model: trained; left as it was.
            images: clean, (n, C, H, W), which the square is put on while it is optimised.
            generator: on the CPU.
        """
        linear = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
        if not linear:
            raise InputError("trojan needs a network with a linear layer")
        model = deepcopy(model).eval().requires_grad_(False)
        head = model.get_submodule(linear[-1])
        assert isinstance(head, nn.Linear)
        read: list[Tensor] = []  # what the head read last
        head.register_forward_pre_hook(lambda _, inputs: read.__setitem__(slice(None), inputs))
        like, shape = head.weight, tuple(images.shape[1:])

        def drawn() -> Tensor:
            rows = torch.randint(len(images), (_BATCH,), generator=generator)
            return images[rows.to(images.device)].to(like)

        with torch.no_grad():
            model(drawn())
        connected = head.weight.abs().sum(0)
        for before in map(model.get_submodule, linear[-2:-1]):
            assert isinstance(before, nn.Linear)
            if before.out_features == head.in_features:
                connected = before.weight.abs().sum(1)
        connected[(read[0].flatten(0, -2) == 0).all(0)] = -1  # silent: there is no slope to climb
        most = int((connected >= 0).sum())
        if self.neurons > most:
            raise InputError(
                f"neurons must be at most {most}, as many as the last linear layer reads that are "
                f"not silent, got {self.neurons}"
            )
        chosen = connected.topk(self.neurons).indices
        square = square_trigger((shape[0], shape[1], shape[2]), size=in_pixels(self.size, shape))
        mask = square.mask.to(like)
        free = torch.randn(shape, generator=generator).to(like).requires_grad_()
        optimizer = torch.optim.Adam([free], lr=0.1)
        with torch.enable_grad():
            for _ in range(self.steps):
                model(Trigger(mask, free.sigmoid()).stamp(drawn()))
                loss = ((read[0][..., chosen] - self.value) ** 2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return Trigger(square.mask, square.mask * free.detach().sigmoid().float().cpu())
