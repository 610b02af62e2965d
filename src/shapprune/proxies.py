"""What the defender can measure of ACC and ASR: on the few images, varied, without the attacker."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import torch
from torch import Tensor, nn

from shapprune.augmentation import augment, flip_allowed, warp
from shapprune.estimation import stamped_images
from shapprune.metrics import accuracy, predict
from shapprune.stamps import Stamp

_VARIED = 240  # images, at least
_STRENGTH = 8.0  # times as strong as inverted: attackers' triggers are
WORKS = 0.95  # ASR of a trigger so strong on the original, if it is a backdoor's
# A sink gets such a share of the warped images of other classes, and so many times as many as
# the next class gets wrongly.
_SHARE, _TIMES = 1 / 12, 4


@dataclass(frozen=True)
class Proxies:
    """Measured on the defender's images, all in [0, 1].

    Attributes:
        accuracy: share of the images, augmented, that get their label.
        agreement: share of the images, warped, that get the original model's answer. Ten labels
            say little about accuracy; agreement far from the given images says more.
        kept: share of the warped images that the original gives their label, that keep it. A weak
            network's other answers are easily changed, and worth nothing. Where none is right, it
            is the agreement.
        asr: share of the images under an inverted trigger that get its target. The trigger is
            eight times as strong as inverted, and a patch a pixel wider all round: so measured, it
            follows the ASR of the true trigger, as docs/method.md shows with figures. Where that
            is less than 95 % on the original, some triggers go too far, and those count that work,
            if there are any.
        asr_by_trigger: the same under each of the triggers alone.
    """

    accuracy: float
    agreement: float
    kept: float
    asr: float
    asr_by_trigger: tuple[float, ...]


class Yardstick:
    """Measures models against an original on one fixed draw of varied images.

    Attributes:
        sink: whether the original takes a twelfth of the warped images of other classes for the
            targets', and four times as many as for any one class that is wrong. Then these answers
            are the backdoor's. Not told of recovered images, of which many are taken so anyway.

    Args:
        original: left as it was.
        images, labels: clean, (n, C, H, W) and (n,).
        triggers: (target class, inverted trigger) pairs.
        trusted: whether the images are real. Recovered ones carry the backdoor, and warped, many
            of them are answered with its target: a repair should not agree with that, and these
            are left out. So they are of real images where the target is a sink.
        generator: on the CPU.

    Raises:
        InputError: no triggers, or no image of another class than a target.
    """

    def __init__(
        self,
        original: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        triggers: Sequence[tuple[int, Stamp]],
        trusted: bool = True,
        generator: torch.Generator,
    ) -> None:
        flip = flip_allowed(original, images)
        copies = -(-_VARIED // len(images))
        self._labels = labels.repeat(copies)
        self._varied = augment(images.repeat(copies, 1, 1, 1), generator=generator, flip=flip)
        self._warped = warp(self._varied, generator=generator)
        self._answers = predict(original, self._warped)
        self._right = self._answers == self._labels
        named = torch.tensor(sorted({t for t, _ in triggers}), device=images.device)
        others = ~torch.isin(self._labels, named)
        self.sink = trusted and _is_sink(self._answers[others], self._right[others], named)
        taken = others & torch.isin(self._answers, named) & (self.sink or not trusted)
        self._believed = taken if bool(taken.all()) else ~taken
        stamped, targets = [], []
        shares = torch.randperm(len(self._varied), generator=generator).tensor_split(len(triggers))
        for (target, stamp), share in zip(triggers, shares, strict=True):
            varied, given = self._varied[share], self._labels[share]
            # Those that the original takes for the target anyway would count as hits for ever.
            other = predict(original, varied) != target
            strong = [(target, stamp.grown().amplified(_STRENGTH))]
            mine, wanted = stamped_images(varied[other], given[other], strong)
            stamped.append(mine)
            targets.append(wanted)
        self._shares = [len(share) for share in stamped]
        self._stamped, self._targets = torch.cat(stamped), torch.cat(targets)
        hits = self._hits(original)
        works = [bool(share.mean() >= WORKS) for share in hits]
        all_count = torch.cat(hits).mean() >= WORKS or not any(works)
        self._counts = [all_count or one for one in works]

    def __call__(self, model: nn.Module) -> Proxies:
        hits = self._hits(model)
        same = (predict(model, self._warped) == self._answers).float()
        return Proxies(
            accuracy(model, self._varied, self._labels),
            float(same[self._believed].mean()),
            float(same[self._right if bool(self._right.any()) else self._believed].mean()),
            float(torch.cat(list(compress(hits, self._counts))).mean()),
            tuple(float(share.mean()) for share in hits),
        )

    def _hits(self, model: nn.Module) -> tuple[Tensor, ...]:
        """Which images, of each trigger's, are sent to its target: 0 or 1."""
        hits: tuple[Tensor, ...] = (
            (predict(model, self._stamped) == self._targets).float().split(self._shares)
        )
        return hits


def _is_sink(answers: Tensor, right: Tensor, targets: Tensor) -> bool:
    """Of the original's answers to warped images of other classes than the targets."""
    wrong = torch.bincount(answers[~right], minlength=int(targets.max()) + 1)
    mine = int(wrong[targets].sum())
    wrong[targets] = 0
    return mine >= max(1, _SHARE * len(answers), _TIMES * int(wrong.max()))
