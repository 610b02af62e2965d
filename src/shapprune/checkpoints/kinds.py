"""Files that are no PyTorch weights: each told by its first bytes, with what to do about it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from shapprune.utils.text import list_names, printable

# Never to load the file: who could be told so would run what it holds.
SAVE_ADVICE = "ask who made it for torch.save(model.state_dict(), …) or safetensors"
_ONNX_ADVICE = (
    "onnx2torch converts it to a PyTorch network; keep the state_dict of that as safetensors, and "
    "name the converted network with --arch"
)
_KERAS_ADVICE = (
    "tf2onnx and then onnx2torch convert it, in a sandbox (Keras files can carry code); save the "
    "state_dict of the result as safetensors"
)
_WRONG_FILE = "name the weights file instead"
_UNPACK = "unpack it and name the weights file inside"
_AGAIN = "download it again"
_HEAD = 4096  # bytes that tell a kind


class Kind(NamedTuple):
    """A kind of file that holds no PyTorch weights.

    Attributes:
        name: short, for lists.
        problem: what it is and what to do, in words that follow the file's name.
    """

    name: str
    problem: str


def _kind(name: str, advice: str, what: str = "") -> Kind:
    article = "an" if (what or name)[0].lower() in "aeioux" else "a"  # an xz archive, an XML text
    return Kind(name, f"is {article} {what or name}, no PyTorch weights: {advice}")


# By what the file begins with, or has at a place.
_MAGIC: tuple[tuple[int, bytes, Kind], ...] = (
    (0, b"\x89HDF\r\n\x1a\n", _kind("Keras or HDF5 file", _KERAS_ADVICE)),
    (0, b"GGUF", _kind("GGUF file", "of quantised language models; " + SAVE_ADVICE)),
    *((0, m, _kind("GGML file", SAVE_ADVICE)) for m in (b"lmgg", b"tjgg", b"fmgg")),
    (
        4,
        b"TFL3",
        _kind("TFLite model", "tflite2onnx and then onnx2torch convert it if it is not quantised"),
    ),
    (0, b"\x93NUMPY", _kind("numpy array (npy)", _WRONG_FILE)),
    (0, b"MATLAB ", _kind("MATLAB file", _WRONG_FILE)),
    (0, b"\x89PNG", _kind("image (PNG)", "give images with --images, and " + _WRONG_FILE)),
    (0, b"\xff\xd8\xff", _kind("image (JPEG)", "give images with --images, and " + _WRONG_FILE)),
    (0, b"GIF8", _kind("image (GIF)", "give images with --images, and " + _WRONG_FILE)),
    (0, b"II*\0", _kind("image (TIFF)", "give images with --images, and " + _WRONG_FILE)),
    (0, b"MM\0*", _kind("image (TIFF)", "give images with --images, and " + _WRONG_FILE)),
    (8, b"WEBP", _kind("image (WebP)", "give images with --images, and " + _WRONG_FILE)),
    (0, b"%PDF", _kind("PDF", _WRONG_FILE)),
    (0, b"\x1f\x8b", _kind("gzip archive", _UNPACK)),
    (0, b"BZh", _kind("bzip2 archive", _UNPACK)),
    (0, b"\xfd7zXZ\0", _kind("xz archive", _UNPACK)),
    (0, b"\x28\xb5\x2f\xfd", _kind("zstd archive", _UNPACK)),
    (0, b"7z\xbc\xaf\x27\x1c", _kind("7z archive", _UNPACK)),
    (0, b"Rar!", _kind("rar archive", _UNPACK)),
    (0, b"\x7fELF", _kind("program (ELF)", "do not run it; " + _WRONG_FILE)),
    (0, b"MZ", _kind("program (Windows)", "do not run it; " + _WRONG_FILE)),
    (0, b"SQLite format 3\0", _kind("database (SQLite)", _WRONG_FILE)),
    (0, b"PAR1", _kind("table (Parquet)", _WRONG_FILE)),
    (0, b"ftrt", _kind("TensorRT engine", SAVE_ADVICE)),
)
# By the name's end, where the first bytes say nothing.
_SUFFIXES: dict[str, Kind] = {
    ".onnx": _kind("ONNX model", _ONNX_ADVICE),
    ".tflite": _kind("TFLite model", "tflite2onnx and then onnx2torch convert it"),
    ".mlmodel": _kind("Core ML model", SAVE_ADVICE),
    ".caffemodel": _kind("Caffe model", SAVE_ADVICE),
    ".pb": _kind("TensorFlow graph", "tf2onnx and then onnx2torch convert it"),
    ".msgpack": _kind(
        "Flax file", "transformers' from_pretrained(…, from_flax=True) reads those of its own"
    ),
    ".pdparams": _kind("Paddle file", SAVE_ADVICE),
    ".engine": _kind("TensorRT engine", SAVE_ADVICE),
    ".plan": _kind("TensorRT engine", SAVE_ADVICE),
}
_LFS = re.compile(rb"version https://git-lfs\.github\.com/spec/")
_PAGE = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b", re.I | re.S)


def foreign(path: Path, file: BinaryIO) -> Kind | None:
    """The kind of a file that is no PyTorch weights, None if it may hold some.

    Zip archives are looked into by `foreign_zip`, since torch's own are zips, too.
    """
    file.seek(0)
    head = file.read(_HEAD)
    file.seek(0)
    if head[4:9] == bytes(4) + b"{":  # safetensors: a length, whose bytes may look like anything
        return None
    for place, magic, kind in _MAGIC:
        if head[place : place + len(magic)] == magic:
            return kind
    plain = head.removeprefix(b"\xef\xbb\xbf")
    if _is_text(plain):
        return _text(path, plain)
    if head[:1] == b"\x08" and path.suffix.lower() != ".mlmodel":  # a protobuf's first field
        return _SUFFIXES[".onnx"]
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return _kind("image (BMP)", "give images with --images, and " + _WRONG_FILE)
    return _SUFFIXES.get(path.suffix.lower())


def _is_text(head: bytes) -> bool:
    """Text of a person or server, and no pickle, whose oldest protocol is letters, too."""
    if re.match(rb"[(c\]}][^\s]*\n", head):
        return False
    try:
        text = head.decode("utf-8", "strict" if len(head) < _HEAD else "ignore")
    except UnicodeDecodeError:
        return False
    return len(head) > 4 and not any(ord(c) < 9 or 13 < ord(c) < 32 for c in text)


def _text(path: Path, head: bytes) -> Kind:
    if _LFS.match(head):
        size = re.search(rb"^size (\d{1,15})$", head, re.M)
        bytes_said = f" ({size[1].decode()} bytes)" if size else ""
        return Kind(
            "Git LFS pointer",
            f"is a Git LFS pointer, not the file{bytes_said} that it stands for: fetch that with "
            "git lfs pull, or from the page's download link",
        )
    if _PAGE.match(head):
        title = re.search(rb"<title[^>]*>(.*?)</title>", head, re.I | re.S)
        said = f" ({printable(title[1].decode('utf-8', 'replace'), 60)!r})" if title else ""
        return Kind(
            "web page",
            f"is a web page (HTML){said} and not the weights: the link leads to a page, or asks to "
            "sign in; download the file itself",
        )
    if head.lstrip()[:5] == b"<?xml" or head.lstrip()[:6] == b"<Error":
        return _kind("XML", "it may be a server's error; " + _AGAIN, "XML text")
    if head.lstrip()[:1] in (b"{", b"["):
        return _kind("JSON", _WRONG_FILE, "JSON text")
    if path.suffix.lower() == ".py" or re.search(
        rb"^(import|from) \w|^(class|def) \w+\W", head, re.M
    ):
        return _kind(
            "Python source", "name it with --arch FILE.py:CALLABLE, and the weights file here"
        )
    return _kind(
        "text", "it may be a server's error or a configuration; " + _WRONG_FILE, "text file"
    )


def foreign_zip(names: Sequence[str]) -> Kind | None:
    """The kind of a zip by its entries' names, None if it may be torch.save's."""
    ends = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in ends or "bytecode.pkl" in ends or ("code" in _parts(names, 1)):
        return Kind(
            "TorchScript",
            f"is a TorchScript archive, which carries code and is not loaded: {SAVE_ADVICE}",
        )
    if "archive_format" in ends or any(e.startswith("serialized_exported_program") for e in ends):
        return Kind(
            "torch.export",
            "is a program of torch.export (.pt2), which carries a graph and not a network of "
            f"layers: {SAVE_ADVICE}",
        )
    if "model.weights.h5" in ends or {"config.json", "metadata.json"} <= ends:
        return _kind("Keras file", _KERAS_ADVICE)
    if names and all(name.endswith(".npy") for name in names):
        return _kind(
            "archive of numpy arrays (npz)",
            "images go behind --images; weights in it must be saved as a state_dict first",
        )
    if "saved_model.pb" in ends:
        return _kind("packed SavedModel", _UNPACK)
    if not any(name.endswith("data.pkl") for name in names):
        inside = [name for name in names if not name.endswith("/")]
        found = f" with {list_names(inside)}" if inside else ""
        return Kind("zip archive", f"is a zip archive{found}: {_UNPACK}")
    return None


def _parts(names: Sequence[str], depth: int) -> set[str]:
    return {parts[depth] for name in names if len(parts := name.split("/")) > depth + 1}


def foreign_folder(folder: Path) -> str | None:
    """What to do about a folder of another framework, in words that follow its name."""
    if (folder / "saved_model.pb").is_file() or (folder / "keras_metadata.pb").is_file():
        return (
            "is a TensorFlow SavedModel, no PyTorch weights: tf2onnx and then onnx2torch convert "
            "it; save the state_dict of the result as safetensors"
        )
    if folder.suffix == ".mlpackage" or (folder / "Manifest.json").is_file():
        return f"is a Core ML package, no PyTorch weights: {SAVE_ADVICE}"
    if (folder / "adapter_config.json").is_file():
        return (
            "holds an adapter (LoRA), which is a change to another model: merge it into that one "
            "(peft's merge_and_unload) and scan the result"
        )
    for name in ("tf_model.h5", "flax_model.msgpack", "model.onnx", "pytorch_model.bin.gz"):
        if (folder / name).is_file():
            advice = _ONNX_ADVICE if name.endswith("onnx") else "transformers converts its own"
            return f"holds {name} alone, no PyTorch weights: {advice}; expected model.safetensors"
    return None
