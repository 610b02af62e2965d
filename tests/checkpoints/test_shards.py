"""Weights in parts: read whole where all agrees, and refused in one line where it does not."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from shapprune.checkpoints.loading import fill_network
from shapprune.checkpoints.source import read_source
from shapprune.cli.main import main
from shapprune.errors import InputError
from toys import backdoored_net

KINDS = {"safetensors": ("model", save_file), "bin": ("pytorch_model", torch.save)}
Save = Callable[[Mapping[str, Tensor], Path], None]


def weights() -> dict[str, Tensor]:
    return dict(sorted(backdoored_net().state_dict().items()))


def parts(folder: Path, kind: str = "safetensors", *, prefix: str = "") -> Path:
    """Two parts as transformers names them, and their index."""
    stem, save = KINDS[kind]
    tensors = {prefix + name: tensor for name, tensor in weights().items()}
    places = {}
    for number in range(2):
        file = f"{stem}-{number + 1:05}-of-00002.{kind}"
        part = dict(list(tensors.items())[number::2])
        save(part, folder / file)
        places |= dict.fromkeys(part, file)
    index = folder / f"{stem}.{kind}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("kind", KINDS)
def test_all_parts_are_read_by_their_folder_or_their_index(kind, tmp_path):
    index = parts(tmp_path, kind)
    for given in (tmp_path, index, str(index)):
        source = read_source(given)
        assert same(source.weights, weights())
        assert [file.name for file in source.files] == sorted(
            path.name for path in tmp_path.iterdir() if path != index
        )


def test_an_index_may_have_another_name(tmp_path):
    parts(tmp_path).rename(tmp_path / "model.fp16.safetensors.index.json")
    assert same(read_source(tmp_path).weights, weights())


def test_weights_beside_an_index_of_another_name_are_not_passed_over(tmp_path):
    parts(tmp_path).rename(tmp_path / "model.fp16.safetensors.index.json")
    torch.save(weights(), tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"name one of its files, .*index\.json.*other\.pth"):
        read_source(tmp_path)


def test_what_is_repaired_is_one_file(tmp_path):
    parts(tmp_path, prefix="module.")
    source, network = read_source(tmp_path), backdoored_net()
    fill_network(network, source.weights, spec="toy", num_classes=None)
    with torch.no_grad():
        network.head.weight.zero_()
    (tmp_path / "out").mkdir()
    for name, data in source.repaired(network).items():
        (tmp_path / "out" / name).write_bytes(data)
    back = read_source(tmp_path / "out")
    assert same(back.weights, network.state_dict())
    assert same(load_file(tmp_path / "out" / "repaired.safetensors"), network.state_dict())


def test_a_part_alone_names_the_folder(tmp_path):
    index = parts(tmp_path)
    part = next(tmp_path.glob("*-of-00002.safetensors"))
    with pytest.raises(InputError, match=rf"one part of .*: give the folder .*{tmp_path.name}'"):
        read_source(part)
    index.unlink()
    for _ in range(2):  # then with one of the two
        with pytest.raises(InputError, match=r"parts of a model's weights without their index"):
            read_source(tmp_path)
        part.unlink(missing_ok=True)
    save_file(weights(), tmp_path / "model-00001-of-00001.safetensors")
    assert same(read_source(tmp_path / "model-00001-of-00001.safetensors").weights, weights())


FIRST, SECOND = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda places: places.update(a="../x.safetensors"), "expected files beside it"),
        (lambda places: places.update(a="/etc/x.safetensors"), "expected files beside it"),
        (lambda places: places.update(a="..\\x.safetensors"), "expected files beside it"),
        (lambda places: places.update(a="x\0.safetensors"), "expected files beside it"),
        (lambda places: places.update(a="evil.bin"), "expected files beside it"),
        (lambda places: places.update(a=["x.safetensors"]), "expected files beside it"),
        (lambda places: places.update(a="x.safetensors"), "lacks the part 'x.safetensors'"),
        (lambda places: places.update(a="x" * 999 + ".safetensors"), "File name too long"),
        (lambda places: places.update(a=FIRST), f"{FIRST} lacks 'a', which"),
        (lambda places: places.pop("head.weight"), "holds 'head.weight', which .* does not name"),
        (
            lambda places: places.update({"head.weight": FIRST, "head.bias": SECOND}),
            "lacks 'head.",
        ),
        (lambda places: places.clear(), "has no weight_map"),
    ],
)
def test_an_index_that_lies_is_refused_in_one_line(change, says, tmp_path):
    index = parts(tmp_path)
    places = json.loads(index.read_text())["weight_map"]
    change(places)
    index.write_text(json.dumps({"weight_map": places}))
    with pytest.raises(InputError, match=says) as caught:
        read_source(tmp_path)
    assert "\n" not in str(caught.value)


def test_parts_that_lie_are_refused(tmp_path):
    index = parts(tmp_path)
    first = load_file(tmp_path / FIRST)
    save_file({**load_file(tmp_path / SECOND), **first}, tmp_path / SECOND)
    with pytest.raises(InputError, match="is in two parts"):
        read_source(tmp_path)
    (tmp_path / FIRST).unlink()
    with pytest.raises(InputError, match=f"lacks the part '{FIRST}'"):
        read_source(tmp_path)
    for content in ("[1]", '{"weight_map": [1]}', "[" * 100_000, ""):
        index.write_text(content)
        with pytest.raises(InputError):
            read_source(tmp_path)


def test_a_malicious_part_is_told(tmp_path):
    parts(tmp_path, "bin")
    (tmp_path / "pytorch_model-00002-of-00002.bin").write_bytes(b"cos\nsystem\n(S'x'\ntR.")
    with pytest.raises(InputError, match="is malicious"):
        read_source(tmp_path)


def test_inspect_lists_the_parts_that_an_index_names(tmp_path, capsys):
    index = parts(tmp_path)
    (tmp_path / "other.safetensors").write_bytes(b"nothing")
    assert main(["inspect", str(index)]) == 0
    told = capsys.readouterr().out
    assert [name in told for name in (FIRST, SECOND, "other")] == [True, True, False]
