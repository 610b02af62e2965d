"""The games of `benchmarks/shapley.py`, and the long runs that estimators are compared with.

`python benchmarks/boards.py NAME PART ...` computes parts of the truth about a game.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clean_models import ROOT
from repair import Subject, machine, subjects
from shapprune.data.dataset import draw_per_class
from shapprune.method.attribution import stamped_images
from shapprune.method.inversion import Kind, invert_triggers
from shapprune.method.triggers import Perturbation, Stamp, Trigger
from shapprune.model.classifier import in_channels_last
from shapprune.model.game import Metric, NeuronGame
from shapprune.model.neurons import Neurons, find_neurons
from shapprune.shapley import algorithm1
from vggs import WIDTHS, vgg

OUT = ROOT / "benchmarks" / "results" / "shapley"
UNIFORM = 1e9  # average iterations before ε-greedy sets in

# The kind of trigger, and the average iterations of one part of the truth.
GAMES: dict[str, tuple[Kind, float]] = {
    "demo": ("patch", 1000),
    "cifar10_badnets": ("patch", 250),
    "cifar10_l2inv": ("perturbation", 250),
    "gtsrb_trojan_wm": ("perturbation", 50),
    "vgg_2688": ("patch", 50),
    "vgg_10000": ("patch", 20),
}


@dataclass(frozen=True, eq=False)
class Board:
    """A network, its neurons, and the images that the game is played on.

    They are the clean ones, one a class, but for the target's, under a trigger that our own
    inversion found. The attacker's trigger is the subject's, and for scores alone.
    """

    name: str
    subject: Subject
    model: nn.Module
    neurons: Neurons
    clean: tuple[Tensor, Tensor]
    trigger: Stamp
    target: int
    images: Tensor
    labels: Tensor

    def game(self, metric: Metric = "success") -> NeuronGame:
        return NeuronGame(self.model, self.neurons, self.images, self.labels, metric=metric)


@dataclass(frozen=True, eq=False)
class Truth:
    """Long-run means, float64 (n,), and their standard errors."""

    values: Tensor
    errors: Tensor
    average_iterations: float


def subject_of(name: str) -> Subject:
    return vgg(name) if name in WIDTHS else subjects()[name]


def board(name: str) -> Board:
    subject = subject_of(name)
    assert subject.target is not None
    few = draw_per_class(
        subject.split("train"), per_class=1, generator=torch.Generator().manual_seed(0)
    )
    model = in_channels_last(subject.load(), few.images)
    trigger = _stored_trigger(name, model, few.images, few.labels, subject.target)
    stamped = stamped_images(few.images, few.labels, [(subject.target, trigger)])
    clean, neurons = (few.images, few.labels), find_neurons(model, few.images)
    return Board(name, subject, model, neurons, clean, trigger, subject.target, *stamped)


def _stored_trigger(
    name: str, model: nn.Module, images: Tensor, labels: Tensor, target: int
) -> Stamp:
    """The trigger from its file, inverted first where it is not there."""
    file = OUT / "triggers" / f"{name}.safetensors"
    if not file.exists():
        (found,) = invert_triggers(
            model,
            images,
            labels,
            targets=[target],
            kind=GAMES[name][0],
            per_step=32,
            gate=0.97,
            give_up=False,
            generator=torch.Generator().manual_seed(0),
        ).triggers
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in vars(found.stamp).items()}, file)
    tensors = load_file(file)
    return Trigger(**tensors) if GAMES[name][0] == "patch" else Perturbation(**tensors)


def play_long(played: Board, part: int) -> None:
    """Write one part of the truth: Algorithm 1, every permutation uniform, every coalition played.

    That is what the paper takes for the truth (Sec. 4.4). Bisected walks would be wrong here: they
    miss what is lost and won again within a block.
    """
    game, iterations = played.game(), GAMES[played.name][1]
    start = perf_counter()
    found = algorithm1(
        game,
        average_iterations=iterations,
        explore=UNIFORM,
        generator=torch.Generator().manual_seed(1000 + part),
    )
    write(
        OUT / "truth" / f"{played.name}_{part}.json",
        {
            "game": played.name,
            "part": part,
            "average_iterations": iterations,
            "evaluations": found.evaluations,
            "passes": game.passes,
            "seconds": perf_counter() - start,
            **machine(),
            "values": rounded(found.values),
            "standard_errors": rounded(found.standard_errors),
            "counts": found.counts.tolist(),
        },
    )


def has_truth(name: str) -> bool:
    return bool(_parts(name))


def truth(name: str) -> Truth:
    """The mean of the parts that there are, weighted by what each counted."""
    files = _parts(name)
    if not files:
        raise SystemExit(f"no truth about {name}: run `python benchmarks/boards.py {name} 0`")
    runs = [json.loads(file.read_text()) for file in files]
    values, errors, counts = (
        torch.tensor([run[key] for run in runs], dtype=torch.float64)
        for key in ("values", "standard_errors", "counts")
    )
    weights = counts / counts.sum(0)
    return Truth(
        (weights * values).sum(0),
        (weights * errors).square().sum(0).sqrt(),
        sum(run["average_iterations"] for run in runs),
    )


def _parts(name: str) -> list[Path]:
    return sorted((OUT / "truth").glob(f"{name}_[0-9].json"))


def write(file: Path, facts: dict[str, object]) -> None:
    """As JSON, a list of numbers in one line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in facts.items())
    file.write_text(f"{{\n{lines}\n}}\n")


def rounded(values: Tensor) -> list[float]:
    return [round(value, 6) for value in values.tolist()]


if __name__ == "__main__":
    played = board(sys.argv[1])
    for part in sys.argv[2:]:
        if not (OUT / "truth" / f"{played.name}_{part}.json").exists():
            play_long(played, int(part))
