"""``shapprune bench rival-detectors``: other papers' detections on the models of a manifest.

Each has the images that ours has, one a class, and its own bound, as published. MM-BD alone takes
no images; its margins are climbed by our optimizer.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import expm1, inf, log1p, log10
from time import perf_counter
from typing import Any

import torch
from scipy.stats import gamma
from torch import Tensor, nn

from shapprune.baselines.neural_cleanse import neural_cleanse_scan
from shapprune.method.inversion import invert_triggers
from shapprune.method.margins import maximum_margins
from shapprune.method.outliers import Method, detect
from shapprune.method.settings import PAPER
from shapprune.running.runner import Result, file_name
from shapprune_bench.options import Options
from shapprune_bench.page import Table, pages
from shapprune_bench.populations.manifest import Specimen
from shapprune_bench.populations.outcomes import true_targets
from shapprune_bench.populations.pages import auroc
from shapprune_bench.populations.scans import given_images, specimen_facts
from shapprune_bench.populations.selection import chosen_models
from shapprune_bench.rates import number, rate_facts, rate_words
from shapprune_bench.session import Study

MM_BD_LEVEL = 0.05  # of the p-value (Wang et al. 2024, Sec. 3.3)
LARGEST_SCORE = 300.0  # of what is infinitely far out: JSON knows no infinity


@dataclass(frozen=True)
class Told:
    """What a detection says of a model.

    Attributes:
        score: grows with suspicion.
        flagged: whether it is above the published bound.
        first: the class that stands out most.
    """

    score: float
    flagged: bool
    first: int


@dataclass(frozen=True)
class Rival:
    """One kind of search on one model.

    Attributes:
        specimen: the model.
        method: of `METHODS`.
        seed: of the draw of images and of the search.
    """

    specimen: Specimen
    method: str
    seed: int = 0

    @property
    def name(self) -> str:
        """Of its file."""
        return file_name(["rival", self.method, self.specimen.name, str(self.seed)], self.facts())

    def facts(self) -> dict[str, object]:
        """As JSON has it; without the folders that the models lie in."""
        return {**asdict(self), "specimen": specimen_facts(self.specimen)}


def mm_bd(margins: Sequence[float]) -> Told:
    """MM-BD (Wang et al., IEEE S&P 2024, Sec. 3.3): the p-value of the largest margin under a
    Gamma distribution that is fitted to the others, as the largest of so many draws.

    The score is -log10 of it.

    Args:
        margins: the largest margin of each class.

    >>> told = mm_bd([1.0, 1.2, 0.9, 1.1, 1.05, 0.95, 9.0, 1.0])
    >>> told.flagged, told.first
    (True, 6)
    """
    first = max(range(len(margins)), key=margins.__getitem__)
    others = [margin for c, margin in enumerate(margins) if c != first]
    fitted = gamma(*gamma.fit(others))
    p = -expm1(len(margins) * log1p(-float(fitted.sf(margins[first]))))  # exact where it is small
    return Told(-log10(p) if p > 0 else LARGEST_SCORE, p < MM_BD_LEVEL, first)


def by_norms(norms: Sequence[float], method: Method) -> Told:
    """The anomaly index of the smallest norm (Eq. 6), and whether it is above 2 (Eq. 7)."""
    found = detect(norms, method=method, logarithm=False, confidence=PAPER.confidence)
    index = found.anomaly_index
    first = min(range(len(norms)), key=norms.__getitem__)
    return Told(LARGEST_SCORE if index == inf else index, bool(found.targets), first)


def _mm_bd(model: nn.Module, images: Tensor, _labels: Tensor, seed: int) -> dict[str, Told]:
    found = maximum_margins(
        model,
        shape=images.shape[1:],
        classes=_classes(model, images),
        generator=torch.Generator().manual_seed(seed),
    )
    return {"MM-BD": mm_bd(found.values)}


def _cleanse(model: nn.Module, images: Tensor, labels: Tensor, seed: int) -> dict[str, Told]:
    found = neural_cleanse_scan(model, images, labels, seed=seed)
    return {"Neural Cleanse": by_norms([trigger.norm for trigger in found.triggers], "mad")}


def _paper(model: nn.Module, images: Tensor, labels: Tensor, seed: int) -> dict[str, Told]:
    found = invert_triggers(
        model,
        images,
        labels,
        targets=range(_classes(model, images)),
        steps=PAPER.inversion_steps,
        give_up=False,
        generator=torch.Generator().manual_seed(seed),
    )
    return {
        "MAD-small (the paper)": by_norms(found.norms, "mad-small"),
        "MAD (the paper's patches)": by_norms(found.norms, "mad"),
    }


@torch.no_grad()
def _classes(model: nn.Module, images: Tensor) -> int:
    return int(model(images[:1]).shape[1])


METHODS: dict[str, Callable[[nn.Module, Tensor, Tensor, int], dict[str, Told]]] = {
    "mm-bd": _mm_bd,
    "paper": _paper,
    "neural-cleanse": _cleanse,
}


def measure(task: Rival) -> dict[str, object]:
    """What the detections of one search say.

    Raises:
        InputError: the model or its images cannot be read, or it cannot be examined.
    """
    few = given_images(task.specimen, 1, torch.Generator().manual_seed(task.seed))
    model, start = task.specimen.load(), perf_counter()
    told = METHODS[task.method](model, few.images, few.labels, task.seed)
    return {
        "told": {name: asdict(one) for name, one in told.items()},
        "seconds": perf_counter() - start,
    }


def report(done: Sequence[tuple[Rival, Result]]) -> dict[str, bytes]:
    """The pages: how often each detection is right, on all models and by attack."""
    found: dict[str, list[tuple[Specimen, Told]]] = {}
    for task, result in done:
        told = result["told"]
        assert isinstance(told, dict)
        for name, one in told.items():
            found.setdefault(name, []).append((task.specimen, Told(**one)))
    head = ["detection", "scans", "AUROC", "clean, flagged", "poisoned, flagged", "target first"]
    attacks = sorted({s.attack for some in found.values() for s, _ in some if s.attack})
    parts = [
        Table(
            "Other detections",
            "One clean image a class (MM-BD takes none), each with its published bound: a p-value "
            f"below {MM_BD_LEVEL}, an anomaly index above 2. Target first: of backdoors with "
            "single targets, how often the class that stands out most is one. Intervals are "
            "Wilson's, of 95 %.",
            head,
            [_row(name, some) for name, some in found.items()],
        ),
        Table(
            "AUROC by attack",
            "Against all clean models.",
            ["attack", *found],
            [
                [
                    attack,
                    *(
                        number(
                            _summary([p for p in some if p[0].attack in (None, attack)])["auroc"]
                        )
                        for some in found.values()
                    ),
                ]
                for attack in attacks
            ],
        ),
    ]
    summary = {name: _summary(some) for name, some in found.items()}
    return {
        **pages(parts, "Other detections"),
        "rivals.json": (json.dumps(summary, indent=1) + "\n").encode(),
    }


def _summary(some: Sequence[tuple[Specimen, Told]]) -> dict[str, Any]:
    """AUROC and rates, as JSON holds them; a rate as `rate_facts` has it."""
    clean = [(specimen, told) for specimen, told in some if not specimen.backdoored]
    poisoned = [(specimen, told) for specimen, told in some if specimen.backdoored]
    single = [(specimen, told) for specimen, told in poisoned if true_targets(specimen)]
    return {
        "scans": len(some),
        "auroc": auroc([told.score for _, told in clean], [told.score for _, told in poisoned]),
        "clean_flagged": _rate(clean, lambda _, told: told.flagged),
        "poisoned_flagged": _rate(poisoned, lambda _, told: told.flagged),
        "target_first": _rate(single, lambda model, told: told.first in true_targets(model)),
    }


def _rate(
    some: Sequence[tuple[Specimen, Told]], is_hit: Callable[[Specimen, Told], bool]
) -> dict[str, float]:
    """With an interval of as many cases as there are models: draws of one are no others."""
    cases = len({specimen.name for specimen, _ in some})
    return rate_facts((is_hit(*pair) for pair in some), cases=cases)


def _row(name: str, some: Sequence[tuple[Specimen, Told]]) -> list[str]:
    facts = _summary(some)
    rates = [facts[key] for key in ("clean_flagged", "poisoned_flagged", "target_first")]
    return [name, str(facts["scans"]), number(facts["auroc"]), *map(rate_words, rates)]


def study(options: Options) -> Study[Rival]:
    """The searches on the manifest's models whose attack did not fail.

    Raises:
        InputError: no such method, or see `chosen_models`.
    """
    tasks = [
        Rival(specimen, method, seed)
        for method in options.chosen_methods(METHODS, "rival-detectors")
        for specimen in chosen_models(options)
        for seed in options.seeds
        if not specimen.attack_failed
    ]
    return Study(
        "searches", tasks, measure, _outcome, report, needs=lambda task: task.specimen.files
    )


def _outcome(result: Result) -> str:
    told = result["told"]
    assert isinstance(told, dict)
    return ", ".join(f"{name} {one['score']:.2f}" for name, one in told.items())
