"""What a run says that it will do."""

from dataclasses import replace

from bench_files import write
from shapprune_bench.tables.cells import Cell
from shapprune_bench.tables.experiments import EXPERIMENTS, TABLE1, models_of, rows
from shapprune_bench.tables.plan import plan


def test_a_plan_tells_cells_models_and_minutes(tmp_path):
    cells = list(EXPERIMENTS["table1"].cells("cpu"))
    cells = [*models_of(cells), *cells]
    nothing = plan(cells, folder=tmp_path, cache=tmp_path)
    assert (nothing.cells, nothing.left, nothing.seconds) == (204, 204, 0)
    assert len(nothing.train) == 15
    assert "model" in nothing.unknown
    assert "defend ours" in nothing.unknown

    one = Cell("defend", rows("cpu", TABLE1)[0], "ours")
    write(tmp_path, one, wall_seconds=60.0)
    known = plan(cells, folder=tmp_path, cache=tmp_path)
    assert known.left == 203
    assert known.seconds == 26 * 60  # three draws of nine rows, one of which is there
    assert "defend ours" not in known.unknown
    other = [replace(one, per_class=0)]  # the images are recovered first
    assert plan(other, folder=tmp_path, cache=tmp_path).unknown == ("model", "defend ours")
    write(tmp_path, Cell("model", one.recipe), seconds=100.0)
    assert plan(cells, folder=tmp_path, cache=tmp_path).seconds == 26 * 60 + 15 * 100
    lost = plan([one, replace(one, seed=1)], folder=tmp_path, cache=tmp_path)
    assert lost.train == (one.recipe.name,)  # its result is there, but the model itself is not
    assert plan([one], folder=tmp_path, cache=tmp_path).train == ()  # nothing needs it
    write(tmp_path, replace(one, seed=1), state="failed", error="no")
    assert plan(cells, folder=tmp_path, cache=tmp_path).failed == 1
    again = plan(cells, folder=tmp_path, cache=tmp_path, retry_failed=True)
    assert again.failed == 0
    assert again.left == plan(cells, folder=tmp_path, cache=tmp_path).left + 1
