"""A study from its plan to its pages."""

import json
from dataclasses import replace
from functools import partial

import pytest

from bench_files import options
from bench_work import cells, lines, picky
from shapprune.errors import InputError
from shapprune_bench.session import Study, carry_out


@pytest.fixture
def study(tmp_path):
    """Three tasks, of which the second fails until a file says otherwise."""
    return Study(
        "sums",
        cells(3),
        partial(picky, log=tmp_path / "log", pardon=tmp_path / "pardon"),
        lambda result: f"gave {result['seed']}",
        lambda done: {"sum.json": json.dumps(sum(r["seed"] for _, r in done)).encode()},
    )


def test_what_is_done_is_kept_and_what_fails_is_told(study, tmp_path, capsys):
    out = tmp_path / "out"
    assert carry_out(study, options("sums", out=out, dry_run=True)) == 0
    assert capsys.readouterr().out == "plan: 3 sums, 0 done, 3 to do\n"
    assert not out.exists()

    assert carry_out(study, options("sums", out=out)) == 2
    told = capsys.readouterr()
    assert "2 sums done, 1 failed" in told.out
    assert f"{study.tasks[0].name}: gave 0" in told.err
    assert f"{study.tasks[1].name}: failed: ValueError: not now" in told.err
    assert (out / "sum.json").read_text() == "2"
    assert lines(tmp_path / "log", "begin") == [0, 1, 2]

    (tmp_path / "pardon").touch()
    assert carry_out(study, options("sums", out=out)) == 2  # nothing is tried again unasked
    told = capsys.readouterr().out
    assert "plan: 3 sums, 2 done, 0 to do, 1 failed before (--retry-failed" in told
    assert carry_out(study, options("sums", out=out, retry_failed=True)) == 0
    assert "plan: 3 sums, 2 done, 1 to do" in capsys.readouterr().out
    assert (out / "sum.json").read_text() == "3"
    assert lines(tmp_path / "log", "begin") == [0, 1, 2, 1]


def test_what_is_needed_and_not_there_is_told_with_the_plan(study, tmp_path, capsys):
    lacking = replace(study, needs=lambda cell: [tmp_path / f"{cell.seed}.npz"])
    with pytest.raises(InputError, match=r"0\.npz does not exist, which is needed"):
        carry_out(lacking, options("sums", out=tmp_path / "out", dry_run=True))
    assert capsys.readouterr().out.startswith("plan: 3 sums")
    with pytest.raises(InputError, match="none of the models is one that it measures"):
        carry_out(replace(study, tasks=[]), options("sums", out=tmp_path / "out"))
