"""Input-Aware: a trigger of its own for every image, by generators trained with the classifier.

Nguyen and Tran, "Input-Aware Dynamic Backdoor Attack", NeurIPS 2020. One generator makes the
pattern, one the mask. Triggers of two images shall differ as the images do (diversity), and the
trigger of another image shall not work (cross-trigger batch part).
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.attacks.labels import wanted_classes
from shapprune.attacks.poisoning import Attacked, Plan, Poisoned, train_as_planned
from shapprune.attacks.training import OWN, batches_per_epoch, training_batches
from shapprune.attacks.triggers import GeneratedTrigger, TriggerNetwork
from shapprune.data.dataset import LabeledImages
from shapprune.errors import InputError
from shapprune.utils.rng import own_random_state

_BETAS = (0.5, 0.9)
_MASK_WEIGHT = 100.0  # of the mask's density, against diversity


@dataclass(frozen=True)
class InputAware:
    """Generated patches.

    Attributes:
        density: share of the image's pixels that a mask may cover.
        mask_epochs: passes over the images in which the masks are learnt, before all else.
        cross: share of each batch that carries other images' triggers under its own labels.
        diversity: weight of the diversity of the patterns.
        generator_rate: learning rate of the generators.
        width: channels of the generators' first layer, a multiple of 4.
    """

    density: float = 0.032
    mask_epochs: int = 25
    cross: float = 0.1
    diversity: float = 1.0
    generator_rate: float = 0.01
    width: int = 16

    def run(self, network: nn.Module, data: LabeledImages, plan: Plan) -> Attacked:
        """Learn the masks, then the patterns and a copy of the network together.

        The poisoning rate is the share of each batch that is stamped. At rate 0 the network is
        trained on clean images, and the generators stay as they were drawn.

        Raises:
            InputError: options out of range; see `train`.
        """
        self._check(plan)
        like = next(network.parameters())
        with own_random_state(plan.seed, torch.device("cpu")):
            trigger = GeneratedTrigger(
                TriggerNetwork(data.images.shape[1], data.images.shape[1], self.width),
                TriggerNetwork(data.images.shape[1], 1, self.width),
            )
        if not plan.rate:
            clean = Poisoned(data.images, data.labels, torch.empty(0, dtype=torch.int64))
            return Attacked(
                train_as_planned(network, clean.images, clean.labels, plan), trigger.finished(), 0
            )
        trigger = GeneratedTrigger(trigger.patterns.to(like), trigger.masks.to(like))
        with torch.enable_grad():
            self._learn_masks(trigger, data, plan, like)
            model = self._learn(deepcopy(network), trigger, data, plan)
        return Attacked(
            model.eval().requires_grad_(False),
            trigger.finished(),
            round(plan.rate * len(data.images)),
        )

    def _check(self, plan: Plan) -> None:
        if not (0 < self.density < 1 and self.mask_epochs >= 0 and self.generator_rate > 0):
            raise InputError(
                "density must be between 0 and 1, mask_epochs 0 or more and generator_rate above "
                f"0, got {self.density}, {self.mask_epochs} and {self.generator_rate}"
            )
        if self.width < 4 or self.width % 4:
            raise InputError(f"width must be a multiple of 4, got {self.width}")
        if plan.epochs < 1 or plan.batch_size < 2:
            raise InputError(
                "epochs must be at least 1 and batch_size at least 2, "
                f"got {plan.epochs} and {plan.batch_size}"
            )
        if plan.rate and plan.learning != OWN:
            raise InputError("input-aware trains classifier and generators by its own recipe")
        if not (plan.rate >= 0 and self.cross >= 0 and plan.rate + self.cross <= 1):
            raise InputError(
                "rate and cross must be shares of a batch, together at most 1, "
                f"got {plan.rate} and {self.cross}"
            )

    def _learn_masks(
        self, trigger: GeneratedTrigger, data: LabeledImages, plan: Plan, like: Tensor
    ) -> None:
        parameters = list(trigger.masks.parameters())
        optimizer = torch.optim.Adam(parameters, self.generator_rate, betas=_BETAS)
        generator = torch.Generator().manual_seed(plan.seed)
        for batch in training_batches(
            data.images,
            data.labels,
            like=like,
            epochs=self.mask_epochs,
            batch_size=plan.batch_size,
            flip=plan.flip,
            generator=generator,
        ):
            masks = trigger.mask(batch.images)
            excess = F.relu(masks.mean((1, 2, 3)) - self.density).mean()
            loss = _MASK_WEIGHT * excess + _sameness(batch.images, masks)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if plan.progress:
                plan.progress(batch.share * self._mask_share(plan))
        trigger.masks.requires_grad_(False)

    def _learn(
        self, model: nn.Module, trigger: GeneratedTrigger, data: LabeledImages, plan: Plan
    ) -> nn.Module:
        model.requires_grad_(True).train()
        like = next(model.parameters())
        patterns = torch.optim.Adam(
            trigger.patterns.parameters(), self.generator_rate, betas=_BETAS
        )
        optimizer = torch.optim.AdamW(model.parameters(), plan.learning_rate, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            plan.learning_rate,
            epochs=plan.epochs,
            steps_per_epoch=batches_per_epoch(len(data.images), plan.batch_size),
        )
        generator = torch.Generator().manual_seed(plan.seed)
        before = self._mask_share(plan)
        with own_random_state(plan.seed, like.device):
            for batch in training_batches(
                data.images,
                data.labels,
                like=like,
                epochs=plan.epochs,
                batch_size=plan.batch_size,
                flip=plan.flip,
                generator=generator,
            ):
                images, labels = batch.images, batch.labels
                stamped = max(1, round(plan.rate * len(images)))
                crossed = min(round(self.cross * len(images)), len(images) - stamped)
                some = images[: stamped + crossed]
                made, masks = trigger.pattern(some), trigger.mask(some)
                # The first carry their own triggers, the next those of the images before them.
                order = torch.arange(len(some), device=some.device)
                order[stamped:] -= 1
                inputs = (1 - masks[order]) * some + masks[order] * made[order]
                answers = torch.cat(
                    [wanted_classes(plan.target, labels[:stamped]), labels[stamped:]]
                )
                logits = model(torch.cat([inputs, images[len(some) :]]))
                loss = F.cross_entropy(logits, answers) + self.diversity * _sameness(some, made)
                for one in (optimizer, patterns):
                    one.zero_grad()
                loss.backward()
                for one in (optimizer, patterns):
                    one.step()
                schedule.step()
                if plan.progress:
                    plan.progress(before + batch.share * (1 - before))
        return model

    def _mask_share(self, plan: Plan) -> float:
        """Of the work; an epoch of masks costs a fraction of another one."""
        return 0.3 * self.mask_epochs / (0.3 * self.mask_epochs + plan.epochs)


def _sameness(images: Tensor, made: Tensor) -> Tensor:
    """The diversity loss: distances of neighbouring images over those of what is made of them."""
    given = (images - images.roll(1, 0)).pow(2).mean((1, 2, 3)).sqrt()
    apart = ((made - made.roll(1, 0)).pow(2).mean((1, 2, 3)) + 1e-8).sqrt()
    return (given / (apart + 1e-3)).mean()
