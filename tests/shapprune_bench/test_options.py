"""What `shapprune bench` is told."""

from pathlib import Path

import pytest

from bench_files import options
from shapprune.errors import InputError


def test_models_are_kept_beside_the_results():
    assert options("table1", out=Path("here")).models == Path("here/models").absolute()
    assert options("table1", out=Path("here"), cache=Path("c")).models == Path("c").absolute()
    assert options("table1").models == Path("models").absolute()


def test_where_results_go_must_be_said():
    assert options("table1", out=Path("here")).folder == Path("here")
    with pytest.raises(InputError, match="--out DIR must tell"):
        _ = options("table1").folder


def test_rows_choose_in_the_order_that_there_is():
    names = ["first", "second", "third"]
    assert options("growth").chosen(names, "it") == names
    assert options("growth", rows=["third", "first"]).chosen(names, "it") == ["first", "third"]
    with pytest.raises(InputError, match=r"it has no model 'secnd': did you mean 'second'\?"):
        options("growth", rows=["secnd"]).chosen(names, "it")
    with pytest.raises(InputError, match=r"it has no model 'x': it has first, second, third$"):
        options("growth", rows=["x"]).chosen(names, "it")
