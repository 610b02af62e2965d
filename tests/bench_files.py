"""Files of results as the bench writes them, a recipe of a tiny model, and its data."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from shapprune.checkpoints.state_dict import save_weights
from shapprune.cli.parser import parse
from shapprune_bench.options import Options
from shapprune_bench.populations.manifest import FORMAT, NAME
from shapprune_bench.tables.cells import Cell
from shapprune_bench.tables.experiments import ROWS
from shapprune_bench.tables.recipes import Recipe, make

(DIGITS,) = ROWS["smoke"]
TWIN = DIGITS.clean_twin()
TINY = Recipe(
    "tiny-clean",
    "dev",
    "digits.npz",
    num_classes=3,
    input_size=(1, 8, 8),
    network="shapprune_bench.networks:pooled_cnn?channels=1&widths=(4,8)&hidden=8",
    epochs=2,
    rate=0.0,
    batch_size=16,
    learning_rate=0.02,
)


def write(folder: Path, cell: Cell, **measured: object) -> None:
    content = {"cell": cell.facts(), "state": "done", "seconds": 2.0, "passes": 1234, **measured}
    (folder / f"{cell.name}.json").write_text(json.dumps(content))


def scores(accuracy: float, asr: float) -> dict:
    before = {"accuracy": 0.97, "asr": 1.0}
    return {"before": before, "after": {"accuracy": accuracy, "asr": asr}}


def tiny_data(folder: Path) -> Path:
    """Three classes of grey images: a bright row each."""
    labels = np.arange(60) % 3
    images = np.random.default_rng(0).integers(0, 60, (60, 8, 8)).astype(np.uint8)
    images[np.arange(60), 2 * labels + 1] = 230
    arrays = {"images": images, "labels": labels}
    parts = {f"{part}_{name}": a for part in ("train", "test") for name, a in arrays.items()}
    np.savez(folder / TINY.data, **parts)
    return folder


def tiny_manifest(folder: Path) -> Path:
    """A folder with a manifest of two tiny models, "clean" and "poisoned", and their data."""
    data, entries = tiny_data(folder), []
    for name, rate in (("clean", 0.0), ("poisoned", 0.3)):
        made = make(replace(TINY, epochs=12, rate=rate), root=data)
        save_weights(made.model, folder / f"{name}.safetensors")
        entries.append(
            {
                "name": name,
                "weights": f"{name}.safetensors",
                "arch": TINY.network,
                "num_classes": 3,
                "data": TINY.data,
                "backdoored": bool(rate),
                "target": 0 if rate else None,
                "attack": "badnets" if rate else None,
            }
        )
    content = {"format": FORMAT, "data_root": str(data), "models": entries}
    (folder / NAME).write_text(json.dumps(content))
    return folder


def options(what: str, **changes: Any) -> Options:
    """What the command line makes of a bench command without any option, but for changes."""
    return replace(Options.of(parse(["bench", what])), **changes)


def repair_file(folder: Path, name: str, seed: int, rules: str, lost: float, asr: float) -> None:
    """A file that ``bench repair`` writes, of a backdoor that worked always."""
    specimen = {"name": name, "attack": "badnets", "target": 1, "source": None}
    cell = {"specimen": specimen, "per_class": 1, "seed": seed, "by_verdict": False, "rules": rules}
    result = {
        "cell": cell,
        "state": "done",
        "before": {"accuracy": 0.9, "asr": 1.0, "right": 0.0},
        "after": {"accuracy": 0.9 - lost, "asr": asr, "right": 0.5},
        "verdict": "backdoored",
        "targets": [1],
        "sufficient": True,
        "seconds": 10.0,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"repair_{name}_{seed}_{rules}.json").write_text(json.dumps(result))
