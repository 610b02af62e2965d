"""The JSON files of benchmarks/results: how they are read, and what their folders are about."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal, TypeAlias

Json = Mapping[str, Any]

Rules: TypeAlias = Literal["verdict", "repair"]


@dataclass(frozen=True)
class Models:
    """What a folder of results is about.

    Attributes:
        title: of its tables.
        verdict, repair: what their rules had to do with these models, a key of `_KNOWN`.
        more: what else is to be known of them.
        beside: the set whose models of the same names tell what the difference is worth.
    """

    title: str
    verdict: str
    repair: str
    more: str = ""
    beside: str | None = None


# Were the rules chosen on these models, made while these were seen, or neither?
_KNOWN = {
    "chosen on these": "rules were chosen on these.",
    "seen": "rules were made while these were seen; no threshold was fitted to them.",
    "unseen": "rules have not seen these.",
}

SETS = {
    "test": Models("test population", "unseen", "unseen"),
    "test_again": Models(
        "test population, part of it trained again",
        "unseen",
        "unseen",
        "Recipes of the test population (two data sets and two models of a third, which fitted the "
        "time), trained on another kind of processor, which gives other weights.",
        beside="test",
    ),
    "test_again_without_images": Models(
        "test population, part of it trained again, without images",
        "unseen",
        "unseen",
        "All of one data set of these and a few more, for time. The bounds are those for given "
        "images.",
        beside="test_again",
    ),
    "dev": Models("development population", "chosen on these", "seen"),
    "zoo_and_demo": Models("the zoo and the demo", "seen", "chosen on these"),
    "zoo_without_images": Models("the zoo and the demo", "seen", "chosen on these"),
    "foreign": Models("strangers' models", "seen", "chosen on these"),
    "xai": Models("strangers' `xai_*` models", "seen", "chosen on these"),
    "foreign_without_images": Models(
        "strangers' models, without images",
        "seen",
        "chosen on these",
        "Those with batch norm, whose images are recovered. The bounds are those for given images.",
        beside="foreign",
    ),
    "foreign_without_batch_norm": Models(
        "strangers' models, without images and batch norm",
        "seen",
        "chosen on these",
        "The verdict stands on largest margins and the last layer, by scores and bounds of their "
        "own. It is never clean: what is below the bound is called suspicious, clean or poisoned.",
        beside="foreign",
    ),
}


def known_as(folder: str, rules: Rules = "verdict") -> str:
    """What these rules had to do with a folder's models, in a word or two.

    >>> known_as("dev"), known_as("test"), known_as("foreign"), known_as("mine")
    ('chosen on these', 'unseen', 'seen', '')
    >>> known_as("foreign", "repair")
    'chosen on these'
    """
    return str(getattr(SETS[folder], rules)) if folder in SETS else ""


def told_of(folder: str, rules: Rules = "verdict") -> str:
    """The same in sentences.

    >>> told_of("test", "repair")
    "The repair's rules have not seen these."
    """
    if folder not in SETS:
        return ""
    return f"The {rules}'s {_KNOWN[known_as(folder, rules)]} {SETS[folder].more}".strip()


def title_of(folder: str) -> str:
    """What a folder is about."""
    return SETS[folder].title if folder in SETS else folder.replace("_", " ")


def read_json(file: Path) -> Json:
    """A file of results."""
    content: Json = json.loads(file.read_text(encoding="utf-8"))
    return content


def spread(values: Sequence[float]) -> str:
    """Median and range, which a single value has not.

    >>> spread([1.0, 3.0, 2.04]), spread([1.0, 1.01])
    ('2.0 (1.0 … 3.0)', '1.0')
    """
    middle, least, most = (f"{of(values):.1f}" for of in (median, min, max))
    return middle if least == most else f"{middle} ({least} … {most})"


def done(results: Path, pattern: str) -> list[Json]:
    """What files of a pattern hold, but for those of what failed."""
    every = [read_json(file) for file in sorted(results.glob(pattern))]
    return [result for result in every if result["state"] == "done"]
