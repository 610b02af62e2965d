"""Random files, arguments and results: never a traceback, whatever comes."""

import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save as to_safetensors

from shapprune.checkpoints.pickle_scan import read_pickle
from shapprune.checkpoints.state_dict import read_weights_file
from shapprune.cli.main import main
from shapprune.errors import InputError
from shapprune.reporting.summary import plain as as_json

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed")
st = hypothesis.strategies


def cases(number: int) -> Callable:
    return hypothesis.settings(
        max_examples=number,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


def whole(kind: str) -> bytes:
    weights = {"a.weight": torch.ones(3, 2), "a.bias": torch.zeros(3)}
    if kind == "safetensors":
        return to_safetensors(weights)
    buffer = io.BytesIO()
    torch.save({"net": weights, "epoch": 3}, buffer, _use_new_zipfile_serialization=kind == "zip")
    return buffer.getvalue()


WHOLE = {kind: whole(kind) for kind in ("zip", "old", "safetensors")}
EDITS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=4)), max_size=4)


def reads_or_refuses(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        weights = read_weights_file(path).weights
    except InputError as error:
        assert str(error).isprintable()  # noqa: PT017
    else:
        assert weights
        assert all(isinstance(tensor, torch.Tensor) for tensor in weights.values())


@pytest.mark.parametrize("kind", WHOLE)
def test_edited_weights_files(kind, tmp_path):
    @cases(300)
    @hypothesis.given(EDITS, st.floats(0, 1))
    def check(edits, kept):
        data = WHOLE[kind]
        for share, bytes_put in edits:
            place = int(share * len(data))
            data = data[:place] + bytes_put + data[place + len(bytes_put) :]
        reads_or_refuses(tmp_path / "file", data if kept > 0.3 else data[: int(kept * len(data))])

    check()


def test_random_pickles(tmp_path):
    opcodes = st.sampled_from(
        [
            bytes([code])
            for code in b"().0129FIJKLMNQRSTUVX]abcdeghijlopqrstu}\x85\x86\x87\x88\x93\x94"
        ]
    )
    parts = st.lists(st.one_of(opcodes, st.binary(max_size=4)), max_size=30)

    @cases(300)
    @hypothesis.given(parts)
    def check(drawn):
        data = b"\x80\x02" + b"".join(drawn) + b"."
        read_pickle(io.BytesIO(data))
        reads_or_refuses(tmp_path / "file", data)

    check()


def test_random_arguments(capsys, tmp_path):
    words = [
        "scan",
        "repair",
        "recover",
        "inspect",
        "--arch",
        "--num-classes",
        "--images",
        "--mean",
    ]
    words += ["--std", "--out", "--seed", "--input-size", "3", "-1", "0.5", "nan", "a:b", "timm:x"]
    words += [str(tmp_path / "none"), str(tmp_path), "hf", "\x1b[31m", ""]

    @cases(400)
    @hypothesis.given(st.lists(st.one_of(st.sampled_from(words), st.text(max_size=5)), max_size=9))
    def check(arguments):
        hypothesis.assume(not any(a.startswith(("-h", "--h", "--v")) for a in arguments))
        hypothesis.assume(not {"demo", "hf:"} & set(arguments))
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = stop.code
        told = capsys.readouterr().err
        assert code == 2
        assert "Traceback" not in told
        assert "unexpected" not in told

    check()


def test_results_survive_json():
    numbers = st.floats() | st.integers() | st.booleans() | st.none() | st.text()
    values = st.recursive(
        numbers, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
    )

    @cases(400)
    @hypothesis.given(values)
    def check(value):
        plain = as_json(value)
        assert json.loads(json.dumps(plain, allow_nan=False)) == plain

    check()


@pytest.mark.parametrize("endless", [math.inf, -math.inf])
def test_what_is_endless_is_read_back_from_json(endless):
    assert float(as_json(endless)) == endless
    assert [float(one) for one in as_json({"a": [endless]})["a"]] == [endless]
