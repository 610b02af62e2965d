"""One self-contained HTML page that tells a person what was found and done."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from importlib.resources import files
from io import BytesIO
from json import dumps
from pathlib import PurePath
from typing import Any

import jinja2
import torch
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from shapprune import charts
from shapprune.files import printable
from shapprune.pipeline import RepairResult, ScanResult
from shapprune.pruning import Pruning
from shapprune.stamps import Stamp, Trigger
from shapprune.summary import kind_of, summarise
from shapprune.triggers import InvertedTrigger

_SHEET = 200  # recovered images shown at most
_READABLE = 256  # pixels, the side of a trigger's picture
_LABELS = {  # of the run's inputs, in the order of the page; others follow under their own names
    "command": "Command",
    "weights": "Weights",
    "arch": "Architecture",
    "num_classes": "Classes",
    "images": "Images",
    "images_given": "Images used",
    "input_size": "Image size (C, H, W)",
    "mean": "Mean",
    "std": "Std",
    "device": "Device",
    "machine": "Machine",
}


def render_report(
    result: ScanResult | RepairResult,
    *,
    images: Tensor,
    labels: Tensor,
    about: Mapping[str, object],
    class_names: Sequence[str] | None,
) -> str:
    """The report as HTML that needs nothing beside itself, neither scripts nor the network.

    Args:
        images, labels: the clean ones that the result was found with, (n, C, H, W) and (n,).
        about: the run's inputs; "notes" is a list of sentences for the reader.
        class_names: in the order of the labels, None where they are not known.
    """
    scan = result.scan if isinstance(result, RepairResult) else result
    repair = result.repair if isinstance(result, RepairResult) else None
    names = [_label(c, class_names) for c in range(len(scan.detection.norms))]
    kinds = ["all kinds together", *(inversion.kind for inversion in scan.inversions)]
    run = summarise(result, about=about, class_names=class_names)
    marks = {
        c: "target" if c in scan.targets else "cleared"
        for trial in scan.trials
        for c in trial.targets
    }
    marks = dict.fromkeys(scan.detection.targets, "suspected") | marks
    counts = torch.bincount(labels.cpu(), minlength=len(names)).tolist()
    inputs = [(_LABELS[key], about[key]) for key in _LABELS if key in about]
    inputs += [(k, v) for k, v in about.items() if k not in _LABELS and k != "notes"]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": _percent, "number": _number, "index": _index}
    environment.filters |= {"shown": _shown, "capital": _capital}
    template = (files("shapprune") / "report.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(template)
    return page.render(
        run=run,
        weights=_shown(PurePath(str(about.get("weights", ""))).name),
        names=names,
        repaired=isinstance(result, RepairResult),
        marks=marks,
        sheet=_data(images_picture(scan.recovered.images[:_SHEET])) if scan.recovered else "",
        cards=_cards(result, images, labels, names),
        norms=[
            (kind, charts.norm_chart(detection, labels=names, marks=marks), detection)
            for kind, detection in zip(kinds, (scan.detection, *scan.detections), strict=True)
        ],
        curve=_curve(repair.pruning) if repair else Markup(""),
        legend=charts.legend(),
        style=charts.STYLE,
        meter=charts.meter,
        inputs=[(key, _shown(value)) for key, value in inputs],
        notes=[printable(str(note)) for note in _list(about.get("notes"))],
        snippet=_snippet(about, len(names)),
        per_class=sorted({n for n in counts if n}),
        missing=[names[c] for c, n in enumerate(counts) if not n],
    )


def suspected_triggers(result: ScanResult | RepairResult) -> list[tuple[int, Stamp]]:
    """One trigger for each target class, of the kind by which the class stands out most.

    Classes that were repaired take the place of the scan's targets.
    """
    return [(target, _triggers(result, target)[0].stamp) for target in _targets(result)]


def trigger_picture(stamp: Stamp) -> bytes:
    """A trigger alone as a PNG file, enlarged to a readable size; mid-grey is left unchanged.

    A mask is shown as opaque and a perturbation as strong as the picture can hold.
    """
    picture, _ = _picture(stamp)
    return _png(picture, scale=max(1, _READABLE // max(picture.shape[1:])))


def images_picture(images: Tensor) -> bytes:
    """All images (n, C, H, W) side by side as a PNG file, twice as wide as high."""
    n, channels, height, width = images.shape
    columns = min(n, max(1, round((2 * n * height / width) ** 0.5)))
    rows = -(-n // columns)
    sheet = torch.ones(channels, rows * height, columns * width)
    for i, image in enumerate(images.cpu().float()):
        top, left = i // columns * height, i % columns * width
        sheet[:, top : top + height, left : left + width] = image
    return _png(sheet, scale=max(1, 64 // max(height, width)))


def _picture(stamp: Stamp) -> tuple[Tensor, float]:
    """A trigger on mid-grey, (C, H, W), and how many times as strong as it is."""
    if isinstance(stamp, Trigger):
        factor = 1 / max(float(stamp.mask.max()), 1e-6)
        return (stamp.mask * factor) * (stamp.pattern - 0.5) + 0.5, factor
    factor = 0.5 / max(float(stamp.delta.abs().max()), 1e-6)
    return stamp.delta * factor + 0.5, factor


def _png(image: Tensor, scale: int = 1) -> bytes:
    """An image (C, H, W) in [0, 1] as a PNG file: in colour from three channels on."""
    levels = (image.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8)
    array = levels[:3].permute(1, 2, 0).numpy() if len(levels) >= 3 else levels[0].numpy()
    picture = Image.fromarray(array.copy())
    size = (picture.width * scale, picture.height * scale)
    buffer = BytesIO()
    picture.resize(size, Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def _data(picture: bytes) -> str:
    return "data:image/png;base64," + b64encode(picture).decode()


def _targets(result: ScanResult | RepairResult) -> tuple[int, ...]:
    if isinstance(result, RepairResult):
        return result.repair.targets if result.repair else result.scan.targets
    return result.targets


def _triggers(result: ScanResult | RepairResult, target: int) -> list[InvertedTrigger]:
    """The best trigger of each kind for a class, refined ones first choice.

    The kind by which the class stands out most comes first.
    """
    scan = result.scan if isinstance(result, RepairResult) else result
    repair = result.repair if isinstance(result, RepairResult) else None
    refined = [r.triggers for r in (repair, *scan.trials) if r and target in r.targets]
    index = {
        inversion.kind: detection.indices[target]
        for inversion, detection in zip(scan.inversions, scan.detections, strict=True)
    }
    found = refined[0] if refined else [inversion.triggers[target] for inversion in scan.inversions]
    mine = sorted(
        (trigger for trigger in found if trigger.target == target),
        key=lambda trigger: (-index[kind_of(trigger)], trigger.asr < 0.9, trigger.norm),
    )
    first: dict[str, InvertedTrigger] = {}
    for trigger in mine:
        first.setdefault(kind_of(trigger), trigger)
    return list(first.values())


def _cards(
    result: ScanResult | RepairResult, images: Tensor, labels: Tensor, names: Sequence[str]
) -> list[dict[str, object]]:
    """What the page shows of each trigger; of a clean model, that of the most suspicious class."""
    scan = result.scan if isinstance(result, RepairResult) else result
    classes = range(len(names))
    least = max(classes, key=lambda c: scan.detection.indices[c])
    targets = _targets(result)
    chosen = [trigger for target in targets for trigger in _triggers(result, target)]
    cards = []
    for trigger in chosen or _triggers(result, least)[:1]:
        image = images[labels != trigger.target][:1].to(_tensor(trigger.stamp))
        picture, factor = _picture(trigger.stamp)
        cards.append(
            {
                "name": names[trigger.target],
                "kind": kind_of(trigger),
                "norm": trigger.norm,
                "asr": trigger.asr,
                "factor": factor,
                "trigger": _data(_png(picture)),
                "clean": _data(_png(image[0])),
                "small": max(image.shape[2:]) < 128,
                "stamped": _data(_png(trigger.stamp.stamp(image)[0])),
            }
        )
    return cards


def _curve(pruning: Pruning) -> Markup:
    series = {
        name: [getattr(point.proxies, name) for point in pruning.curve] for name in charts.SERIES
    }
    removed = [point.removed for point in pruning.curve]
    return charts.curve_chart(removed, series, chosen=len(pruning.removed))


def _tensor(stamp: Stamp) -> Tensor:
    return stamp.pattern if isinstance(stamp, Trigger) else stamp.delta


def _snippet(about: Mapping[str, object], classes: int) -> dict[str, str]:
    """How to load the repaired file, in Python."""
    options = "".join(
        f"    {name}=[{_shown(about[name])}],\n"
        for name, usual in (("mean", 0.0), ("std", 1.0))
        if any(value != usual for value in _list(about.get(name)))
    )
    arch = dumps(str(about.get("arch", "…")), ensure_ascii=False)
    with_us = (
        "import shapprune\n\nmodel = shapprune.load_classifier(\n"
        f'    "repaired.safetensors",\n    arch={arch},\n    num_classes={classes},\n{options})'
    )
    alone = (
        "from safetensors.torch import load_file\n\n"
        'weights = load_file("repaired.safetensors")\n'
        "network.load_state_dict(weights)\nnetwork.eval()"
    )
    compact = (
        "import shapprune\n\n"
        f'model = shapprune.load_compact(".", arch={arch}, num_classes={classes})'
    )
    return {"shapprune": with_us, "torch": alone, "compact": compact}


def _label(c: int, names: Sequence[str] | None) -> str:
    return f"{c} “{printable(names[c], 32)}”" if names and names[c] != str(c) else str(c)


def _list(value: object) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(value)
    return [] if value is None else [value]


def _shown(value: object) -> str:
    words = [f"{v:.6g}" if isinstance(v, float) else str(v) for v in _list(value)]
    return printable(", ".join(words) or "none", 400)


def _percent(share: float) -> str:
    return "100%" if share == 1 else f"{share:.1%}"


def _index(value: float | str) -> str:
    return "∞" if float(value) == float("inf") else f"{float(value):.2f}"


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _number(value: float | str | None) -> str:
    """Three digits; what JSON has no number for comes as a string or None."""
    if value is None:
        return "unknown"
    number = float(value)
    return "∞" if number == float("inf") else f"{number:.3g}" if number < 1000 else f"{number:,.0f}"
