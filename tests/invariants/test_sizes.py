"""Files and functions stay small enough to be read at once."""

import ast
import io
import tokenize
from pathlib import Path

import shapprune

SRC = Path(shapprune.__file__).parent
MOST_LINES = 350  # of a file
MOST_CODE = 60  # lines of a function, its docstring and comments left out
LONG_FUNCTIONS = {
    # One branch an opcode of the pickle machine, two lines each; a table would hide the order.
    "checkpoints/pickle_scan.py: step",
}
# Longer than they should be, and to be cut in their own rooms: strike out what has been.
TO_BE_CUT = {
    "reporting/charts.py: score_chart",
    "reporting/html.py: render_report",
    "checkpoints/inspection.py",
    "reporting/charts.py",
    "reporting/html.py",
}
_BLANK = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def code_lines(source: str) -> set[int]:
    """The numbers of the lines that hold more than a comment."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    spans = [range(t.start[0], t.end[0] + 1) for t in tokens if t.type not in _BLANK]
    return {line for span in spans for line in span}


def lengths(source: str) -> dict[str, int]:
    """Lines of code of each function, those within it included."""
    lines, found = code_lines(source), {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            own = lines & set(range(node.lineno, node.end_lineno + 1))
            if ast.get_docstring(node) is not None:
                text = node.body[0]
                assert text.end_lineno is not None
                own -= set(range(text.lineno, text.end_lineno + 1))
            found[node.name] = max(len(own), found.get(node.name, 0))
    return found


def sources() -> dict[str, str]:
    return {
        path.relative_to(SRC).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(SRC.rglob("*.py"))
        if SRC / "bench" not in path.parents  # until it has moved to shapprune_bench
    }


def test_no_function_is_long():
    long = {
        f"{file}: {name}"
        for file, source in sources().items()
        for name, length in lengths(source).items()
        if length > MOST_CODE
    }
    assert long - LONG_FUNCTIONS - TO_BE_CUT == set()


def test_no_file_is_long():
    long = {file for file, source in sources().items() if source.count("\n") > MOST_LINES}
    assert long - TO_BE_CUT == set()


def test_the_main_path_fits_a_page():
    assert sources()["pipeline.py"].count("\n") <= 150


def test_lengths_are_of_code_alone():
    source = (
        "def outer():\n"
        '    """Words,\n'
        '    and more."""\n'
        "    # a comment\n"
        "\n"
        "    def inner(\n"
        "        x,\n"
        "    ):\n"
        "        return x\n"
        "    return inner\n"
    )
    assert lengths(source) == {"outer": 6, "inner": 4}
