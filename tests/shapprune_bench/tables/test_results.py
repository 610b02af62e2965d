"""How figures of several results are written."""

from bench_files import DIGITS, scores
from shapprune_bench.tables.cells import Cell
from shapprune_bench.tables.results import cost_of, spreads


def test_several_seeds_are_told_by_median_and_range():
    cells = [Cell("defend", DIGITS, "ours", seed=seed) for seed in range(3)]
    results = [{**scores(a, 0.0), "seconds": a, "passes": 5} for a in (0.9, 0.7, 0.8)]
    assert spreads(results) == ["80.00 (70.00 … 90.00)", "0.00"]
    assert cost_of(results) == ("0.8", "5")
    assert cost_of([{"seconds": 1.0}]) == ("1.0", "–")
    assert len({cell.name for cell in cells}) == 3
