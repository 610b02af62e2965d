"""Files are written whole."""

import os

import pytest

from shapprune.errors import InputError
from shapprune.utils.files import write_whole


def fails(message: str):
    """Every refusal is one line, on the point."""
    return pytest.raises(InputError, match=rf"(?s)\A[^\n]*{message}[^\n]*\Z")


def test_writes_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "result"
    write_whole(path, b"old")

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    write_whole(path, b"new")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"new"]
    for folder in ("missing", "result"):  # not there; a file
        with fails("cannot write"):
            write_whole(tmp_path / folder / "result", b"new")
