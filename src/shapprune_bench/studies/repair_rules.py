"""``shapprune bench repair-rules``: what each rule of the repair is worth.

Of every poisoned model, all candidates are measured with the attacker's trigger, those of other
rules too; `rules_scored` then chooses among them. The defender's choice sees proxies alone.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from shapprune.method.attribution import estimate_shapley
from shapprune.method.case import Case, check_case
from shapprune.method.evaluation import Evaluator, Proxies
from shapprune.method.evidence import Evidence
from shapprune.method.finetuning import distillation_pool, fine_tune
from shapprune.method.margins import maximum_margins
from shapprune.method.optimizer import LayerwiseAdam
from shapprune.method.perturbations import best_perturbations
from shapprune.method.pruning import prune
from shapprune.method.refinement import repair_triggers
from shapprune.method.repair import extremes_of, tuning_starts
from shapprune.method.selection import Candidate
from shapprune.method.settings import REPAIR_RULES, SELECTION
from shapprune.method.triggers import TargetMap, as_map, targets_of
from shapprune.method.untargeted import untargeted_triggers
from shapprune.method.windows import best_windows
from shapprune.model.masking import remove_neurons
from shapprune.model.metrics import accuracy, predict
from shapprune.model.neurons import find_neurons
from shapprune.running.runner import file_name
from shapprune.utils.progress import Clock
from shapprune_bench.options import Options
from shapprune_bench.populations.manifest import Specimen
from shapprune_bench.populations.repairs import (
    attacked_images,
    targets_of_specimen,
)
from shapprune_bench.populations.scans import given_images, specimen_facts, unseen_images
from shapprune_bench.populations.selection import chosen_models
from shapprune_bench.session import Study
from shapprune_bench.studies.rules_scored import page


@dataclass(frozen=True)
class Candidates:
    """A model whose candidates are measured.

    Attributes:
        specimen: the model; its targets are given.
        seed: of the draw of images and of all else.
        rules: of the method: results of others are not taken for these.
    """

    specimen: Specimen
    seed: int = 0
    rules: str = REPAIR_RULES

    @property
    def name(self) -> str:
        """Of its file."""
        return file_name(["candidates", self.specimen.name, str(self.seed)], self.facts())

    def facts(self) -> dict[str, object]:
        """As JSON has it; without the folders that the models lie in."""
        return {**asdict(self), "specimen": specimen_facts(self.specimen)}


def measure(task: Candidates) -> dict[str, object]:
    """All candidates of a repair, as the defender and as the attacker sees them.

    Raises:
        InputError: the model or its images cannot be read, or it cannot be repaired.
    """
    specimen, seed = task.specimen, task.seed
    few = given_images(specimen, 1, _generator(seed))
    case = check_case(specimen.load(), few.images, few.labels)
    maps = tuple(as_map(target, case.classes) for target in targets_of_specimen(specimen))
    images, labels = unseen_images(specimen)
    attacked = attacked_images(specimen, images, labels)

    def scores(network: nn.Module) -> dict[str, float]:
        return {"accuracy": accuracy(network, images, labels), **attacked.score(network)}

    before, rows = _candidates(case, maps, seed, scores)
    return {"before": scores(case.model), "proxies": asdict(before), "candidates": rows}


def _candidates(
    case: Case,
    maps: Sequence[TargetMap],
    seed: int,
    scores: Callable[[nn.Module], dict[str, float]],
) -> tuple[Proxies, list[dict[str, object]]]:
    """Proxies of the original, and a row for each candidate, those of other rules too."""
    model, evidence = case.model, evidence_of(case, maps, seed)
    neurons = find_neurons(model, case.images)
    triggers = repair_triggers(case, maps, evidence=evidence, seed=seed, clock=Clock(None))
    values = estimate_shapley(
        model,
        case.images,
        case.labels,
        neurons=neurons,
        triggers=[(trigger.mapping, trigger.stamp) for trigger in triggers],
        extremes=extremes_of(case, maps, evidence),
        flip=case.flip_allowed,
        generator=_generator(seed),
    )
    evaluator = Evaluator(case, triggers, neurons=neurons, generator=_generator(seed))
    rows: list[dict[str, object]] = []

    def add(rule: str, candidate: Candidate, network: nn.Module) -> None:
        rows.append({"tuned": rule, **asdict(candidate), "true": scores(network)})

    pruned: list[Candidate] = []
    for i, score in enumerate(values.scores):
        pruning = prune(model, score=score, evaluator=evaluator)
        for point in pruning.curve:
            first = pruning.first(point.pruned)
            pruned.append(Candidate("pruned", i, first, point.proxies))
            add("not", pruned[-1], remove_neurons(model, neurons, first))
    pool = distillation_pool(case, maps, generator=_generator(seed))
    for rule, start, stamped in _starts(pruned):
        student = fine_tune(
            model,
            pool,
            neurons=neurons,
            pruned=start.pruned,
            stamps=[trigger.stamp for trigger in triggers],
            stamped=stamped,
            optimizer=torch.optim.Adam if rule == "with Adam" else LayerwiseAdam,
            generator=_generator(seed),
        )
        add(rule, replace(start, way="tuned", proxies=evaluator(student)), student)
    return evaluator(model), rows


def _starts(pruned: Sequence[Candidate]) -> Iterable[tuple[str, Candidate, float]]:
    """What is tuned, by which rule, and the share of a batch that is stamped."""
    by_rule = tuning_starts(pruned, None)
    for rule in ("by the rules", "with Adam"):
        for start, stamped in by_rule:
            yield rule, start, stamped
    if by_rule[0][0].pruned:
        for stamped in (SELECTION.least_stamped, SELECTION.most_stamped):
            yield "without pruning", pruned[0], stamped


def evidence_of(case: Case, maps: Sequence[TargetMap], seed: int) -> Evidence:
    """What a repair takes from a scan, of the targets alone: they are known."""
    model, images, labels, classes = case.model, case.images, case.labels, case.classes
    margins = maximum_margins(
        model, shape=images.shape[1:], classes=classes, generator=_generator(seed)
    )
    single = targets_of([mapping for mapping in maps if len(targets_of([mapping])) == 1])
    windows = perturbations = untargeted = None
    if single:
        given: dict[str, Any] = {"classes": single}
        windows = best_windows(model, images, labels, generator=_generator(seed), **given)
        perturbations = best_perturbations(
            model, images, labels, generator=_generator(seed), **given
        )
    else:
        untargeted = untargeted_triggers(
            model, images, predict(model, images), classes=classes, generator=_generator(seed)
        )
    return Evidence(
        classes, margins, windows=windows, perturbations=perturbations, untargeted=untargeted
    )


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def study(options: Options) -> Study[Candidates]:
    """The candidates of the manifest's poisoned models.

    Raises:
        InputError: see `chosen_models`.
    """
    tasks = [
        Candidates(specimen, seed)
        for specimen in chosen_models(options)
        for seed in options.seeds
        if specimen.backdoored and not specimen.attack_failed
    ]
    return Study(
        "models",
        tasks,
        measure,
        lambda result: f"{len(result['candidates'])} candidates",  # type: ignore[arg-type]
        lambda done: {"report.md": page([(t.specimen.name, r) for t, r in done]).encode()},
        needs=lambda task: task.specimen.files,
    )
