"""One self-contained HTML page that tells a person what was found and done."""

import re
from collections.abc import Mapping, Sequence
from json import dumps
from pathlib import PurePath

import jinja2
import torch
from markupsafe import Markup, escape
from torch import Tensor
from torch.nn.functional import max_pool2d

from shapprune.method import detection
from shapprune.method.pruning import Pruning
from shapprune.method.settings import RECOGNISED
from shapprune.method.triggers import targets_of
from shapprune.pipeline import RepairResult, ScanResult
from shapprune.reporting import charts, exits, findings, svg, words
from shapprune.reporting.answers import answer, attack_rates, classes, every_attack
from shapprune.reporting.attacks import attack_words
from shapprune.reporting.findings import Finding, class_findings, untargeted_findings
from shapprune.reporting.page import template
from shapprune.reporting.pictures import data_uri, images_picture, png, trigger_cards
from shapprune.reporting.summary import summarise
from shapprune.reporting.triggers import best_trigger, shown_targets
from shapprune.utils.text import printable

_SHEET = 200  # recovered images shown at most
_MOST_UNFOLDED = 4  # classes whose evidence is told without a click
_MOST_ROWS = 100  # of the table of classes
_MOST_MAPPED = 60  # classes of a map that is drawn; larger ones are a picture
_MAP = 480  # pixels of that picture at most; of more classes several share one
_SHORT = 80  # letters of a file's name
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
    "entry": "Weights under",
    "copies": "Other copies of the weights",
    "left_out_if_repaired": "Left out of a repaired file",
}
_IF_ANY = ("entry", "copies", "left_out_if_repaired")
_APART = ("notes", "files")  # inputs that the first screen shows


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
        about: the run's inputs; "notes" is a list of sentences for the reader, "files" of what
            was examined, see `shapprune.utils.files.Fingerprint`.
        class_names: in the order of the labels, None where they are not known.
    """
    scan = result.scan if isinstance(result, RepairResult) else result
    names = words.labels_of(class_names, scan.evidence.classes)
    counts = torch.bincount(labels.cpu(), minlength=len(names)).tolist()
    return _page().render(
        run=summarise(result, about=about, class_names=class_names),
        names=names,
        style=svg.STYLE,
        did=isinstance(result, RepairResult) and result.repair is not None,
        your="the recovered" if scan.recovered else "your",
        **_first_screen(result, scan, names, counts, about),
        **_evidence(result, scan, names),
        cards=trigger_cards(result, images, labels, names),
        **(_repaired(result, names) if isinstance(result, RepairResult) else {}),
        **_record(names, counts, about),
    )


def _page() -> jinja2.Template:
    return template(
        "report.html.j2",
        tenths=words.tenths,
        signed=words.signed,
        size=words.size,
        shown=words.shown,
        minus=lambda text: text.replace("-", "−"),
        code=_code,
        short=lambda text: printable(str(text), _SHORT),
    )


def _code(text: str) -> Markup:
    """What stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _first_screen(
    result: ScanResult | RepairResult,
    scan: ScanResult,
    names: Sequence[str],
    counts: Sequence[int],
    about: Mapping[str, object],
) -> dict[str, object]:
    judgement, repair = scan.judgement, isinstance(result, RepairResult)
    best = best_trigger(result)
    return {
        "weights": printable(PurePath(str(about.get("weights", ""))).name, _SHORT),
        "answers": answer(result, names=names, per_class=counts),
        "notes": [printable(str(note)) for note in words.as_list(about.get("notes")) if note],
        "files": words.as_list(about.get("files")),
        "recognised": RECOGNISED,
        "score": words.apart(judgement.score, judgement.suspicious, judgement.backdoored),
        "asr": best and (best.asr, f"{best.kind}, on {best.of}"),
        "meanings": {code: meaning[repair] for code, meaning in exits.MEANINGS.items()},
        "treated": classes(shown_targets(result), names),
        "side": _side(scan),
    }


def _evidence(
    result: ScanResult | RepairResult, scan: ScanResult, names: Sequence[str]
) -> dict[str, object]:
    judgement, evidence = scan.judgement, scan.evidence
    rules, marks = every_attack(judgement), findings.marks(judgement)
    told = _told(scan, names)
    return {
        "marks": marks,
        "no_single": findings.no_single_target(judgement),
        "undecided": judgement.undecided,
        "mapping": findings.mapping_words(judgement.mapping),
        "population": findings.population(judgement),
        "unseen": rules.poisoned != detection.shipped(judgement.basis).poisoned,
        "told": told[:_MOST_UNFOLDED],
        "also_told": told[_MOST_UNFOLDED:],
        "scores": _scores(scan, names, marks),
        "map": _map(scan),
        "map_drawn": len(names) <= _MOST_MAPPED,
        "table": _table(scan),
        "start": findings.start(judgement),
        "looser": detection.suspicious_rate(judgement.false_alarms),
        "attacks": [
            (name, attack_words(name), rate, rules.poisoned_above(judgement.backdoored, name))
            for name, rate in attack_rates(rules, judgement.suspicious).items()
        ],
        "stamps": evidence.untargeted.triggers if evidence.untargeted else (),
        "sheet": data_uri(images_picture(scan.recovered.images[:_SHEET])) if scan.recovered else "",
    }


def _repaired(result: RepairResult, names: Sequence[str]) -> dict[str, object]:
    repair = result.repair
    if repair is None:
        return {}
    return {
        "curve": _curve(repair.pruning, len(repair.pruned)),
        "legend": svg.legend(charts.SERIES),
        "meter": svg.meter,
        "sent": [
            classes(targets, names) if len(targets) == 1 else f"{len(targets)} classes"
            for targets in (targets_of([trigger.mapping]) for trigger in repair.triggers)
        ],
    }


def _record(
    names: Sequence[str], counts: Sequence[int], about: Mapping[str, object]
) -> dict[str, object]:
    shown = [key for key in _LABELS if key in about and (about[key] or key not in _IF_ANY)]
    inputs = [(_LABELS[key], about[key]) for key in shown]
    inputs += [(k, v) for k, v in about.items() if k not in _LABELS and k not in _APART]
    return {
        "inputs": [(key, words.shown(value)) for key, value in inputs],
        "snippet": _snippet(about, len(names)),
        "per_class": sorted({n for n in counts if n}),
        "missing": [names[c] for c, n in enumerate(counts) if not n],
        "exit_codes": exits.MEANINGS,
    }


def _told(scan: ScanResult, names: Sequence[str]) -> list[tuple[str, list[Finding]]]:
    """What the evidence says of all that is suspected, or of the class that stands out most."""
    evidence, judgement = scan.evidence, scan.judgement
    found = []
    if findings.no_single_target(judgement):
        title = "A backdoor without a single target"
        found.append((title, untargeted_findings(evidence, judgement)))
    suspected = list(findings.marks(judgement))
    if not found and not suspected:
        suspected = list(judgement.ranking[:1])
    return found + [
        (f"Class {names[c]}", class_findings(evidence, judgement, c)) for c in suspected
    ]


def _scores(scan: ScanResult, names: Sequence[str], marks: Mapping[int, str]) -> svg.Chart:
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
    picture = data_uri(png(1 - pixels, scale=max(1, _MAP // pixels.shape[-1])))
    title = "Where the images of each class (row) go (column)"
    last, each = len(share) - 1, f", {shared} a pixel" if shared > 1 else ""
    return Markup(
        '<img class="sheet framed" src="{}" alt="{}"><figcaption>Classes 0 to {} from the top '
        "(images) and from the left (answers){}; the darker, the more.</figcaption>"
    ).format(picture, title, last, each)


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
            values[kind] = words.percent(reach[c].share) if c in reach else "–"
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


def _snippet(about: Mapping[str, object], classes: int) -> dict[str, str]:
    """How to load the repaired file, in Python."""
    options = "".join(
        f"    {name}=[{words.shown(about[name])}],\n"
        for name, usual in (("mean", 0.0), ("std", 1.0))
        if any(value != usual for value in words.as_list(about.get(name)))
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
