"""The examples run as a user would run them, and say what their pages promise."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SAYS = {
    "scan_torchvision": r"(torchvision|own network): \w+; \d+ of 204 clean models score as high\n",
    "repair": (
        r"backdoored: target \(7,\)\nASR of the triggers found: 100% → \d%\nsufficient\n"
        r"before: ACC 98\.\d%, ASR 99\.\d%\nafter: ACC 9[78]\.\d%, ASR [0-4]\.\d%\n"
    ),
    "no_images": (
        r"recovered 10 images, guided by 4 batch norms\n(backdoored|suspicious): target \(7,.*\)\n"
    ),
    "own_defence": r"own: ACC \d+\.\d%, ASR \d+\.\d%\nfine-tuning: ACC \d+\.\d%, ASR \d+\.\d%\n",
    "own_attack": r"ASR 9\d\.\d%; the scan says backdoored, target \(3,\)\n",
}


def test_there_are_five_short_ones_and_a_page_tells_of_each():
    files = sorted(EXAMPLES.glob("*.py"))
    assert [file.stem for file in files] == sorted(SAYS)
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    for file in files:
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 40, file.name
        assert f"../examples/{file.name}" in page


@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs(name, tmp_path):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(SAYS[name], done.stdout), done.stdout
    assert (tmp_path / "repaired.safetensors").exists() == (name == "repair")
