"""The JSON files of benchmarks/results: how they are read, and what their folders are about."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

Json = Mapping[str, Any]

_SEEN = "Seen while the rules were made; no bound was fitted to them."

# A title for a folder of results, and what the rules had to do with its models.
SETS = {
    "test": ("test population", "No rule was chosen on these."),
    "test_again": (
        "test population, part of it trained again",
        "No rule was chosen on these: recipes of the test population, trained on another kind of "
        "processor, which gives other weights.",
    ),
    "dev": ("development population", "The verdict's rules were chosen on these."),
    "zoo_and_demo": ("the zoo and the demo", _SEEN),
    "zoo_without_images": ("the zoo and the demo", _SEEN),
    "foreign": ("strangers' models", _SEEN),
    "xai": ("strangers' `xai_*` models", _SEEN),
    "foreign_without_images": (
        "strangers' models, without images",
        "The bounds are those for given images.",
    ),
}


# For tables: were the rules chosen on these models, made while they were seen, or neither?
_WORDS = {"dev": "chosen on these", "test": "unseen", "test_again": "unseen"}


def known_as(folder: str) -> str:
    """What the rules had to do with a folder's models, in a word or two.

    >>> known_as("dev"), known_as("test"), known_as("foreign"), known_as("mine")
    ('chosen on these', 'unseen', 'seen', '')
    """
    return _WORDS.get(folder, "seen") if folder in SETS else ""


def title_of(folder: str) -> str:
    """What a folder is about."""
    return SETS[folder][0] if folder in SETS else folder.replace("_", " ")


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
