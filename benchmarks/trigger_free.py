"""Are a backdoor's class and neurons found without a trigger? `python benchmarks/trigger_free.py`.

Three ideas that need clean images at most, and the inverted trigger to compare with:

- "offsets": for every class, the least offsets of all neurons' outputs, one a neuron and the same
  for all images and places, that send clean images to the class (ANP's perturbation of neurons,
  aimed at a class). The neurons are ranked by their Shapley values in the network so shifted.
- "latent": the least change of one layer's output, of the layer's shape and the same for all
  images, that does so (the idea of arXiv 2511.08944, by descent); ranked as above.
- "weights": CLP's channel Lipschitz constants, as standard scores in their layers. No class.
- "inverted": `invert_triggers` and `estimate_shapley`, as `shapprune repair` has them. Only the
  target's triggers are inverted here, and without refining them: the class is given away.

A change of one layer is tried late, in the middle and early: in the last, the middle and the second
layer with neurons. Only its neurons and those of later layers are ranked by it.

One JSON file a model, idea and seed in benchmarks/results/trigger_free; those that are there are
skipped. The attacker's trigger comes in for scoring alone. For the rankings the class is the true
one whatever the norms say, so that the verdict and the ranking are measured apart.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from clean_models import CACHE, DATA, ROOT
from repair import Subject, machine, spread, subjects
from shapprune.baselines.clp import channel_sensitivity
from shapprune.bench import models
from shapprune.bench.experiments import ROWS
from shapprune.bench.recipes import Recipe, load_split
from shapprune.checkpoints.state_dict import read_weights
from shapprune.data.augmentation import augment, flip_allowed
from shapprune.data.dataset import draw_per_class
from shapprune.method.attribution import estimate_shapley
from shapprune.method.inversion import KINDS, invert_triggers
from shapprune.method.outliers import detect
from shapprune.model.classifier import in_channels_last
from shapprune.model.game import NeuronGame
from shapprune.model.inference import evaluating
from shapprune.model.masking import hooked, masked
from shapprune.model.metrics import accuracy, attack_success_rate
from shapprune.model.neurons import Neurons, find_neurons
from shapprune.shapley import multilinear

OUT = ROOT / "benchmarks" / "results" / "trigger_free"
OWN = ("mnist-badnets", "gtsrb-badnets")  # of `shapprune bench models --profile cpu`
MODELS = ("demo", *OWN, "cifar10_l2inv", "cifar10_badnets", "gtsrb_trojan_wm")
CLEAN_MODELS = ("clean_cifar10_plain", "clean_cifar10_resnet")
IDEAS = ("offsets", "latent_late", "latent_middle", "latent_early", "weights", "inverted")
COUNTS = (1, 2, 4, 8, 12, 16, 24, 32)
TOP = 12
STEPS, GATE, GRADIENTS = 40, 0.95, 256
SCORED, TRUTH_IMAGES, TRUTH_GRADIENTS = 300, 400, 1024  # images of the test part; gradients


@cache
def known() -> dict[str, Subject]:
    """All models by name; those of ours are trained first where the cache lacks them."""
    recipes = {recipe.name: recipe for recipe in ROWS["cpu"]}
    return {**subjects(), **{name: of_recipe(recipes[name]) for name in OWN}}


def of_recipe(recipe: Recipe) -> Subject:
    made = cache(lambda: models.subject(recipe, root=DATA, cache=CACHE))
    return Subject(
        lambda: made().model,
        lambda split: load_split(recipe, split, root=DATA),
        recipe.target,
        lambda images: made().stamp(images),
    )


@dataclass(frozen=True, eq=False)
class Change:
    """The least change of some layers' outputs for every class.

    Attributes:
        layers: indices into the network's layers of neurons.
        deltas: a layer's, (classes, C) or (classes, C, …), the change in its output.
        norms: L2, in multiples of each neuron's scale.
        asr: share of the last images that it sends to the class.
        passes: image passes, a backward pass counted as two.
    """

    layers: tuple[int, ...]
    deltas: tuple[Tensor, ...]
    norms: tuple[float, ...]
    asr: tuple[float, ...]
    passes: int


def least_change(
    model: nn.Module,
    neurons: Neurons,
    images: Tensor,
    *,
    classes: int,
    layers: Sequence[int],
    whole: bool,
    generator: torch.Generator,
) -> Change:
    """For each class, the least change that sends clean images there, all classes in one batch.

    As `invert_triggers` does on images: Adam on the cross-entropy plus λ times the norm, λ growing
    while the gate is held. A neuron's scale is its |γ|, or the norm of its weights where it has
    none, so that no layer is cheap by its units.

    Args:
        whole: a change of the layer's shape instead of one number a neuron.
    """
    those = Neurons(tuple(neurons.layers[i] for i in layers))
    per = max(3, 60 // classes)
    free: list[Tensor] = []
    scales: list[Tensor] = []

    def measure(index: int, output: Tensor) -> Tensor:
        shape = output.shape[1:] if whole else (output.shape[1], *[1] * (output.ndim - 2))
        start = 0.01 * torch.rand(classes, *shape, generator=generator)
        free.append(start.requires_grad_())
        weight = model.get_submodule(those.layers[index].name).weight.detach()
        weight = weight.flatten(1).norm(dim=1) if weight.ndim > 1 else weight.abs()
        scales.append((weight + 1e-6).view(1, -1, *[1] * (output.ndim - 2)))
        return output

    def change(index: int, output: Tensor) -> Tensor:
        return output + (free[index] * scales[index]).repeat_interleave(per, 0)

    def norm() -> Tensor:
        return sum(p.square().flatten(1).sum(1) for p in free).sqrt()

    flip = flip_allowed(model, images)
    wanted = torch.arange(classes).repeat_interleave(per)
    asr, best = torch.zeros(classes), torch.full((classes,), torch.inf)
    with evaluating(model), torch.no_grad(), hooked(model, those, measure):
        model(images[:1])
    kept = [p.detach().clone() for p in free]
    optimizer = torch.optim.Adam(free, lr=0.05, betas=(0.5, 0.9))
    penalty = torch.full((classes,), 0.05)
    with evaluating(model), torch.enable_grad():
        for step in range(STEPS):
            drawn = images[torch.randint(len(images), (per,), generator=generator)]
            batch = augment(drawn, generator=generator, flip=flip).repeat(classes, 1, 1, 1)
            optimizer.zero_grad()
            with hooked(model, those, change):
                logits = model(batch)
            loss = F.cross_entropy(logits, wanted, reduction="none").view(classes, per).mean(1)
            size = norm()
            (loss + penalty * size).sum().backward()
            asr = 0.8 * asr + 0.2 * (logits.argmax(1) == wanted).float().view(classes, per).mean(1)
            size = size.detach()
            held = (asr >= GATE) & (size < best) & (2 * step >= STEPS)
            best = torch.where(held, size, best)
            for old, new in zip(kept, free, strict=True):
                old[held] = new.detach()[held]
            optimizer.step()
            if step >= STEPS // 10:
                penalty = penalty * torch.where(asr >= GATE, 1.1, 1 / 1.1)
    never = best.isinf()
    for old, new in zip(kept, free, strict=True):
        old[never] = new.detach()[never]
    norms = torch.where(never, size, best).tolist()
    deltas = tuple(p * scale for p, scale in zip(kept, scales, strict=True))
    passes = 3 * STEPS * classes * per
    return Change(tuple(layers), deltas, tuple(norms), tuple(asr.tolist()), passes)


@contextmanager
def changed(model: nn.Module, neurons: Neurons, change: Change, target: int) -> Iterator[None]:
    """The network with a class's change in it inside the block, before any mask of neurons."""
    those = Neurons(tuple(neurons.layers[i] for i in change.layers))
    with hooked(model, those, lambda i, output: output + change.deltas[i][target]):
        yield


def clean_values(
    model: nn.Module, neurons: Neurons, images: Tensor, labels: Tensor, generator: torch.Generator
) -> tuple[Tensor, int]:
    """Shapley values for the accuracy, from the few images augmented, and their passes."""
    varied = torch.cat([images, *(augment(images, generator=generator) for _ in "abc")])
    game = NeuronGame(model, neurons, varied, labels.repeat(4), metric="log-probability")
    values = multilinear(game, budget=GRADIENTS, min_q=0.8, generator=generator).values
    return values, game.passes


def by_change(
    model: nn.Module,
    neurons: Neurons,
    images: Tensor,
    labels: Tensor,
    change: Change,
    target: int,
    generator: torch.Generator,
) -> tuple[Tensor, int]:
    """Values for the class's success in the changed network, less those for the accuracy."""
    others = images[labels != target]
    answers = torch.full((len(others),), target)
    with changed(model, neurons, change, target):
        game = NeuronGame(model, neurons, others, answers, metric="log-probability")
        values = multilinear(game, budget=GRADIENTS, min_q=0.8, generator=generator).values
    # What lies before the change cannot be ranked by it.
    values[: sum(layer.size for layer in neurons.layers[: change.layers[0]])] = -torch.inf
    natural, passes = clean_values(model, neurons, images, labels, generator)
    return values - natural.clamp(min=0), game.passes + passes


def by_weights(
    model: nn.Module, neurons: Neurons, images: Tensor, labels: Tensor, generator: torch.Generator
) -> tuple[Tensor, int]:
    """Standard scores of CLP's constants, of the three quarters of least value for accuracy."""
    found = {layer.norm: layer.constants for layer in channel_sensitivity(model, images)}
    scores = []
    for layer in neurons.layers:
        constants = found.get(layer.name)
        if constants is None:
            scores.append(torch.full((layer.size,), -torch.inf))
        else:
            scores.append((constants - constants.mean()) / constants.std())
    natural, passes = clean_values(model, neurons, images, labels, generator)
    values = torch.cat(scores)
    bottom = natural.argsort()[: round(0.75 * len(natural))]  # worth least to the accuracy
    score = torch.full_like(values, -torch.inf)
    score[bottom] = values[bottom]
    return score, passes


def by_inversion(
    model: nn.Module,
    neurons: Neurons,
    images: Tensor,
    labels: Tensor,
    target: int,
    generator: torch.Generator,
) -> tuple[Tensor, int]:
    """The ranking of `shapprune repair`, under one inverted trigger of each kind."""
    inversions = [
        invert_triggers(
            model, images, labels, targets=[target], kind=kind, per_step=16, generator=generator
        )
        for kind in KINDS
    ]
    triggers = [(t.target, t.stamp) for inversion in inversions for t in inversion.triggers]
    values = estimate_shapley(
        model,
        images,
        labels,
        neurons=neurons,
        triggers=triggers,
        samples=GRADIENTS,
        generator=generator,
    )
    return values.scores[0], values.passes + sum(inversion.passes for inversion in inversions)


@cache
def truth(name: str) -> Tensor:
    """The score under the attacker's trigger on unseen images; kept in the cache."""
    path = CACHE / f"trigger_free_truth_{name}.safetensors"
    if not path.exists():
        subject = known()[name]
        assert subject.stamp
        assert subject.target is not None
        test, generator = subject.split("test"), torch.Generator().manual_seed(0)
        rows = torch.randperm(len(test.images), generator=generator)[:TRUTH_IMAGES]
        images, labels = test.images[rows], test.labels[rows]
        model = in_channels_last(subject.load(), images)
        neurons, other = find_neurons(model, images), labels != subject.target
        answers = torch.full((int(other.sum()),), subject.target)
        values = [
            multilinear(
                NeuronGame(model, neurons, some, wanted, metric="log-probability"),
                budget=TRUTH_GRADIENTS,
                min_q=0.8,
                generator=generator,
            ).values
            for some, wanted in ((subject.stamp(images[other]), answers), (images, labels))
        ]
        save_file({"score": values[0] - values[1].clamp(min=0)}, path)
    return read_weights(path)["score"]


def curve(subject: Subject, model: nn.Module, neurons: Neurons, score: Tensor) -> list[dict]:
    """ACC and ASR in per cent, with the attacker's trigger, over the number of neurons removed."""
    test = subject.split("test")
    rows = torch.randperm(len(test.images), generator=torch.Generator().manual_seed(1))[:SCORED]
    images, labels = test.images[rows], test.labels[rows]
    assert subject.stamp
    assert subject.target is not None
    order, points = score.argsort(descending=True), []
    for k in (0, *COUNTS):
        keep = torch.ones(1, len(neurons))
        keep[:, order[:k]] = 0
        with evaluating(model), masked(model, neurons, keep):
            acc = accuracy(model, images, labels)
            asr = attack_success_rate(
                model, images, labels, stamp=subject.stamp, target=subject.target
            )
        points.append({"removed": k, "accuracy": 100 * acc, "asr": 100 * asr})
    return points


def run(name: str, subject: Subject, idea: str, seed: int) -> dict[str, object]:
    few = draw_per_class(
        subject.split("train"), per_class=1, generator=torch.Generator().manual_seed(seed)
    )
    model = in_channels_last(subject.load(), few.images)
    images, labels, target = few.images, few.labels, subject.target
    neurons = find_neurons(model, images)
    with torch.no_grad():
        classes = model(images[:1]).shape[1]
    last = len(neurons.layers) - 1
    generator, start = torch.Generator().manual_seed(seed), perf_counter()
    one: dict[str, object] = {"model": name, "idea": idea, "seed": seed, "target": target}
    passes, score = 0, None
    if idea in ("weights", "inverted"):
        if target is not None and idea == "weights":
            score, passes = by_weights(model, neurons, images, labels, generator)
        elif target is not None:
            score, passes = by_inversion(model, neurons, images, labels, target, generator)
    else:
        whole = idea != "offsets"
        depths = {"latent_late": last, "latent_middle": last // 2, "latent_early": 1}
        layers = [depths[idea]] if whole else range(last + 1)
        change = least_change(
            model,
            neurons,
            images,
            classes=classes,
            layers=tuple(layers),
            whole=whole,
            generator=generator,
        )
        passes = change.passes
        # The rule of `shapprune.scan`, without a trial.
        found = detect(change.norms, confidence=0.9, factor=1.75, alone=4.0)
        one |= {
            "norms": change.norms,
            "asr": change.asr,
            "indices": found.indices,
            "suspects": found.targets,
        }
        if target is not None:
            ranked = sorted(range(classes), key=lambda c: change.norms[c])
            one |= {
                "rank": ranked.index(target) + 1,
                "norm_to_median": change.norms[target] / median(change.norms),
            }
            score, more = by_change(model, neurons, images, labels, change, target, generator)
            passes += more
    one |= {"passes": passes, "seconds": perf_counter() - start}
    if score is not None:
        best = set(score.topk(TOP).indices.tolist())
        one |= {
            "overlap": len(best & set(truth(name).topk(TOP).indices.tolist())),
            "curve": curve(subject, model, neurons, score),
            "neurons": score.topk(TOP).indices.tolist(),
        }
    return {**one, **machine()}


def table(folder: Path) -> str:
    """The results as Markdown: a line a model and idea, medians over seeds."""
    runs: dict[tuple[str, str], list[dict]] = {}
    for file in sorted(folder.glob("*.json")):
        one = json.loads(file.read_text())
        runs.setdefault((one["model"], one["idea"]), []).append(one)
    lines = [
        "| model | idea | seeds | target's rank | norm to median | suspects | of true 12 | "
        "2 pruned | 8 pruned | 16 pruned | 1,000 passes |",
        "|---" * 11 + "|",
    ]
    for name in (*MODELS, *CLEAN_MODELS):
        for idea in IDEAS:
            some = runs.get((name, idea))
            if not some:
                continue
            poisoned = some[0]["target"] is not None
            judged = "rank" in some[0]
            suspects = "; ".join(
                ", ".join(map(str, one["suspects"])) or "none" for one in some if "suspects" in one
            )
            cells = [
                name,
                idea,
                str(len(some)),
                spread([one["rank"] for one in some], 0) if judged else "–",
                spread([one["norm_to_median"] for one in some], 2) if judged else "–",
                suspects or "–",
                spread([one["overlap"] for one in some], 0) if poisoned else "–",
                *(_pruned(some, k) if poisoned else "–" for k in (2, 8, 16)),
                f"{median(one['passes'] for one in some) / 1000:.1f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _pruned(runs: Sequence[dict], count: int) -> str:
    points = [p for one in runs for p in one["curve"] if p["removed"] == count]
    acc, asr = (median(p[key] for p in points) for key in ("accuracy", "asr"))
    return f"{acc:.0f} / {asr:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=[*MODELS, *CLEAN_MODELS])
    parser.add_argument("--ideas", nargs="+", default=IDEAS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    for seed in arguments.seeds:
        for name in arguments.models:
            for idea in arguments.ideas:
                file = OUT / f"{name}_{idea}_{seed}.json"
                nothing = known()[name].target is None and idea in ("weights", "inverted")
                if file.exists() or nothing:
                    continue
                one = run(name, known()[name], idea, seed)
                file.write_text(json.dumps(one, indent=1) + "\n")
                print(name, idea, seed, f"{one['seconds']:.0f}s", flush=True)
    (OUT / "README.md").write_text(
        "# A backdoor's class and neurons without a trigger\n\nMade by `python "
        "benchmarks/trigger_free.py`, which says what the ideas are, from the JSON files beside "
        "it: medians (smallest … largest) over seeds, one clean image a class. The target's rank "
        "among the classes by the norm of its least change (1 is right), the classes that the "
        "rule of `scan` suspects, a seed after the other; of the best 12 neurons, those among the "
        "attacker's trigger's best 12; ACC / ASR in per cent of the pruned network, with the "
        'attacker\'s trigger on 300 unseen images. Passes of "inverted" are for the target class '
        "alone; a scan inverts for all.\n\n" + table(OUT)
    )


if __name__ == "__main__":
    main()
