"""What a scan costs as classes, pixels and parameters grow: seconds, passes and memory.

From one base network a single measure grows at a time; one more point is a ResNet-50. Nothing is
trained: all layers are random but the last, which tells the made-up images apart, one a class.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.errors import InputError
from shapprune.model.cost import operations
from shapprune.pipeline import scan
from shapprune.utils.rng import own_random_state
from shapprune_bench.networks import pooled_cnn
from shapprune_bench.options import Options
from shapprune_bench.session import Study
from shapprune_bench.studies.growth_page import report
from shapprune_bench.studies.resnet50 import resnet50

BUDGET = 1800.0  # seconds of a scan; what is not done by then is told from the passes until then
_BATCH = 32  # images that go forward at once before the scan


@dataclass(frozen=True)
class Point:
    """A network to be scanned.

    Attributes:
        name: of its file.
        classes: that it tells apart.
        side: of its images, in pixels.
        width: of the first convolution of a `pooled_cnn`, whose parameters are some 200 times its
            square; 0 for a ResNet-50.
    """

    name: str
    classes: int = 10
    side: int = 32
    width: int = 22

    def facts(self) -> dict[str, object]:
        """As JSON has it."""
        return {"kind": "growth", **asdict(self)}


WIDTHS = {"1e4": 7, "1e6": 71, "1e7": 226}  # by the number of parameters; 22 has 1e5
POINTS = (
    *(Point(f"classes-{count}", classes=count) for count in (2, 3, 10, 43, 100, 300, 1000)),
    *(Point(f"pixels-{side}", side=side) for side in (28, 64, 128, 224)),
    *(Point(f"parameters-{count}", width=width) for count, width in WIDTHS.items()),
    Point("resnet50", classes=1000, side=224, width=0),
)


class BudgetSpentError(BaseException):
    """The budget is spent: no error of the model, which a scan would catch and explain."""


class Spent:
    """The image passes that a network has made.

    Attributes:
        passes: one an image, and one more for the way back if there is to be one.
    """

    passes = 0


@contextmanager
def limited(model: nn.Module, seconds: float) -> Iterator[Spent]:
    """Inside the block the model counts its passes, and stops by an exception after some time.

    Raises:
        BudgetSpentError: it was asked for another pass.
    """
    spent, until = Spent(), perf_counter() + seconds

    def count(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if perf_counter() > until:
            raise BudgetSpentError
        spent.passes += len(inputs[0]) * (2 if inputs[0].requires_grad else 1)

    handle = model.register_forward_pre_hook(count)
    try:
        yield spent
    finally:
        handle.remove()


def made_up(classes: int, side: int) -> Tensor:
    """One image a class, smooth colours with noise: (classes, 3, side, side) in [0, 1]."""
    generator = torch.Generator().manual_seed(classes)
    colours = torch.rand(classes, 3, 6, 6, generator=generator)
    images = F.interpolate(colours, size=side, mode="bilinear")
    noise = torch.randn(images.shape, generator=generator).mul_(0.15)
    return images.add_(noise).clamp_(0, 1)


def network(point: Point) -> nn.Sequential:
    """Of random weights."""
    with own_random_state(0, torch.device("cpu")):
        if not point.width:
            return resnet50(point.classes)
        widths = [point.width * times for times in (1, 2, 3, 4)]
        return pooled_cnn(point.classes, widths=widths, hidden=widths[-1])


@torch.no_grad()
def fit_last(model: nn.Sequential, images: Tensor) -> nn.Sequential:
    """Norms from a batch of the images, and the last layer as the nearest class mean; eval mode.

    A network that is random to its end gives all images one answer, and is refused by a scan.

    Args:
        model: ends with a linear layer; changed in place.
        images: one of each class, in order.
    """
    body, head = model[:-1], model[-1]
    assert isinstance(head, nn.Linear)
    norms = [layer for layer in body.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    body.train()(images[:_BATCH])
    for norm in norms:
        norm.momentum = 0.1
    model.eval()
    features = torch.cat([body(part) for part in images.split(_BATCH)])
    middle = features.mean(0)
    means = features - middle
    spread = means.square().sum(1).mean()
    head.weight.copy_(means / spread * 10)
    head.bias.copy_(-(head.weight * (middle + means / 2)).sum(1))
    return model


def measure(point: Point) -> dict[str, object]:
    """What the scan costs and says.

    Raises:
        InputError: a scan of more than two classes is refused.
    """
    images, labels = made_up(point.classes, point.side), torch.arange(point.classes)
    model = fit_last(network(point), images)
    facts: dict[str, object] = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "operations": operations(model, images),
    }
    before, start, found = _memory(), perf_counter(), None
    with limited(model, BUDGET) as spent:
        try:
            found = scan(model, images, labels, seed=0)
        except BudgetSpentError:
            pass
        except InputError as error:
            if point.classes > 2:
                raise
            return {**facts, "refused": str(error)}
    facts |= {
        "seconds": round(perf_counter() - start, 1),
        "memory_mib": {"before": before, "at_most": _memory()},
    }
    if found is None:
        return {**facts, "stopped": True, "passes": spent.passes}
    return {
        **facts,
        "accuracy": found.accuracy,
        "verdict": found.verdict,
        "score": found.judgement.score,
        "passes": sum(stage.passes or 0 for stage in found.stages),
        "stages": [
            {"name": s.name, "seconds": round(s.seconds, 1), "passes": s.passes}
            for s in found.stages
        ],
    }


def _memory() -> int | None:
    """The most that this process has held, in MiB; None where the system does not tell it."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def study(options: Options) -> Study[Point]:
    """A scan of each of `POINTS`, or of those that ``--rows`` names.

    Raises:
        InputError: it names another.
    """
    names = options.chosen([point.name for point in POINTS], "growth")
    tasks = [point for point in POINTS if point.name in names]
    return Study("scans", tasks, measure, _outcome, report)


def _outcome(result: Any) -> str:
    if "refused" in result:
        return "refused"
    done = "stopped" if "stopped" in result else result["verdict"]
    return f"{done} after {result['seconds']} s"
