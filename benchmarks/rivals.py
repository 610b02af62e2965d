"""Other papers' defences on models with known backdoors: `python benchmarks/rivals.py`.

`[--models NAME ...] [--defences NAME ...] [--per-class N]` writes one JSON file a run into
benchmarks/results/rivals, skips those that are there, and makes the table README.md beside them. A
defence gets one clean image a class, drawn with seed 0 as in benchmarks/repair.py; the attacker's
trigger and the test part come in afterwards. Settings that are not a method's defaults are named in
the file; without `--full` the reversal of triggers is bounded so that two cores can do it.
"""

import argparse
import json
from functools import partial
from time import perf_counter

import torch

from clean_models import ROOT
from repair import machine, score, subjects
from shapprune.baselines import DEFENCES
from shapprune.data.dataset import draw_per_class
from shapprune.model.classifier import in_channels_last
from shapprune.model.cost import counting

OUT = ROOT / "benchmarks" / "results" / "rivals"
MODELS = ("gtsrb_trojan_wm", "cifar10_badnets", "cifar10_l2inv", "demo")
SEED = 0
# For 43 classes on two cores; the defaults are 1,000, 500 and 2,000.
BOUNDED = {
    "neural-cleanse": {"steps": 100},
    "gangsweep": {"steps": 50},
    "deepinspect": {"steps": 300, "inversion_steps": 200},
    "anp": {"iterations": 500},
}


def run(name: str, defence: str, per_class: int, full: bool) -> dict[str, object]:
    subject = subjects()[name]
    few = draw_per_class(
        subject.split("train"),
        per_class=per_class,
        generator=torch.Generator().manual_seed(SEED),
    )
    model = in_channels_last(subject.load(), few.images)
    settings = {} if full else BOUNDED.get(defence, {})
    start = perf_counter()
    with counting(model, few.images) as passes:
        repaired = partial(DEFENCES[defence], **settings)(model, few.images, few.labels, seed=SEED)
    seconds = perf_counter() - start
    test = subject.split("test")
    return {
        "model": name,
        "defence": defence,
        "settings": settings,
        "per_class": per_class,
        "images": len(few.images),
        "seed": SEED,
        "before": score(model, subject, test),
        "after": score(repaired, subject, test),
        "passes": passes.count,
        "seconds": seconds,
        **machine(),
    }


def table() -> str:
    head = "| model | defence | images | ACC | ASR | passes | seconds | settings |"
    lines = [head, "|---" * 8 + "|"]
    order = {name: place for place, name in enumerate([*MODELS, *DEFENCES])}
    runs = [json.loads(file.read_text()) for file in OUT.glob("*.json")]
    runs.sort(key=lambda r: (order[r["model"]], order[r["defence"]], r["images"]))
    for one in runs:
        before, after = one["before"], one["after"]
        cells = [
            one["model"],
            one["defence"],
            str(one["images"]),
            f"{before['accuracy']:.1f} → {after['accuracy']:.1f}",
            f"{before['asr']:.1f} → {after['asr']:.1f}",
            f"{one['passes']:,}",
            f"{one['seconds']:.0f}",
            ", ".join(f"{key} {value}" for key, value in one["settings"].items()) or "defaults",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--defences", nargs="+", default=list(DEFENCES), choices=DEFENCES)
    parser.add_argument("--per-class", type=int, default=1)
    parser.add_argument("--full", action="store_true", help="every method's own defaults")
    given = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    for defence in given.defences:
        for name in given.models:
            extra = f"_{given.per_class}" * (given.per_class > 1) + "_full" * given.full
            file = OUT / f"{name}_{defence}{extra}.json"
            if file.exists():
                continue
            one = run(name, defence, given.per_class, given.full)
            file.write_text(json.dumps(one, indent=1) + "\n")
            print(name, defence, one["after"], one["passes"], f"{one['seconds']:.0f}s", flush=True)
    (OUT / "README.md").write_text(
        "# Other papers' defences with one clean image a class\n\nMade by "
        "`python benchmarks/rivals.py` from the JSON files beside it: ACC and ASR in per cent on "
        "the test part, with the true trigger, before → after; one run each. A pass is the "
        "arithmetic of one image's way through the network (`shapprune.model.cost`). Seconds are "
        "of a machine with other work on it.\n\n" + table()
    )


if __name__ == "__main__":
    main()
