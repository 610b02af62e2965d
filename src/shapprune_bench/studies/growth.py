"""What a scan costs as classes grow in number: seconds, passes, memory, and the report's size.

A small network is trained on made-up images of so many classes, and scanned from one image a class.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.pipeline import scan
from shapprune.reporting.html import render_report
from shapprune.running.runner import Result
from shapprune.utils.rng import own_random_state
from shapprune_bench.networks import pooled_cnn
from shapprune_bench.options import Options
from shapprune_bench.page import Table, pages
from shapprune_bench.session import Study

COUNTS = (3, 10, 43, 100, 1000)
_LINEAR = 1000  # from so many classes on, the network is linear: the passes do not depend on it
_SIDE, _BATCH = 32, 96


@dataclass(frozen=True)
class Classes:
    """A scan of a network of so many classes."""

    count: int

    @property
    def name(self) -> str:
        """Of its file."""
        return str(self.count)

    def facts(self) -> dict[str, object]:
        """As JSON has it."""
        return {"kind": "growth", "classes": self.count}


class MadeUp:
    """Images of classes: smooth colours of their class with noise, (n, 3, 32, 32) in [0, 1]."""

    def __init__(self, classes: int) -> None:
        self._classes, self._generator = classes, torch.Generator().manual_seed(classes)
        self._colours = torch.rand(classes, 3, 6, 6, generator=self._generator)

    def of(self, labels: Tensor) -> Tensor:
        """One image for each label."""
        smooth = F.interpolate(self._colours[labels], size=_SIDE, mode="bilinear")
        noise = torch.randn(len(labels), 3, _SIDE, _SIDE, generator=self._generator)
        return (smooth + 0.15 * noise).clamp(0, 1)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Images and their labels, drawn at random."""
        labels = torch.randint(self._classes, (_BATCH,), generator=self._generator)
        return self.of(labels), labels


def trained(classes: int, images: MadeUp) -> nn.Module:
    """A network that tells them apart, in eval mode."""
    with own_random_state(classes, torch.device("cpu")):
        linear = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(192, classes))
        model = linear if classes >= _LINEAR else pooled_cnn(classes)
    steps = 150 if classes < 100 else 300
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    model.train()
    for _ in range(steps):
        batch, labels = images.batch()
        optimizer.zero_grad()
        F.cross_entropy(model(batch), labels).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def measure(task: Classes) -> dict[str, object]:
    """What the scan costs and says."""
    classes = task.count
    made_up = MadeUp(classes)
    model, labels = trained(classes, made_up), torch.arange(classes)
    images = made_up.of(labels)
    before, start = _memory(), perf_counter()
    found = scan(model, images, labels, seed=0)
    seconds, after = perf_counter() - start, _memory()
    about = {"num_classes": classes, "weights": f"made_up_{classes}.pth"}
    names = [f"class number {c}" for c in range(classes)]
    page = render_report(found, images=images, labels=labels, about=about, class_names=names)
    return {
        "network": "linear" if classes >= _LINEAR else "pooled_cnn",
        "accuracy": found.accuracy,
        "verdict": found.verdict,
        "score": found.judgement.score,
        "seconds": round(seconds, 1),
        "passes": sum(stage.passes or 0 for stage in found.stages),
        "stages": [
            {"name": s.name, "seconds": round(s.seconds, 1), "passes": s.passes}
            for s in found.stages
        ],
        "memory_mib": {"before": before, "at_most": after},
        "report_kib": len(page.encode()) // 1024,
    }


def _memory() -> int | None:
    """The most that this process has held, in MiB; None where the system does not tell it."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def study(options: Options) -> Study[Classes]:
    """A scan for each of `COUNTS`, or for those numbers that ``--rows`` names.

    Raises:
        InputError: it names another.
    """
    counts = options.chosen([str(count) for count in COUNTS], "growth")
    tasks = [Classes(int(count)) for count in counts]
    return Study("scans", tasks, measure, lambda r: f"{r['verdict']} in {r['seconds']} s", report)


def report(done: Sequence[tuple[Classes, Result]]) -> dict[str, bytes]:
    """The pages: a row for each number of classes."""
    rows = []
    for task, result in done:
        memory = result["memory_mib"]
        assert isinstance(memory, dict)
        known = None not in memory.values()
        added = f"{memory['at_most'] - memory['before']:,}" if known else "–"
        page = f"{result['report_kib']:,}" if "report_kib" in result else "–"
        cost = [f"{result['passes']:,}", f"{result['seconds']}", added, page]
        rows.append([f"{task.count:,}", str(result["network"]), str(result["verdict"]), *cost])
    note = (
        "A small clean network on made-up images of 32 × 32, one image a class, one thread. Memory "
        "is what the scan adds at most."
    )
    head = ["classes", "network", "verdict", "passes", "seconds", "memory, MiB", "report, KiB"]
    return pages([Table("Scans", note, head, rows)], "What a scan costs as classes grow")
