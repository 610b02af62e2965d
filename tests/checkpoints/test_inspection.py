"""What training scripts save passes, and what is merely unknown is not accused."""

import io
import pickle
from collections import Counter, OrderedDict, defaultdict

import pytest
import torch
from torch.utils.serialization import config

from shapprune.checkpoints.inspection import lines_of, look_into

ORDERED_BY_PYTHON_2 = (
    b"ccollections\nOrderedDict\n((lp0\n(lp1\nS'epoch'\naI3\naa(lp2\nS'best'\naF0.5\naatR."
)


def test_other_alignments(tmp_path):
    path = tmp_path / "model.pth"
    with config.patch({"save.storage_alignment": 4096}):
        torch.save({"w": torch.ones(3), "v": torch.ones(5)}, path)
    assert look_into(path).problems == ()


def test_schedulers_counters_and_tied_weights(tmp_path):
    shared = torch.ones(3)
    optimizer = torch.optim.SGD([torch.nn.Parameter(shared)], lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2])
    content = {
        **{"w": shared, "tied": shared, "view": shared[1:], "turned": torch.ones(2, 3).t()},
        **{"scheduler": scheduler.state_dict(), "seen": Counter("abca")},
        **{"state": OrderedDict(a=1), "bare": torch.nn.Parameter(shared)},
    }
    torch.save(content, tmp_path / "model.pth")
    assert look_into(tmp_path / "model.pth").problems == ()


def test_ordered_dicts_of_python_2(tmp_path):
    (tmp_path / "model.pkl").write_bytes(ORDERED_BY_PYTHON_2)
    assert pickle.loads(ORDERED_BY_PYTHON_2) == OrderedDict(epoch=3, best=0.5)
    assert "bare pickle" in look_into(tmp_path / "model.pkl").problems[0]


def test_a_stranger_is_not_accused(tmp_path):
    torch.save({"w": torch.ones(1), "x": defaultdict(int)}, tmp_path / "model.pth")
    (problem,) = look_into(tmp_path / "model.pth").problems
    assert "collections.defaultdict, which is not known here" in problem
    assert "malicious" not in problem
    assert "load" not in problem


@pytest.mark.parametrize("width", [1, 300])
def test_lines_are_bounded(tmp_path, width):
    """A dict of dicts that are all the same one, with a tensor in it: written out, a million."""
    inner = {"t": torch.ones(1), **{f"i{i}": i for i in range(width)}}
    outer = {"t": torch.ones(1), **{f"o{i}": inner for i in range(width)}}
    buffer = io.BytesIO()
    torch.save({"t": torch.ones(1), **{f"a{i}": outer for i in range(width)}}, buffer)
    (tmp_path / "model.pth").write_bytes(buffer.getvalue())
    lines = list(lines_of(look_into(tmp_path / "model.pth")))
    assert 3 < len(lines) <= 50_002
