"""Pictures of triggers and images, as PNG files and for the page."""

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO

import torch
from PIL import Image
from torch import Tensor

from shapprune.method.triggers import Stamp, Trigger
from shapprune.pipeline import RepairResult, ScanResult
from shapprune.reporting import findings
from shapprune.reporting.triggers import Found, shown_targets, triggers_for
from shapprune.reporting.words import capital, number, percent

_READABLE = 256  # pixels, the side of a trigger's picture
_MOST_CARDED = 12  # classes whose triggers are shown


def trigger_picture(stamp: Stamp) -> bytes:
    """A trigger alone as a PNG file, enlarged to a readable size; mid-grey is left unchanged.

    A mask is shown as opaque and a perturbation as strong as the picture can hold.
    """
    picture, _ = _picture(stamp)
    return png(picture, scale=max(1, _READABLE // max(picture.shape[1:])))


def images_picture(images: Tensor) -> bytes:
    """All images (n, C, H, W) side by side as a PNG file, twice as wide as high."""
    n, channels, height, width = images.shape
    columns = min(n, max(1, round((2 * n * height / width) ** 0.5)))
    rows = -(-n // columns)
    sheet = torch.ones(channels, rows * height, columns * width)
    for i, image in enumerate(images.cpu().float()):
        top, left = i // columns * height, i % columns * width
        sheet[:, top : top + height, left : left + width] = image
    return png(sheet, scale=max(1, 64 // max(height, width)))


def _picture(stamp: Stamp) -> tuple[Tensor, float]:
    """A trigger on mid-grey, (C, H, W), and how many times as strong as it is."""
    if isinstance(stamp, Trigger):
        factor = 1 / max(float(stamp.mask.max()), 1e-6)
        return (stamp.mask * factor) * (stamp.pattern - 0.5) + 0.5, factor
    factor = 0.5 / max(float(stamp.delta.abs().max()), 1e-6)
    return stamp.delta * factor + 0.5, factor


def png(image: Tensor, scale: int = 1) -> bytes:
    """An image (C, H, W) in [0, 1] as a PNG file: in colour from three channels on."""
    levels = (image.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8)
    array = levels[:3].permute(1, 2, 0).numpy() if len(levels) >= 3 else levels[0].numpy()
    picture = Image.fromarray(array.copy())
    size = (picture.width * scale, picture.height * scale)
    buffer = BytesIO()
    picture.resize(size, Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def data_uri(picture: bytes) -> str:
    """A PNG file as a link."""
    return "data:image/png;base64," + b64encode(picture).decode()


def trigger_cards(
    result: ScanResult | RepairResult, images: Tensor, labels: Tensor, names: Sequence[str]
) -> list[dict[str, object]]:
    """What the page shows of each trigger; of a clean model, that of the most suspicious class.

    Where there is no single target, the triggers without one; and of margins alone the inputs.
    """
    scan = result.scan if isinstance(result, RepairResult) else result
    repaired = isinstance(result, RepairResult) and result.repair is not None
    evidence, judgement = scan.evidence, scan.judgement
    suspected = dict.fromkeys([*shown_targets(result), *findings.marks(judgement)])
    cards = []
    if evidence.untargeted and findings.no_single_target(judgement):
        clearest = evidence.untargeted.clearest
        words = f"{findings.untargeted_size(clearest)}."
        cards.append(_card("Every class", clearest.kind, clearest.stamp, words, images[:1]))
    elif not suspected:
        suspected = dict.fromkeys(judgement.ranking[:1])
    for c in list(suspected)[:_MOST_CARDED]:
        for found in triggers_for(result, c):
            other = images[labels != c][:1]
            name = f"Class {names[c]}"
            cards.append(_card(name, found.kind, found.stamp, _asr_words(found), other))
        if evidence.windows is None and not repaired:
            margin = evidence.margins.values[c]
            picture = data_uri(png(evidence.margins.inputs[c]))
            cards.append(
                {
                    "title": f"Class {names[c]}, largest margin",
                    "pictures": [(f"The input of the largest margin of {names[c]}", "", picture)],
                    "small": max(evidence.margins.inputs.shape[2:]) < 128,
                    "words": f"A margin of {number(margin)}, reached from noise.",
                }
            )
    return cards


def _asr_words(found: Found) -> str:
    norm = "L1 norm of the mask" if isinstance(found.stamp, Trigger) else "L2 norm"
    return f"ASR {percent(found.asr)} on {found.of}. {norm} {number(found.stamp.norm)}."


def _card(title: str, kind: str, stamp: Stamp, words: str, image: Tensor) -> dict[str, object]:
    image = image.to(_tensor(stamp))
    picture, factor = _picture(stamp)
    caption = capital(kind) + (f", ×{number(factor)}" if factor > 1.05 else "")
    stamped = data_uri(png(stamp.stamp(image)[0]))
    return {
        "title": f"{title}, {kind}",
        "pictures": [
            (f"The {kind} for {title}", caption, data_uri(png(picture))),
            ("A clean image", "Clean image", data_uri(png(image[0]))),
            (
                "The same image with the trigger",
                "With the trigger",
                stamped,
            ),
        ],
        "small": max(image.shape[2:]) < 128,
        "words": words,
    }


def _tensor(stamp: Stamp) -> Tensor:
    return stamp.pattern if isinstance(stamp, Trigger) else stamp.delta
