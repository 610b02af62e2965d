"""The pictures of docs/how-it-works.md and of README.md, made from the demo.

    python -m shapprune_bench.documentation.pictures [--report DEMO_FOLDER]

scans and repairs the demo's model once and draws a picture a step into docs/pictures, below the
current folder. With the folder that ``shapprune demo`` wrote, the picture of its report too, by
Chromium.
"""

import argparse
import io
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor, nn

import shapprune
from shapprune import demo
from shapprune.data.dataset import LabeledImages
from shapprune.method.detection import shipped
from shapprune.method.finetuning import distillation_pool
from shapprune.method.settings import SELECTION
from shapprune.method.triggers import Perturbation, Trigger
from shapprune.model.metrics import accuracy, attack_success_rate, predict
from shapprune.pipeline import RepairResult

GREY, BAD, GOOD = "#8c959f", "#bc4c00", "#1f6feb"
_REPORT_WIDTH, _REPORT_HEIGHT = 1000, 770  # of its window, in pixels: down to the evidence


@dataclass(frozen=True)
class Attack:
    """What only the attacker and these pictures know.

    Attributes:
        trigger: the attacker's.
        target: the class that it sends images to.
        unseen: test images.
    """

    trigger: Trigger
    target: int
    unseen: LabeledImages


def draw(
    model: nn.Module, given: LabeledImages, result: RepairResult, attack: Attack
) -> dict[str, bytes]:
    """The SVG files by their names, one a step, and the figures of the last one.

    Args:
        model: with a backdoor that has one target.
        given: the images that the result was made with.
        result: of the repair.
        attack: the truth about the model.
    """
    figures = measured(model, result, attack)
    with matplotlib.rc_context(
        {"svg.hashsalt": "shapprune", "svg.fonttype": "none", "font.size": 9}
    ):
        return {
            "backdoor.svg": _backdoor(model, attack),
            "evidence.svg": _evidence(result),
            "score.svg": _score(result),
            "triggers.svg": _triggers(given, result, attack),
            "shapley.svg": _shapley(result),
            "pruning.svg": _pruning(result),
            "finetuning.svg": _finetuning(model, given, result),
            "choice.svg": _choice(result),
            "after.svg": _after(figures),
            "figures.json": (json.dumps(figures, indent=1) + "\n").encode(),
        }


def _backdoor(model: nn.Module, attack: Attack) -> bytes:
    """Images without and with the attacker's trigger, and the model's answers."""
    labels, target = attack.unseen.labels, attack.target
    first = [int((labels == c).nonzero()[0]) for c in range(6) if c != target]
    clean = attack.unseen.images[first]
    stamped = attack.trigger.stamp(clean)
    figure, grid = _grid(2, len(first), width=1.1)
    for row, images in zip(grid, (clean, stamped), strict=True):
        for axes, image, answer in zip(row, images, predict(model, images).tolist(), strict=True):
            _show(axes, image)
            axes.set_title(f"“{answer}”", color=BAD if answer == target else "black")
    return _svg(figure)


def _evidence(result: RepairResult) -> bytes:
    """What each kind of evidence says of each class."""
    evidence = result.scan.evidence
    windows, perturbations = evidence.windows, evidence.perturbations
    assert windows
    assert perturbations
    panels = {
        "largest margin": [m / evidence.scale for m in evidence.margins.values],
        "best small square": [100 * s for s in windows.shares],
        "best faint pattern": [100 * s for s in perturbations.shares],
    }
    words = ("times an image's", "% of images moved", "% of images moved")
    figure, (row,) = _grid(1, 3, width=2.4, height=2.1)
    for axes, (title, values), unit in zip(row, panels.items(), words, strict=True):
        colours = [BAD if c in result.scan.targets else GREY for c in range(len(values))]
        axes.bar(range(len(values)), values, color=colours)
        axes.set(title=title, xlabel="class", ylabel=unit, xticks=range(len(values)))
    return _svg(figure)


def _score(result: RepairResult) -> bytes:
    """The score of every class, clean models' and the bounds."""
    judgement = result.scan.judgement
    figure, ((axes,),) = _grid(1, 1, width=6.5, height=1.8)
    axes.plot(shipped("images").scans, [0] * len(shipped("images").scans), "|", color=GREY)
    for c, score in enumerate(judgement.scores):
        hit = c in judgement.targets
        axes.plot(score, 1, "o", color=BAD if hit else GREY, markersize=5)
        if hit:
            axes.annotate(f"class {c}", (score, 1), (0, 6), textcoords="offset points", ha="center")
    for bound, name in ((judgement.suspicious, "suspicious"), (judgement.backdoored, "backdoored")):
        axes.axvline(bound, color="black", linestyle="--", linewidth=1)
        axes.text(bound, -0.75, f" {name}", rotation=0, ha="left" if name[0] == "b" else "right")
    axes.set(
        yticks=[0, 1], ylim=(-1, 1.8), xlabel="score", yticklabels=["clean models", "this model"]
    )
    return _svg(figure)


def _triggers(given: LabeledImages, result: RepairResult, attack: Attack) -> bytes:
    """The attacker's trigger beside those that were found without knowing it, on grey."""
    assert result.repair
    grey = torch.full_like(given.images[:1], 0.5)
    found: list[tuple[str, Trigger | Perturbation]] = [("the attacker's", attack.trigger)]
    for trigger in result.repair.triggers:
        kind = "perturbation" if isinstance(trigger.stamp, Perturbation) else "patch"
        found.append((kind, trigger.stamp))
    figure, (row,) = _grid(1, len(found), width=1.15)
    for number, (axes, (name, stamp)) in enumerate(zip(row, found, strict=True)):
        _show(axes, stamp.stamp(grey)[0])
        axes.set_title(name, color="black" if number else BAD)
    return _svg(figure)


def _shapley(result: RepairResult) -> bytes:
    """The neurons of the largest values; the pruned ones in colour."""
    repair = result.repair
    assert repair
    values = repair.values.asr.values
    order = values.argsort(descending=True)[:30].tolist()
    figure, ((axes,),) = _grid(1, 1, width=6.5, height=1.9)
    axes.bar(
        range(len(order)),
        values[order].tolist(),
        color=[BAD if n in repair.pruned else GREY for n in order],
    )
    axes.set(xlabel=f"the first 30 of {len(values)} neurons", ylabel="Shapley value")
    return _svg(figure)


def _pruning(result: RepairResult) -> bytes:
    """What is left with so many neurons pruned, as the defender measures it."""
    assert result.repair
    curve = result.repair.pruning.curve
    counts = [point.pruned for point in curve]
    figure, ((axes,),) = _grid(1, 1, width=6.5, height=2.1)
    for name, colour, values in (
        ("answers kept", GOOD, [point.proxies.kept.value for point in curve]),
        ("ASR of inverted triggers", BAD, [point.proxies.asr.value for point in curve]),
    ):
        axes.plot(counts, [100 * v for v in values], "o-", color=colour, markersize=3, label=name)
    axes.set(xlabel="neurons pruned", ylabel="%", ylim=(-3, 103))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return _svg(figure)


def _finetuning(model: nn.Module, given: LabeledImages, result: RepairResult) -> bytes:
    """Some of the images that fine-tuning learns on, and where they come from."""
    assert result.repair
    case = shapprune.check_case(model, given.images, given.labels)
    pool = distillation_pool(
        case, result.repair.maps, generator=torch.Generator().manual_seed(result.scan.seed)
    )
    shown = (given.images[:10], pool.images[: min(10, len(given.images))])
    figure, grid = _grid(2, len(shown[0]), width=0.65)
    for row, images in zip(grid, shown, strict=True):
        for axes, image in zip(row, images, strict=True):
            _show(axes, image)
    return _svg(figure)


def _choice(result: RepairResult) -> bytes:
    """Every candidate by what it keeps and what is left of the triggers."""
    repair = result.repair
    assert repair
    figure, ((axes,),) = _grid(1, 1, width=6.5, height=2.4)
    marks = {"pruned": "o", "tuned": "s"}
    for way, mark in marks.items():
        some = [c.proxies for c in repair.candidates if c.way == way]
        axes.plot(
            [100 * p.asr.high for p in some],
            [100 * p.kept.value for p in some],
            mark,
            color=GREY,
            markersize=5,
            label=way,
        )
    chosen = repair.candidates[repair.chosen]
    spot = (100 * chosen.proxies.asr.high, 100 * chosen.proxies.kept.value)
    axes.plot(*spot, marks[chosen.way], color=GOOD, markersize=8, label="chosen")
    axes.axvline(100 * SELECTION.asr, color="black", linestyle="--", linewidth=1)
    axes.set(
        xlabel="ASR of the strengthened triggers, upper end of its interval, %",
        ylabel="answers kept, %",
        ylim=(40, 103),
    )
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.62, 0.0))
    return _svg(figure)


def measured(model: nn.Module, result: RepairResult, attack: Attack) -> dict[str, float]:
    """What only the attacker can measure, before and after, with the true trigger; in per cent."""
    assert result.repair
    images, labels = attack.unseen.images, attack.unseen.labels
    found: dict[str, float] = {}
    for when, network in (("before", model), ("after", result.model)):
        asr = attack_success_rate(
            network, images, labels, stamp=attack.trigger.stamp, target=attack.target
        )
        found[f"accuracy_{when}"] = round(100 * accuracy(network, images, labels), 1)
        found[f"asr_{when}"] = round(100 * asr, 1)
    return {**found, "neurons": len(result.repair.neurons), "unseen": len(images)}


def _after(figures: Mapping[str, float]) -> bytes:
    """What `measured` found."""
    figure, ((axes,),) = _grid(1, 1, width=6.5, height=1.5)
    names = ("right answers", "ASR of the attacker's trigger")
    for offset, colour, when in ((0.2, GREY, "before"), (-0.2, GOOD, "after")):
        shares = [figures[f"accuracy_{when}"], figures[f"asr_{when}"]]
        bars = axes.barh([1 + offset, offset], shares, 0.38, color=colour)
        axes.bar_label(bars, fmt=" %.1f")
    axes.set(yticks=[1, 0], yticklabels=names, xlim=(0, 112), xlabel="% of unseen images")
    return _svg(figure)


def _grid(
    rows: int, columns: int, *, width: float, height: float | None = None
) -> tuple[Figure, list[list[Axes]]]:
    """A figure of so many panels, each of a width and height in inches."""
    height = width if height is None else height
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    panels: list[list[Axes]] = figure.subplots(rows, columns, squeeze=False).tolist()
    return figure, panels


def _show(axes: Axes, image: Tensor) -> None:
    """An image (C, H, W) without a frame."""
    axes.imshow(image.mean(0).numpy(), cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def picture_of_report(
    report: Path, *, run: Callable[..., object] = subprocess.run, browser: str | None = None
) -> bytes:
    """The top of a report as a PNG file of few colours.

    Raises:
        FileNotFoundError: there is no Chromium.
    """
    found = browser or shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        raise FileNotFoundError("the picture of the report needs chromium")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        size = f"--window-size={_REPORT_WIDTH},{_REPORT_HEIGHT}"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", size]
        run(
            [found, *options, f"--screenshot={shot}", report.resolve().as_uri()],
            check=True,
            capture_output=True,
        )
        with Image.open(shot) as image:
            few = image.convert("RGB").quantize(64)
    buffer = io.BytesIO()
    few.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, metavar="DEMO_FOLDER", help="of shapprune demo")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"), metavar="DIR")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.report:
        picture = picture_of_report(arguments.report / "report.html")
        (arguments.out / "report.png").write_bytes(picture)
    model = shapprune.load_classifier(demo.WEIGHTS, arch=demo.ARCH, num_classes=demo.NUM_CLASSES)
    given, unseen = (
        shapprune.load_images(
            demo.DATA,
            num_classes=demo.NUM_CLASSES,
            split=split,
            per_class=per_class,
            generator=torch.Generator().manual_seed(0),
        )
        for split, per_class in (("train", 1), ("test", None))
    )
    result = shapprune.repair(model, given.images, given.labels)
    attack = Attack(demo.true_trigger(), demo.true_target(), unseen)
    for name, content in draw(model, given, result, attack).items():
        (arguments.out / name).write_bytes(content)


if __name__ == "__main__":
    main()
