"""Which models a folder holds."""

import os
from pathlib import Path

import pytest

from shapprune.checkpoints.registry import Listed, find_models


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(folder: Path) -> list[str]:
    return [one.name for one in find_models(folder)[0]]


def test_files_of_every_kind_in_nested_folders(tmp_path):
    touch(tmp_path, "b.PTH", "a/x/n.safetensors", "a/m.ckpt", "a/net.onnx", "a/readme.md", "c.tar")
    assert names(tmp_path) == ["b.PTH", "c.tar", "a/m.ckpt", "a/net.onnx", "a/x/n.safetensors"]


def test_what_is_passed_over_is_counted(tmp_path):
    touch(tmp_path, "a.pth", "weights", "b/net.model", "b/readme.md", ".hidden")
    found, others = find_models(tmp_path)
    assert ([one.name for one in found], others) == (["a.pth"], 3)


def test_a_hugging_face_folder_is_one_model(tmp_path):
    touch(tmp_path, "o/n/model.safetensors", "o/n/pytorch_model.bin", "o/n/tf_model.h5")
    touch(tmp_path, "o/n/onnx/model.onnx", "o/n/checkpoint-5/pytorch_model.bin", "o/n/ema.pt")
    assert find_models(tmp_path)[0] == [
        Listed("o/n", tmp_path / "o/n", ("ema.pt", "pytorch_model.bin")),
        Listed("o/n/checkpoint-5", tmp_path / "o/n/checkpoint-5"),
    ]
    assert names(tmp_path / "o" / "n") == ["n", "checkpoint-5"]


def test_a_folder_in_one_of_the_same_name_has_a_name_of_its_own(tmp_path):
    touch(tmp_path, "net/model.safetensors", "net/net/model.safetensors")
    assert names(tmp_path / "net") == [".", "net"]


def test_pickles_beside_a_model_and_below_it_are_listed(tmp_path):
    touch(tmp_path, "m/model.safetensors", "m/a.pkl", "m/b.PICKLE", "m/c.joblib", "m/sub/d.pkl")
    assert find_models(tmp_path)[0] == [
        Listed("m", tmp_path / "m", ("a.pkl", "b.PICKLE", "c.joblib")),
        Listed("m/sub/d.pkl", tmp_path / "m/sub/d.pkl"),
    ]


def test_shards_are_part_of_the_model(tmp_path):
    touch(tmp_path, "m/model-1-of-2.safetensors", "m/model-2-of-2.safetensors")
    places = '{"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}'
    (tmp_path / "m" / "model.safetensors.index.json").write_text(places)
    assert find_models(tmp_path) == ([Listed("m", tmp_path / "m")], 0)


def test_a_hubs_cache_is_read_through_its_links(tmp_path):
    touch(tmp_path, "models--o--n/blobs/123", ".locks/x.pth")
    snapshot = tmp_path / "models--o--n" / "snapshots" / "f00"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to("../../blobs/123")
    assert names(tmp_path) == ["models--o--n/snapshots/f00"]


def test_links_lead_to_each_folder_once(tmp_path):
    touch(tmp_path, "a/x.pth")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b").symlink_to("a", target_is_directory=True)
    (tmp_path / "self.pth").symlink_to("self.pth")
    assert names(tmp_path) == ["self.pth", "a/x.pth"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_listed(tmp_path):
    touch(tmp_path, "locked/x.pth")
    (tmp_path / "locked").chmod(0)
    try:
        assert names(tmp_path) == ["locked"]
    finally:
        (tmp_path / "locked").chmod(0o700)


def test_a_folder_whose_listing_fails_is_listed(tmp_path, monkeypatch):
    touch(tmp_path, "a.pth", "locked/x.pth")
    listing = Path.iterdir

    def iterdir(path: Path):
        if path.name == "locked":
            raise PermissionError(13, "Permission denied")
        return listing(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert names(tmp_path) == ["a.pth", "locked"]
