"""Files that are no weights: each told by its kind, with what to do."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save as to_safetensors
from torch import nn

from shapprune.checkpoints.inspection import look_into
from shapprune.checkpoints.source import read_source
from shapprune.errors import InputError

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 46830571\n"


def zipped(**entries: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"))
    return buffer.getvalue()


def picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind)
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, w=np.ones(3))
    return buffer.getvalue()


def torch_saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def script() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), buffer)
    return buffer.getvalue()


def exported() -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)), buffer)
    return buffer.getvalue()


def quantised() -> dict[str, object]:
    tensor = torch.quantize_per_tensor(torch.randn(4, 4), 0.1, 0, torch.qint8)
    return {"fc.scale": torch.tensor(0.1), "fc.zero_point": torch.tensor(0), "fc.weight": tensor}


WHOLE = to_safetensors({"a": torch.ones(64)})
FILES = {
    "lfs.pth": (LFS, "Git LFS pointer, not the file (46830571 bytes)", "git lfs pull"),
    "lfs.safetensors": (LFS, "Git LFS pointer", "git lfs pull"),
    "page.safetensors": (b"<!DOCTYPE html><html><title>Sign in</title>", "web page", "sign in"),
    "page.pth": (b"\n <!-- x -->\n<HTML>", "web page", "download the file itself"),
    "page.onnx": (b"\xef\xbb\xbf<html>", "web page", "download the file itself"),
    "error.pt": (b"<?xml version='1.0'?><Error><Code>AccessDenied", " an XML", "download it again"),
    "denied.bin": (b"Access denied. Try again later.", "text file", "name the weights file"),
    "keras.h5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "Keras or HDF5", "tf2onnx and then onnx2torch"),
    "net.keras": (
        zipped(**{"config.json": b"{}", "metadata.json": b"{}", "model.weights.h5": b"x"}),
        "Keras",
        "tf2onnx and then onnx2torch",
    ),
    "m.gguf": (b"GGUF\x03\0\0\0" + bytes(99), "GGUF", "ask who made it"),
    "m.bin": (b"GGUF\x03\0\0\0" + bytes(99), "GGUF", "ask who made it"),
    "m.tflite": (b"\x1c\0\0\0TFL3" + bytes(99), "TFLite", "tflite2onnx"),
    "m.onnx": (b"\x08\x07\x12\x07pytorch", "ONNX", "onnx2torch"),
    "m.pth": (b"\x08\x07\x12\x07pytorch", "ONNX", "onnx2torch"),
    "m.mlmodel": (b"\x08\x07\x12\x07coreml", "Core ML", "ask who made it"),
    "saved_model.pb": (b"\x0a\x07\x12\x07tf" + bytes(99), "TensorFlow", "tf2onnx"),
    "m.msgpack": (b"\x81\xa6params\x81" + bytes(99), "Flax", "transformers"),
    "w.npy": (b"\x93NUMPY\x01\0" + bytes(99), " a numpy array", "name the weights file"),
    "w.npz": (npz(), " an archive of numpy arrays", "--images"),
    "cat.png": (picture("PNG"), " an image (PNG)", "--images"),
    "cat.pth": (picture("JPEG"), "image (JPEG)", "--images"),
    "cat.bmp": (picture("BMP"), "image (BMP)", "--images"),
    "paper.pdf": (b"%PDF-1.7 ...", "PDF", "name the weights file"),
    "w.pth.gz": (b"\x1f\x8b\x08" + bytes(99), "gzip", "unpack it"),
    "w.pth.xz": (b"\xfd7zXZ\0" + bytes(99), " an xz archive", "unpack it"),
    "w.7z": (b"7z\xbc\xaf\x27\x1c" + bytes(99), "7z", "unpack it"),
    "w.tar": (tarred(), "tar archive", "unpack it"),
    "w.zip": (zipped(**{"a/model.pth": b"x", "a/readme.md": b"y"}), "a zip archive with 'a/m",
              "unpack it"),
    "net.py": (b"import torch\nclass Net: ...\n", "Python source", "--arch FILE.py:CALLABLE"),
    "config.json": (json.dumps({"model_type": "vit"}, indent=1).encode(), "JSON", "weights file"),
    "config.yaml": (b"model: resnet18\nlr: 0.1\n", "text file", "weights file"),
    "a.out": (b"\x7fELF\x02" + bytes(99), "program", "do not run it"),
    "empty.pth": (b"", "empty", "expected a weights file"),
    "cut.safetensors": (WHOLE[:-9], "cut short", "download it again"),
    "cut.pth": (torch_saved({"a": torch.ones(99)})[:-99], "cut short", "download it again"),
    "q.pth": (torch_saved(quantised()), "quantised", "the float network"),
    "gptq.pth": (torch_saved({"a.qweight": torch.ones(3, dtype=torch.int32)}), "quantised",
                 "the float network"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_names_the_kind_and_what_to_do(name, tmp_path):
    data, kind, advice = FILES[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_source(tmp_path / name)
    said = str(caught.value)
    assert kind in said
    assert advice in said
    assert said.isprintable()
    assert "torch.load" not in said
    assert "weights_only" not in said


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("make", "kind"), [(script, "TorchScript"), (exported, "torch.export")])
def test_programs_of_torch(make, kind, tmp_path):
    (tmp_path / "m.pt2").write_bytes(make())
    with pytest.raises(InputError, match=f"{kind}.*ask who made it"):
        read_source(tmp_path / "m.pt2")


@pytest.mark.parametrize(
    ("file", "kind", "advice"),
    [
        ("saved_model.pb", "SavedModel", "tf2onnx"),
        ("adapter_config.json", "adapter", "merge it"),
        ("tf_model.h5", "tf_model.h5 alone", "expected model.safetensors"),
        ("readme.md", "folder without model.safetensors", "expected a weights file"),
    ],
)
def test_folders(file, kind, advice, tmp_path):
    (tmp_path / file).write_bytes(b"x")
    with pytest.raises(InputError, match=f"{kind}.*{advice}"):
        read_source(tmp_path)


@pytest.mark.parametrize("length", [0x8B1F, 0x5A4D, 0x4D42, 0x0A08, 0x2020])
def test_a_header_whose_length_looks_like_another_kind(length, tmp_path):
    """The first two bytes are those of gzip, a program, a bitmap, ONNX, text."""
    text = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    data = length.to_bytes(8, "little") + text.ljust(length) + bytes(16)
    (tmp_path / "m.bin").write_bytes(data)
    contents = look_into(tmp_path / "m.bin")
    assert (contents.kind, contents.problems) == ("safetensors", ())


def test_a_pickle_of_a_hugging_face_folder(tmp_path):
    weights = {"0.weight": torch.ones(2, 2), "0.bias": torch.ones(2)}
    folder = Path(tmp_path / "hub")
    folder.mkdir()
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "config.json").write_text('{"model_type": "resnet"}')
    source = read_source(folder)
    assert source.weights.keys() == weights.keys()
    network = nn.Sequential(nn.Linear(2, 2))
    assert {"model.safetensors", "config.json"} <= source.repaired(network).keys()
    (folder / "pytorch_model.bin").unlink()
    places = {}
    for number, (name, tensor) in enumerate(weights.items()):
        torch.save({name: tensor}, folder / f"pytorch_model-{number}.bin")
        places[name] = f"pytorch_model-{number}.bin"
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    assert read_source(folder).weights.keys() == weights.keys()
    (folder / "model.safetensors").write_bytes(WHOLE)
    source = read_source(folder)
    assert list(source.weights) == ["a"]
    assert "examined is 'model.safetensors' alone" in source.notes[0]
