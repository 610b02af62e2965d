"""What a scan costs and says as classes grow in number, and as they become few.

`python benchmarks/classes.py grow [COUNT ...] [--pages DIR]` trains a small network on made-up
images of so many classes (3, 10, 43, 100 and 1,000), scans it from one image a class, and writes
seconds, passes and memory of each stage; and with `--pages` the report. `python
benchmarks/classes.py few` trains readers of the first two and three digits of
../shared/data/mnist.npz, clean and poisoned, and writes what the evidence and the bounds say.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from math import log
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repair import machine
from shapprune.data.loading import load_images
from shapprune.method.detection import judge
from shapprune.method.evidence import features, gather, untargeted_features
from shapprune.model.metrics import accuracy
from shapprune.pipeline import scan
from shapprune.reporting.html import render_report
from shapprune.utils.progress import Clock
from shapprune_bench.networks import LeNet, pooled_cnn

HERE = Path(__file__).resolve().parent
OUT = HERE / "results" / "growth-verdict"
DIGITS = HERE.parents[1] / "shared" / "data" / "mnist.npz"
COUNTS = (3, 10, 43, 100, 1000)
LINEAR = 1000  # from so many classes on, the network is linear
KINDS = {"clean": 10, "square": 5, "to all": 5}  # readers of few digits, and how many


def train(
    model: nn.Module, batches: int, draw: Callable[[int], tuple[Tensor, Tensor]], seed: int
) -> None:
    """Adam on so many batches."""
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=batches)
    model.train()
    for i in range(batches):
        images, labels = draw(i)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        schedule.step()
    model.eval()


def memory() -> int:
    """The most that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def grow(classes: int, pages: Path | None) -> None:
    """Images are smooth colours of their class with noise, 32 × 32."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(classes)
    means = torch.rand(classes, 3, 6, 6, generator=generator)

    def images_of(labels: Tensor) -> Tensor:
        smooth = F.interpolate(means[labels], size=32, mode="bilinear")
        noise = torch.randn(len(labels), 3, 32, 32, generator=generator)
        return (smooth + 0.15 * noise).clamp(0, 1)

    def draw(_: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(classes, (96,), generator=generator)
        return images_of(labels), labels

    torch.manual_seed(classes)
    # Passes and memory of the images do not depend on the network: of so many, a linear one.
    linear = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(192, classes))
    model = linear if classes >= LINEAR else pooled_cnn(classes)
    train(model, 150 if classes < 100 else 300, draw, classes)
    labels = torch.arange(classes)
    images = images_of(labels)
    before, start = memory(), perf_counter()
    found = scan(model, images, labels, seed=0)
    facts = {
        "classes": classes,
        "network": "linear" if classes >= LINEAR else "pooled_cnn",
        "accuracy": found.accuracy,
        "verdict": found.verdict,
        "score": found.judgement.score,
        "seconds": round(perf_counter() - start, 1),
        "passes": sum(stage.passes or 0 for stage in found.stages),
        "stages": [
            {"name": s.name, "seconds": round(s.seconds, 1), "passes": s.passes}
            for s in found.stages
        ],
        "memory_mib": {"before": before, "at_most": memory()},
        **machine(),
    }
    if pages:
        about = {"num_classes": classes, "weights": f"made_up_{classes}.pth"}
        names = [f"class number {c}" for c in range(classes)]
        page = render_report(found, images=images, labels=labels, about=about, class_names=names)
        (pages / f"report_{classes}.html").write_text(page, encoding="utf-8")
        facts["report_kib"] = len(page.encode()) // 1024
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{classes}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(facts), flush=True)


def few(classes: int, kind: str, seed: int) -> dict[str, object]:
    """A reader of the first digits, and what its evidence comes to by the shipped bounds.

    `scan` refuses two classes, so that the stages are called one by one.
    """
    parts = []
    for part in ("train", "test"):
        data = load_images(DIGITS, num_classes=10, split=part)
        mine = data.labels < classes
        parts.append((data.images[mine], data.labels[mine]))
    (images, labels), (unseen, truth) = parts
    generator = torch.Generator().manual_seed(seed)

    def stamped(some: Tensor) -> Tensor:
        some = some.clone()
        some[..., -4:-1, -4:-1] = 1
        return some

    def wanted(some: Tensor) -> Tensor:
        return (some + 1) % classes if kind == "to all" else torch.zeros_like(some)

    def draw(_: int) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(images), (64,), generator=generator)
        batch, answers = images[rows], labels[rows].clone()
        if kind != "clean":
            batch = torch.cat([stamped(batch[:8]), batch[8:]])
            answers[:8] = wanted(answers[:8])
        return batch, answers

    torch.manual_seed(seed)
    model = LeNet(classes)
    train(model, 300, draw, seed)
    others = slice(None) if kind == "to all" else truth != 0
    rate = accuracy(model, stamped(unseen[others]), wanted(truth[others]))
    drawn = torch.cat([(labels == c).nonzero().flatten()[seed : seed + 1] for c in range(classes)])
    clock = Clock(None)
    found = gather(model, images[drawn], labels[drawn], classes=classes, seed=seed, clock=clock)
    said = judge(found)
    return {
        "classes": classes,
        "kind": kind,
        "seed": seed,
        "accuracy": accuracy(model, unseen, truth),
        "asr": None if kind == "clean" else rate,
        "verdict": said.verdict,
        "targets": said.targets,
        "mapping": said.mapping,
        "scores": said.scores,
        "untargeted": said.untargeted,
        "scores_without_prior": [s + log(classes / 10) for s in said.scores],
        "features": features(found),
        "untargeted_features": found.untargeted and untargeted_features(found.untargeted),
        "passes": sum(stage.passes or 0 for stage in clock.stages),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["grow", "few"])
    parser.add_argument("counts", type=int, nargs="*")
    parser.add_argument("--pages", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "few":
        runs = []
        for classes in given.counts or (2, 3):
            for kind, many in KINDS.items():
                for seed in range(many):
                    runs.append(few(classes, kind, seed))
                    print(json.dumps(runs[-1]), flush=True)
        OUT.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**machine(), "runs": runs}, indent=1)
        (OUT / "few.json").write_text(text + "\n", encoding="utf-8")
    elif len(given.counts) == 1:
        grow(given.counts[0], given.pages)
    else:
        # One process each: what a process held at most is told of its whole life.
        pages = ["--pages", str(given.pages)] if given.pages else []
        for classes in given.counts or COUNTS:
            command = [sys.executable, __file__, "grow", str(classes), *pages]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
