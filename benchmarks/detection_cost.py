"""What a verdict costs, beside Neural Cleanse's detection on the same models in the same run.

`python benchmarks/detection_cost.py [--budget SECONDS]` scans two models of ../shared, of 10 and of
43 classes, from one image a class, and then reverses triggers as Neural Cleanse does by its
authors' settings: 31 batches of 32 clean images a step, up to 1,000 steps a class. After the
budget it is stopped, and the rest is told from the steps that the classes took until then.
"""

import argparse
import json
from pathlib import Path
from time import perf_counter

import torch

from repair import machine
from shapprune.baselines.neural_cleanse import neural_cleanse_scan
from shapprune.data.loading import load_images
from shapprune.pipeline import scan
from shapprune_bench.manifest import Specimen, read_manifest

HERE = Path(__file__).resolve().parent
OUT = HERE / "results" / "detection_cost"
FOREIGN = HERE.parents[1] / "shared" / "foreign"
MODELS = ("verazuo_mnist", "gtsrb-trojan-wm")
IMAGES, STEPS = 31 * 32, 1000  # that Neural Cleanse has, and takes at most for a class
FEWEST = 26  # steps of a class: after 25 without a smaller mask it may end


class Enough(Exception):
    """The budget is spent."""


class Steps:
    """Counts the steps of each class by the progress that Neural Cleanse tells.

    Attributes:
        over: of the classes that came to their end.
        current: of the class that is at work.
    """

    def __init__(self, classes: int, budget: float) -> None:
        self.over: list[int] = []
        self.current = 0
        self._classes, self._until = classes, perf_counter() + budget

    def progress(self, share: float) -> None:
        """Takes the share done after each step, and that of a whole class after its last one."""
        done = round(share * self._classes * STEPS) - STEPS * len(self.over)
        if done == STEPS:
            # The last of all steps tells the same share as the end does.
            self.over.append(STEPS if self.current == STEPS - 1 else self.current)
            self.current = 0
        elif done > 0:
            self.current = done
        if perf_counter() > self._until:
            raise Enough


def compare(specimen: Specimen, budget: float) -> dict[str, object]:
    """The cost of our scan and of Neural Cleanse's."""
    model, classes = specimen.load(), specimen.num_classes

    def images(per_class: int) -> tuple[torch.Tensor, torch.Tensor]:
        data = load_images(
            specimen.data or "",
            num_classes=classes,
            input_size=specimen.input_size,
            per_class=per_class,
            generator=torch.Generator().manual_seed(0),
        )
        return data.images, data.labels

    found = scan(model, *images(1), seed=0)
    many, labels = images(-(-IMAGES // classes))
    drawn = torch.randperm(len(many), generator=torch.Generator().manual_seed(0))[:IMAGES]
    steps = Steps(classes, budget)
    start = perf_counter()
    try:
        neural_cleanse_scan(
            model, many[drawn], labels[drawn], steps=STEPS, seed=0, progress=steps.progress
        )
        whole = True
    except Enough:
        whole = False
    seconds, per_step = perf_counter() - start, 2 * IMAGES
    over, taken = steps.over, sum(steps.over) + steps.current
    usual = sum(over) / len(over) if over else None
    return {
        "model": specimen.name,
        "classes": classes,
        "scan": {
            "verdict": found.verdict,
            "targets": found.targets,
            "passes": sum(stage.passes or 0 for stage in found.stages),
            "seconds": round(sum(stage.seconds for stage in found.stages), 1),
        },
        "neural_cleanse": {
            "images": IMAGES,
            "whole": whole,
            "seconds": round(seconds, 1),
            "passes": per_step * taken,
            "steps_of_whole_classes": over,
            "steps_of_the_class_that_was_stopped": steps.current,
            "passes_in_all": usual and round(per_step * classes * usual),
            "seconds_in_all": usual and round(seconds / taken * classes * usual),
            "passes_at_least": per_step * (taken + FEWEST * (classes - len(over) - (not whole))),
            "passes_at_most": per_step * classes * STEPS,
        },
        **machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=600, help="seconds a model (600)")
    budget = parser.parse_args().budget
    torch.set_num_threads(1)
    known = [*read_manifest(FOREIGN), *read_manifest(HERE / "zoo_and_demo.json")]
    OUT.mkdir(parents=True, exist_ok=True)
    for specimen in known:
        if specimen.name in MODELS:
            file = OUT / f"{specimen.name}.json"
            facts = compare(specimen, budget)
            file.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
            print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
