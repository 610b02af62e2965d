"""One self-contained HTML page that tells a person what was found and done."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from torch.nn.functional import max_pool2d

from shapprune.method import detection
from shapprune.method.inversion import KINDS
from shapprune.method.pruning import Pruning
from shapprune.method.settings import RECOGNISED, SUSPICIOUS
from shapprune.method.triggers import Stamp, Trigger
from shapprune.pipeline import RepairResult, ScanResult
from shapprune.reporting import charts, findings
from shapprune.reporting.findings import Finding, class_findings, untargeted_findings
from shapprune.reporting.summary import kind_of, summarise
from shapprune.utils.text import printable

_SHEET = 200  # recovered images shown at most
_MOST_CARDED = 4  # classes whose triggers and evidence are shown
_MOST_ROWS = 100  # of the table of classes
_MOST_MAPPED = 60  # classes of a map that is drawn; larger ones are a picture
_MAP = 480  # pixels of that picture at most; of more classes several share one
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
    evidence, judgement = scan.evidence, scan.judgement
    names = [_label(c, class_names) for c in range(evidence.classes)]
    run = summarise(result, about=about, class_names=class_names)
    marks = findings.marks(judgement)
    counts = torch.bincount(labels.cpu(), minlength=len(names)).tolist()
    inputs = [(_LABELS[key], about[key]) for key in _LABELS if key in about]
    inputs += [(k, v) for k, v in about.items() if k not in _LABELS and k != "notes"]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": _percent, "number": _number, "share": findings.percent}
    environment.filters |= {"shown": _shown, "capital": _capital, "signed": _signed}
    environment.filters |= {"listed": findings.listed}
    environment.filters |= {"minus": lambda words: words.replace("-", "−")}
    template = (files("shapprune.reporting") / "report.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(template)
    return page.render(
        run=run,
        weights=_shown(PurePath(str(about.get("weights", ""))).name),
        names=names,
        repaired=isinstance(result, RepairResult),
        marks=marks,
        unrepaired=isinstance(result, RepairResult) and result.unrepaired,
        no_single=findings.no_single_target(judgement),
        undecided=judgement.undecided,
        too_few=findings.TOO_FEW,
        why_too_few=findings.why_too_few(judgement),
        recognised=RECOGNISED,
        mapping=findings.mapping_words(judgement.mapping),
        population=findings.population(judgement),
        told=_told(scan, names),
        scores=_scores(scan, names, marks),
        map=_map(scan),
        map_drawn=len(names) <= _MOST_MAPPED,
        table=_table(scan),
        start=findings.start(judgement),
        score=findings.apart(judgement.score, judgement.suspicious, judgement.backdoored),
        looser=min(SUSPICIOUS * judgement.false_alarms, 0.5),
        stamps=evidence.untargeted.triggers if evidence.untargeted else (),
        side=_side(scan),
        sheet=_data(images_picture(scan.recovered.images[:_SHEET])) if scan.recovered else "",
        cards=_cards(result, images, labels, names),
        curve=_curve(repair.pruning, len(repair.pruned)) if repair else Markup(""),
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

    Classes that were repaired take the place of the scan's targets. Classes of which no trigger is
    known are left out, as where margins alone were looked at.
    """
    found = [(target, _triggers(result, target)) for target in _targets(result)]
    return [(target, triggers[0].stamp) for target, triggers in found if triggers]


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


@dataclass(frozen=True)
class _Found:
    """A trigger of a class.

    Attributes:
        kind: "patch", "perturbation" or "window".
        stamp: the trigger.
        asr: share of varied images that it sends to the class.
    """

    kind: str
    stamp: Stamp
    asr: float


def _triggers(result: ScanResult | RepairResult, target: int) -> list[_Found]:
    """The best trigger of each kind for a class: those that the repair inverted, if it did.

    Of a scan's, the one that adds most to the score comes first; of a repair's, the patch.
    """
    scan = result.scan if isinstance(result, RepairResult) else result
    repair = result.repair if isinstance(result, RepairResult) else None
    found: dict[str, _Found] = {}
    if repair and target in repair.targets:
        mine = (trigger for trigger in repair.triggers if target in trigger.mapping)
        for trigger in sorted(mine, key=lambda trigger: (trigger.asr < 0.9, trigger.norm)):
            name = kind_of(trigger)
            found.setdefault(name, _Found(name, trigger.stamp, trigger.asr))
        return [found[name] for name in KINDS if name in found]
    parts = findings.parts_of(scan.judgement, target)
    for kind, reaches in findings.reaches_of(scan.evidence).items():
        if target in reaches:
            found[kind] = _Found(kind, reaches[target].stamp, reaches[target].share)
    return sorted(found.values(), key=lambda trigger: -parts.get(trigger.kind, 0.0))


def _cards(
    result: ScanResult | RepairResult, images: Tensor, labels: Tensor, names: Sequence[str]
) -> list[dict[str, object]]:
    """What the page shows of each trigger; of a clean model, that of the most suspicious class.

    Where there is no single target, the triggers without one; and of margins alone the inputs.
    """
    scan = result.scan if isinstance(result, RepairResult) else result
    repaired = isinstance(result, RepairResult) and result.repair is not None
    evidence = scan.evidence
    classes = (_targets(result) or scan.judgement.ranking[:1])[:_MOST_CARDED]
    cards = []
    if evidence.untargeted and findings.no_single_target(scan.judgement):
        clearest = evidence.untargeted.clearest
        words = f"{findings.untargeted_size(clearest)}."
        cards.append(_card("Every class", clearest.kind, clearest.stamp, words, images[:1]))
        classes = classes if repaired else ()
    for c in classes:
        for found in _triggers(result, c):
            norm = "L1 norm of the mask" if isinstance(found.stamp, Trigger) else "L2 norm"
            words = (
                f"{norm} {_number(found.stamp.norm)}. It sends {_percent(found.asr)} of varied "
                "images to the class."
            )
            other = images[labels != c][:1]
            cards.append(_card(f"Class {names[c]}", found.kind, found.stamp, words, other))
        if evidence.windows is None and not repaired:
            margin = evidence.margins.values[c]
            picture = _data(_png(evidence.margins.inputs[c]))
            cards.append(
                {
                    "title": f"Class {names[c]}, largest margin",
                    "pictures": [(f"The input of the largest margin of {names[c]}", "", picture)],
                    "small": max(evidence.margins.inputs.shape[2:]) < 128,
                    "words": f"A margin of {_number(margin)}, reached from noise.",
                }
            )
    return cards


def _card(title: str, kind: str, stamp: Stamp, words: str, image: Tensor) -> dict[str, object]:
    image = image.to(_tensor(stamp))
    picture, factor = _picture(stamp)
    caption = _capital(kind) + (f", ×{_number(factor)}" if factor > 1.05 else "")
    stamped = _data(_png(stamp.stamp(image)[0]))
    return {
        "title": f"{title}, {kind}",
        "pictures": [
            (f"The {kind} for {title}", caption, _data(_png(picture))),
            ("A clean image", "Clean image", _data(_png(image[0]))),
            (
                "The same image with the trigger",
                "With the trigger",
                stamped,
            ),
        ],
        "small": max(image.shape[2:]) < 128,
        "words": words,
    }


def _told(scan: ScanResult, names: Sequence[str]) -> list[tuple[str, list[Finding]]]:
    """What the evidence says of the targets, or of the class that stands out most."""
    evidence, judgement = scan.evidence, scan.judgement
    if findings.no_single_target(judgement):
        return [("A backdoor without a single target", untargeted_findings(evidence, judgement))]
    classes = (judgement.targets or judgement.ranking[:1])[:_MOST_CARDED]
    return [(f"Class {names[c]}", class_findings(evidence, judgement, c)) for c in classes]


def _scores(scan: ScanResult, names: Sequence[str], marks: Mapping[int, str]) -> charts.Chart:
    judgement = scan.judgement
    bars = [
        charts.Bar(str(c), f"class {names[c]}", score, marks.get(c, ""))
        for c, score in enumerate(judgement.scores)
    ]
    if judgement.untargeted is not None:
        high = judgement.verdict != "clean" and judgement.untargeted > judgement.suspicious
        mark = "" if not high else "found" if judgement.verdict == "backdoored" else "suspected"
        bars.append(charts.Bar("all", findings.NO_SINGLE_TARGET, judgement.untargeted, mark))
    bounds = {"suspicious": judgement.suspicious, "backdoored": judgement.backdoored}
    return charts.score_chart(bars, bounds=bounds, clean=detection.shipped(judgement.basis).scans)


def _map(scan: ScanResult) -> Markup:
    """Where images go under the clearest trigger without a target, if the verdict goes by it."""
    untargeted = scan.evidence.untargeted
    if scan.mapping is None or untargeted is None:
        return Markup("")
    answers = untargeted.clearest.answers
    if len(answers) <= _MOST_MAPPED:
        return charts.map_chart(answers.tolist())
    share = answers / answers.sum(1, keepdim=True).clamp(min=1)
    shared = -(-len(share) // _MAP)
    pixels = max_pool2d(share.unsqueeze(0).float(), shared, ceil_mode=True)
    picture = _data(_png(1 - pixels, scale=max(1, _MAP // pixels.shape[-1])))
    words = "Where the images of each class (row) go (column)"
    last, each = len(share) - 1, f", {shared} a pixel" if shared > 1 else ""
    return Markup(
        '<img class="sheet framed" src="{}" alt="{}"><figcaption>Classes 0 to {} from the top '
        "(images) and from the left (answers){}; the darker, the more.</figcaption>"
    ).format(picture, words, last, each)


def _table(scan: ScanResult) -> list[dict[str, object]]:
    """The evidence as numbers, one row a class: what was measured, and the log-odds it gives.

    Of many classes, those of the highest scores.
    """
    evidence, judgement = scan.evidence, scan.judgement
    rows: list[dict[str, object]] = []
    reaches = findings.reaches_of(evidence)
    for c in sorted(judgement.ranking[:_MOST_ROWS]):
        parts = findings.parts_of(judgement, c)
        times, margin = findings.margin_times(evidence, c), evidence.margins.values[c]
        values = {"margin": f"{margin:.3g}" if times is None else f"{times:.2f} ×"}
        for kind, reach in reaches.items():
            values[kind] = findings.percent(reach[c].share) if c in reach else "–"
        values |= {kind: "" for kind in parts if kind not in values}
        cells = [(kind, value, parts.get(kind)) for kind, value in values.items()]
        rows.append({"class": c, "score": judgement.scores[c], "cells": cells})
    return rows


def _side(scan: ScanResult) -> str:
    windows = scan.evidence.windows
    return "{} × {}".format(*findings.window_side(windows.triggers[0])) if windows else ""


def _curve(pruning: Pruning, chosen: int) -> Markup:
    series = {
        name: [getattr(point.proxies, name).value for point in pruning.curve]
        for name in charts.SERIES
    }
    pruned = [point.pruned for point in pruning.curve]
    return charts.curve_chart(pruned, series, chosen=chosen)


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
    return {"shapprune": with_us, "torch": alone}


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


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _number(value: float | str | None) -> str:
    """Three digits; what JSON has no number for comes as a string or None."""
    if value is None:
        return "unknown"
    number = float(value)
    return "∞" if number == float("inf") else f"{number:.3g}" if number < 1000 else f"{number:,.0f}"
