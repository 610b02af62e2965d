"""Marks of figures in prose."""

import pytest

from shapprune_bench.documentation.marks import filled, unmarked

FIGURES = {"a.b": "2.5", "table": "\n\n| x |\n\n"}


def test_marks_are_filled_and_everything_else_stays():
    text = "1 <!-- fig a.b --><!-- /fig --> %, | <!-- fig a.b -->7<!-- /fig --> |\n<!-- note -->"
    new = filled(text, FIGURES)
    assert new == text.replace("><!-- /fig", ">2.5<!-- /fig").replace("7<", "2.5<")
    assert filled(new, FIGURES) == new
    assert unmarked(new) == "1  %, |  |\n<!-- note -->"


def test_a_table_stands_between_lines_of_its_own():
    new = filled("a\n\n<!-- fig table -->\nold\n<!-- /fig -->\nz", FIGURES)
    assert new == "a\n\n<!-- fig table -->\n\n| x |\n\n<!-- /fig -->\nz"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("is <!-- fig a.c -->1<!-- /fig -->", "no figure 'a.c'; is it a.b?"),
        ("is <!-- fig zzz -->1<!-- /fig -->", "no figure 'zzz'"),
        ("is <!-- fig a.b -->1", "not closed"),
        ("is 1<!-- /fig -->", "not opened"),
        ("is <!-- fig a.b -->1 <!-- fig a.b -->1<!-- /fig -->", "not closed"),
        ("is\n  <!-- fig a.b -->1<!-- /fig -->", "begins a line"),
        ("- <!-- fig a.b -->1<!-- /fig -->", "begins a line"),
        ("![falls to <!-- fig a.b -->1<!-- /fig -->](a.svg)", "is in a picture's words"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(text, words):
    with pytest.raises(ValueError, match="figure") as told:
        filled(text, FIGURES)
    assert words in str(told.value)
    assert "\n" not in str(told.value)
