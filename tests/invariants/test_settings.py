"""A number that a judgement rests on stands in the `settings` of its room, and nowhere else."""

import ast
from collections.abc import Iterator

import pytest

from sources import modules

# Of the method and what it knows of networks, all numbers but these, which judge nothing.
STRICT = {"method", "model", "pipeline"}
NO_JUDGEMENTS = {
    "method.evidence._TINY",  # keeps logarithms and divisions finite
    "method.triggers.NOT_ATTACKED",  # stands for no class
    "model.game._BATCH_SIZE",  # speed alone
    "model.inference.CHUNK",  # likewise
    "model.recognition._IMAGENET",  # what other people's networks are normalised by
}
# Of the other rooms, shares. Recipes of attacks and other papers' defences are their own.
SHARES = {"checkpoints", "cli", "data", "reporting", "running", "utils"}


def numbers(value: ast.expr) -> list[float]:
    """The numbers that an expression is made of; none where anything else is in it."""
    if isinstance(value, ast.Constant) and type(value.value) in (int, float):
        return [value.value]
    if isinstance(value, ast.Tuple | ast.List):
        parts = [numbers(part) for part in value.elts]
        return [number for part in parts for number in part] if all(parts) else []
    if isinstance(value, ast.UnaryOp | ast.BinOp):
        names = {ast.Name, ast.Call, ast.Attribute, ast.Subscript}
        if not names & {type(part) for part in ast.walk(value)}:
            found = eval(compile(ast.Expression(value), "settings", "eval"))
            return [found] if isinstance(found, int | float) else []
    return []


def constants(tree: ast.Module) -> Iterator[tuple[str, list[float]]]:
    """The names of a module that stand for numbers, and which."""
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if found := numbers(node.value):
            for name in (part for target in targets for part in ast.walk(target)):
                if isinstance(name, ast.Name):
                    yield name.id, found


def test_numbers_of_the_method_stand_in_settings():
    found = {
        f"{module}.{name}"
        for module, tree in modules().items()
        if module.partition(".")[0] in STRICT and not module.endswith(".settings")
        for name, _ in constants(tree)
    }
    assert found == NO_JUDGEMENTS


def test_no_other_room_has_shares_of_its_own():
    found = {
        f"{module}.{name}"
        for module, tree in modules().items()
        if module.partition(".")[0] in SHARES and not module.endswith(".settings")
        for name, values in constants(tree)
        if any(0 < value < 1 for value in values)
    }
    assert not found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("A = 0.5", {"A": [0.5]}),
        ("A: float = -1 / 4", {"A": [-0.25]}),
        ("A, B = 0.4, 0.7", {"A": [0.4, 0.7], "B": [0.4, 0.7]}),
        ("A = B = (1, (2, 3))", {"A": [1, 2, 3], "B": [1, 2, 3]}),
        ("A = 'x' + 'y'", {}),
        ("A = {'x': 1}", {}),
        ("A = True", {}),
        ("A = f(1)", {}),
        ("def f(a=1): b = 2", {}),
    ],
)
def test_which_lines_hold_numbers(line, found):
    assert dict(constants(ast.parse(line))) == found
