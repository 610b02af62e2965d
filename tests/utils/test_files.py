"""Files are written whole."""

import errno
import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from shapprune.errors import InputError
from shapprune.utils.files import (
    check_file,
    check_folder,
    fingerprint,
    read_json,
    similar_file,
    write_folder,
    write_whole,
)


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


def broken_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_several_files_are_written_all_or_none(tmp_path, monkeypatch):
    """The disk is full before the second: the first one, and what stood there, stay."""
    folder, calls = tmp_path / "out", []
    write_folder(folder, {"a": b"old"}, stale=())

    def full_at_the_second(number):
        calls.append(number)
        if len(calls) == 2:
            broken_disk()

    monkeypatch.setattr(os, "fsync", full_at_the_second)
    with fails("cannot write .*b: No space left"):
        write_folder(folder, {"a": b"new", "b": b"new"}, stale=("*",))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {"a": b"old"}
    monkeypatch.setattr(os, "fsync", broken_disk)
    with fails("No space left"):
        write_folder(tmp_path / "fresh", {"a": b"new"}, stale=())
    assert not (tmp_path / "fresh").exists()


def test_a_name_that_a_folder_has_is_found_before_any_is_taken(tmp_path):
    write_folder(tmp_path, {"a": b"old"}, stale=())
    (tmp_path / "b").mkdir()
    with fails("cannot write .*b: Is a directory"):
        write_folder(tmp_path, {"a": b"new"}, stale=(), beside={tmp_path / "b": b"new"})
    assert (tmp_path / "a").read_bytes() == b"old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b"]


def test_temporary_files_of_another_run_stay(tmp_path):
    for name in (".a.tmp", ".b.tmp", "b.png"):
        (tmp_path / name).touch()
    os.utime(tmp_path / ".b.tmp", (0, 0))  # of a run that was killed
    (tmp_path / ".c.tmp").symlink_to("nowhere")
    write_folder(tmp_path, {}, stale=(".*.tmp", "*.png"))
    assert sorted(file.name for file in tmp_path.iterdir()) == [".a.tmp", ".c.tmp"]


def test_what_another_run_takes_away_first_is_no_error(tmp_path, monkeypatch):
    (tmp_path / ".a.tmp").touch()
    (tmp_path / "b.png").touch()
    glob = Path.glob

    def gone_by_then(folder: Path, pattern: str) -> list[Path]:
        found = list(glob(folder, pattern))
        for file in found:
            file.unlink()
        return found

    monkeypatch.setattr(Path, "glob", gone_by_then)
    write_folder(tmp_path, {}, stale=(".*.tmp", "*.png"))


def test_what_cannot_be_taken_away_is_told(tmp_path):
    (tmp_path / "repaired.d").mkdir()
    with fails("cannot remove .*repaired.d"):
        write_folder(tmp_path, {}, stale=("repaired.*",))


def test_folders_that_cannot_be_written_are_found_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for name, overwrite, message in (
        ("new", False, ""),
        (".", True, ""),
        ("file", True, "is a file: expected a folder"),
        ("full", False, "exists already: add --overwrite"),
        ("full", True, ""),
        ("missing/new", True, "missing does not exist: make it first"),
        ("x" * 300, True, "cannot be written to: File name too long"),
    ):
        with fails(message) if message else nullcontext():
            check_folder(tmp_path / name, overwrite=overwrite)
    assert {file.name for file in tmp_path.rglob("*")} == {"file", "full"}
    monkeypatch.setattr(os, "fsync", broken_disk)
    for name in ("new", "full"):
        with fails("cannot be written to: No space left"):
            check_folder(tmp_path / name, overwrite=True)
    assert {file.name for file in tmp_path.rglob("*")} == {"file", "full"}


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no such file system here")
def test_folders_where_permissions_do_not_tell():
    with fails("/proc/new cannot be written to"):
        check_folder(Path("/proc/new"), overwrite=False)


def test_files_that_cannot_be_written_are_found_before_the_work(tmp_path, monkeypatch):
    path, out = tmp_path / "log.sarif", tmp_path / "out"
    check_file(path, overwrite=False)
    check_file(out / "log.sarif", overwrite=False, beside=out)
    check_file(out / "log.sarif", overwrite=False, beside=tmp_path / ".." / tmp_path.name / "out")
    with fails("is a folder: expected the name of a file"):
        check_file(out, overwrite=True, beside=tmp_path / ".." / tmp_path.name / "out")
    for wrong, message in ((out / "log.sarif", "make it first"), (tmp_path, "is a folder")):
        with fails(message):
            check_file(wrong, overwrite=True)
    path.write_text("mine")
    with fails("exists already: add --overwrite"):
        check_file(path, overwrite=False)
    check_file(path, overwrite=True)
    monkeypatch.setattr(os, "fsync", broken_disk)
    with fails("cannot be written: No space left"):
        check_file(path, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["log.sarif"]


def test_links_and_devices_are_no_files_to_write_over(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    for path in (*(tmp_path / name for name in ("link", "dangling", "pipe")), Path(os.devnull)):
        for overwrite in (False, True):
            with fails("is a link or no plain file: name another file"):
                check_file(path, overwrite=overwrite)


def test_fingerprints(tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(b"abc")
    os.utime(path, (0, 86400.75))
    found = fingerprint(path)
    assert (found.name, found.bytes, found.modified) == ("net.pth", 3, "1970-01-02T00:00:00Z")
    assert found.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_path_that_leads_nowhere_is_told_with_what_is_like_it(tmp_path):
    (tmp_path / "models").mkdir()
    for name in ("net.pth", "weights.bin", "ünïcode.pt"):
        (tmp_path / "models" / name).touch()
    (tmp_path / "models" / "away.pth").symlink_to("nowhere")
    told = {
        "models/away.pth": "",
        "models/nett.pt": ": did you mean 'net.pth'?",
        "models/NET.PTH": ": did you mean 'net.pth'?",
        "models/unicode.pt": ": did you mean 'ünïcode.pt'?",
        "modles/net.pth": ": did you mean 'models'?",
        "models/quite-another-name": "",
    }
    assert {path: similar_file(tmp_path / path) for path in told} == told
    with fails(r"cannot read .*/nett.pt: No such file or directory: did you mean 'net.pth'\?"):
        read_json(tmp_path / "models" / "nett.pt")


def test_relative_paths_are_looked_for_where_the_user_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.pth").touch()
    assert similar_file(Path("net.pt")) == ": did you mean 'net.pth'?"
    assert similar_file(Path()) == ""
