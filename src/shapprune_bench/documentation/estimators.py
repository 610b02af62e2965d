"""A table of how well estimators of Shapley values do, from files of version 0.1.0."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median, median_low

from shapprune_bench.documentation.files import Json, read_json
from shapprune_bench.documentation.results import markdown

_FOLDER = "version_0_1/shapley"

# Which runs stand in the table, and what they had to spend.
_COLUMNS = {
    "algorithm1": "`algorithm1`, 50 average iterations",
    "multilinear-1_50": "`multilinear`, 1/50 of the passes",
    "multilinear-1_500": "1/500",
}
_BEST, _AMONG, _OF = 50, 70, 448  # neurons; of smaller networks the same share


def estimators(results: Path) -> str:
    """Median over seeds of how many of the best neurons are found, and of the seconds."""
    rows = []
    for game in ("gtsrb_trojan_wm", "cifar10_badnets", "cifar10_l2inv", "demo", "vgg_2688"):
        parts = [read_json(f) for f in sorted(results.glob(f"{_FOLDER}/truth/{game}_*.json"))]
        if not parts:
            continue
        truth = _mean(parts)
        share = min(1, len(truth) / _OF)
        best, among = int(_BEST * share + 0.5), _top(truth, int(_AMONG * share + 0.5))
        row = [game, f"{len(truth):,}", f"{best} of {len(among)}"]
        for estimator in _COLUMNS:
            files = sorted(results.glob(f"{_FOLDER}/{game}_{estimator}_[0-9].json"))
            runs = [read_json(file) for file in files]
            found = median_low(len(_top(run["values"], best) & among) for run in runs)
            row.append(f"{found}, {median(run['seconds'] for run in runs):.1f} s")
        rows.append(row)
    return markdown(["game", "neurons", "best, of the truth's", *_COLUMNS.values()], rows)


def _mean(parts: Sequence[Json]) -> list[float]:
    """The values of a truth that was sampled in parts, by as many samples as each has."""
    columns = [zip(*(part[key] for part in parts), strict=True) for key in ("values", "counts")]
    return [
        sum(v * n for v, n in zip(values, counts, strict=True)) / max(1, sum(counts))
        for values, counts in zip(*columns, strict=True)
    ]


def _top(values: Sequence[float], count: int) -> set[int]:
    """The neurons of the largest values."""
    return set(sorted(range(len(values)), key=lambda n: -values[n])[:count])
