"""Every attack that a report may name is told in words, and the glossary has the same."""

from pathlib import Path

import pytest

from shapprune import attacks
from shapprune.method.detection import shipped, unseen
from shapprune.reporting.attacks import ATTACKS, attack_words

GLOSSARY = Path(__file__).parents[2] / "docs" / "glossary.md"


def test_all_that_can_be_made_have_words():
    assert set(ATTACKS) == set(attacks.ATTACKS)


@pytest.mark.parametrize("name", sorted({*shipped("images").poisoned, *unseen().poisoned}))
def test_all_that_were_measured_have_words(name):
    assert len(attack_words(name)) > 10
    if " " in name:
        assert attack_words(name).startswith(attack_words(name.split()[1]) + "; ")


def test_the_glossary_has_the_same():
    text = GLOSSARY.read_text(encoding="utf-8")
    for name, words in ATTACKS.items():
        assert f"| `{name}` | {words} |" in text
