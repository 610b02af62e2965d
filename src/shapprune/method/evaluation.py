"""What the defender can measure of a network: on the few images, varied, without the attacker."""

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from shapprune.data.augmentation import augment, bend, warp
from shapprune.errors import InputError
from shapprune.method.case import Case
from shapprune.method.inversion import InvertedTrigger
from shapprune.method.settings import EVALUATION, EvaluationSettings
from shapprune.method.triggers import NOT_ATTACKED, Stamp, TargetMap, wanted_answers
from shapprune.model.checks import check_generator, check_module
from shapprune.model.inference import evaluating, searching
from shapprune.model.masking import masked
from shapprune.model.metrics import predict
from shapprune.model.neurons import Neurons, check_neurons


@dataclass(frozen=True)
class Share:
    """A share in [0, 1] with its 90 % interval: 5 % lie above ``high``, and 5 % below ``low``.

    Of very few source images it is all from 0 to 1.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Proxies:
    """What stands in for ACC and ASR on images that the defender does not have.

    Attributes:
        accuracy: of the images, augmented, those that get their label.
        agreement: of the images, turned, zoomed and bent, those that get the original's answer.
            Ten labels say little about accuracy; agreement far from the given images says more.
        kept: of those that the original gives their label, the ones that keep it. A weak
            network's other answers are easily changed, and worth nothing. Where none is right, it
            is the agreement.
        asr: of the images under an inverted trigger, those that it moves to the wanted answer in
            any of its forms. These are up to three, the weakest to the strongest that work on the
            original: the attacker's is stronger than the smallest that works.
        asr_by_trigger: the same under each of the triggers alone, the shares only.
        asr_by_map: where there are several maps, the same under the triggers of each: all of them
            together hide one that is left. Else empty.
    """

    accuracy: Share
    agreement: Share
    kept: Share
    asr: Share
    asr_by_trigger: tuple[float, ...]
    asr_by_map: tuple[Share, ...] = ()

    @property
    def of_maps(self) -> tuple[Share, ...]:
        """The ASR by maps, be there one alone."""
        return self.asr_by_map or (self.asr,)

    @property
    def most_left(self) -> Share:
        """The ASR of the map of which, at the upper end of the interval, most is left."""
        return max(self.of_maps, key=lambda share: share.high)


class Evaluator:
    """Measures networks on one fixed draw of varied images, each network once.

    An image of another class than a target that the original sends there is not believed: its
    answer is the backdoor's, and a repair should not agree with it. Such views are left out, as
    `believed` does while tuning.

    Args:
        case: its model is the original.
        triggers: inverted, at least one.
        neurons: of the model.
        settings: how much is measured.
        generator: on the CPU.

    Raises:
        InputError: no triggers, or no image that they attack.
    """

    @searching()
    def __init__(
        self,
        case: Case,
        triggers: Sequence[InvertedTrigger],
        *,
        neurons: Neurons,
        settings: EvaluationSettings = EVALUATION,
        generator: torch.Generator,
    ) -> None:
        if not triggers:
            raise InputError("expected at least one trigger")
        check_generator(generator)
        for trigger in triggers:
            if not isinstance(trigger, InvertedTrigger):
                raise InputError(f"expected inverted triggers, got a {type(trigger).__name__}")
        self._least_sources = settings.least_sources
        self._neurons, self._known = neurons, WeakKeyDictionary[nn.Module, dict[object, Proxies]]()
        original, count = case.model, len(case.images)
        copies = -(-settings.views // count)
        labels = case.labels.repeat(copies)
        sources = torch.arange(count, device=labels.device).repeat(copies)
        images = case.images.repeat(copies, 1, 1, 1)
        self._varied = augment(images, generator=generator, flip=case.flip_allowed)
        far = bend(warp(self._varied, generator=generator), generator=generator)
        answers = predict(original, far)
        trusted = believed([trigger.mapping for trigger in triggers], labels, answers)
        trusted = trusted if bool(trusted.any()) else ~trusted
        self._far, self._answers = far[trusted], answers[trusted]
        right = self._answers == labels[trusted]
        self._right = right if bool(right.any()) else ~right
        self._labels, self._far_sources = labels, sources[trusted]
        self._sources = sources
        shares = torch.randperm(len(labels), generator=generator).tensor_split(len(triggers))
        stamped: list[Tensor] = []
        views: list[Tensor] = []
        wanted: list[Tensor] = []
        rows: list[Tensor] = []
        for trigger, share in zip(triggers, shares, strict=True):
            share = share.to(labels.device)
            aim = wanted_answers(trigger.mapping, labels[share])
            # Those that the original sends there anyway would count as hits for ever.
            open_ = (aim != NOT_ATTACKED) & (predict(original, self._varied[share]) != aim)
            plain, aim = self._varied[share][open_], aim[open_]
            forms = _working_forms(original, trigger.stamp, plain, aim, settings)
            places = torch.arange(len(aim), device=labels.device) + sum(map(len, wanted))
            stamped.append(forms)
            views.append(places.repeat(len(forms) // max(1, len(aim))))
            wanted.append(aim)
            rows.append(share[open_])
        if not any(map(len, wanted)):
            raise InputError(
                "no image of another class than the target: give images of more classes"
            )
        self._parts = [len(part) for part in wanted]
        self._stamped, self._wanted = torch.cat(stamped), torch.cat(wanted)
        self._views = torch.cat(views)  # that each stamped image is made of
        self._rows = torch.cat(rows)  # of the views without a trigger
        self._by_map = _rows_by_map(triggers, self._parts)
        weights = torch.ones(count).expand(settings.resamples, count)
        drawn = torch.multinomial(weights, count, replacement=True, generator=generator)
        self._resamples = torch.stack([torch.bincount(row, minlength=count) for row in drawn])

    @searching()
    def __call__(self, model: nn.Module, pruned: Sequence[int] = ()) -> Proxies:
        """What is known of a model, with some of its neurons pruned.

        Args:
            model: the original, or a copy whose weights do not change any more.
            pruned: neurons that are masked meanwhile.
        """
        check_module(model)
        if pruned:
            check_neurons(self._neurons, model, pruned)
        known = self._known.setdefault(model, {})
        key = tuple(pruned)
        if key not in known:
            if pruned:
                keep = torch.ones(1, len(self._neurons), device=self._varied.device)
                keep[:, list(pruned)] = 0
                with evaluating(model), masked(model, self._neurons, keep):
                    known[key] = self._measure(model)
            else:
                known[key] = self._measure(model)
        return known[key]

    def _measure(self, model: nn.Module) -> Proxies:
        same = predict(model, self._far) == self._answers
        plain = predict(model, self._varied)
        moved = predict(model, self._stamped) == self._wanted[self._views]
        hits = torch.zeros_like(self._wanted, dtype=torch.bool)
        hits[self._views[moved]] = True
        hits &= plain[self._rows] != self._wanted  # a trigger does not move what goes there anyway
        return Proxies(
            self._share(plain == self._labels, self._sources),
            self._share(same, self._far_sources),
            self._share(same[self._right], self._far_sources[self._right]),
            self._share(hits, self._sources[self._rows]),
            tuple(
                float(part.float().mean()) if len(part) else 0.0 for part in hits.split(self._parts)
            ),
            tuple(self._share(hits[r], self._sources[self._rows[r]]) for r in self._by_map),
        )

    def _share(self, hits: Tensor, sources: Tensor) -> Share:
        """Ten images in 24 views each are ten observations: whole images are resampled."""
        each = torch.stack(
            [
                torch.bincount(sources, weights=w, minlength=self._resamples.shape[1])
                .cpu()
                .double()
                for w in (hits.double(), torch.ones_like(hits, dtype=torch.float64))
            ]
        )
        drawn = self._resamples.double() @ each.T
        shares = drawn[:, 0] / drawn[:, 1].clamp(min=1)
        value = float(hits.float().mean()) if len(hits) else 0.0
        if len(sources.unique()) < self._least_sources:
            return Share(value, 0.0, 1.0)
        return Share(value, *(float(shares.quantile(q)) for q in (0.05, 0.95)))


def _rows_by_map(triggers: Sequence[InvertedTrigger], parts: Sequence[int]) -> list[list[int]]:
    """The rows of each of several maps, where a trigger has so many; none of a single map."""
    rows: dict[TargetMap, list[int]] = {}
    end = 0
    for trigger, count in zip(triggers, parts, strict=True):
        start, end = end, end + count
        rows.setdefault(trigger.mapping, []).extend(range(start, end))
    return list(rows.values()) if len(rows) > 1 else []


def believed(maps: Sequence[TargetMap], labels: Tensor, answers: Tensor) -> Tensor:
    """Which answers are not the backdoor's: bool (n,).

    An image is not believed if the original gives it the answer that a map wants for its label.
    A target's own images are always believed.

    >>> believed([(2, None, None)], torch.tensor([0, 0, 1, 2]), torch.tensor([2, 0, 2, 2])).tolist()
    [False, True, True, True]
    """
    taken = [answers == wanted_answers(mapping, labels) for mapping in maps]
    return ~torch.stack(taken).any(0)


def _working_forms(
    original: nn.Module, stamp: Stamp, images: Tensor, wanted: Tensor, settings: EvaluationSettings
) -> Tensor:
    """The images under the strongest, the middle and the weakest form of a trigger of those that
    work on the original, one after the other; if none works, under the form that works best."""
    if not len(images):
        return images
    works, best, most = [], images, -1.0
    for growth, strength in settings.forms:
        form = stamp.scaled(strength)
        for _ in range(growth):
            form = form.dilated()
        stamped = form.stamp(images)
        rate = float((predict(original, stamped) == wanted).float().mean())
        if rate >= settings.works:
            works.append(stamped)
        if rate > most:
            best, most = stamped, rate
    if not works:
        return best
    places = sorted({0, len(works) // 2, len(works) - 1})
    return torch.cat([works[i] for i in places])
