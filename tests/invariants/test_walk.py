"""How many files the user's images pass through until the `Case` carries them.

Followed are the calls of our own functions that are handed the images, under whatever name their
parameter has, from the source alone. A `Case` ends the walk: it holds them from there on, whole
and checked, and who is handed a case is handed no images. What is returned keeps its name.
"""

import ast
from collections.abc import Iterator, Mapping

from sources import modules

MOST_FILES = 6

Stop = tuple[str, str, str]  # a module, its function, and the name that the images have there


def functions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def imported(tree: ast.Module) -> dict[str, tuple[str, str]]:
    """Where the names come from that a module imports from others of ours."""
    return {
        alias.asname or alias.name: (node.module.removeprefix("shapprune."), alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def handed(call: ast.Call, function: ast.FunctionDef, name: str) -> Iterator[str]:
    """The parameters of a function for which a call gives it what has this name, or a part."""
    places = [*function.args.posonlyargs, *function.args.args]
    given = [(place.arg, value) for place, value in zip(places, call.args, strict=False)]
    given += [(keyword.arg, keyword.value) for keyword in call.keywords if keyword.arg]
    for parameter, value in given:
        if holds(value, name):
            yield parameter


def holds(value: ast.AST, name: str) -> bool:
    """Whether an expression is made of what has a name, outside of a case."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "Case":
        return False
    if isinstance(value, ast.Name):
        return value.id == name
    return any(holds(part, name) for part in ast.iter_child_nodes(value))


def walk(source: Mapping[str, ast.Module], start: Stop) -> set[Stop]:
    """All that the images pass through."""
    passed, ahead = set(), [start]
    while ahead:
        stop = ahead.pop()
        if stop in passed:
            continue
        passed.add(stop)
        module, function, name = stop
        homes = imported(source[module])
        for call in ast.walk(functions(source[module])[function]):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
                continue
            home, called = homes.get(call.func.id, (module, call.func.id))
            known = functions(source[home]) if home in source else {}
            if called in known:
                ahead += [(home, called, p) for p in handed(call, known[called], name)]
    return passed


def test_the_images_soon_are_in_a_case():
    passed = walk(modules(), ("pipeline", "repair", "images"))
    files = {module for module, _, _ in passed}
    assert {"pipeline", "method.case"} <= files
    assert len(files) <= MOST_FILES, sorted(files)


def test_images_are_followed_over_imports_and_under_other_names():
    source = {
        "a": ast.parse(
            "from shapprune.b import g as h, Case\n"
            "def f(images): return k(Case(h(0, x=images[:1])))\n"
            "def k(images): ..."
        ),
        "b": ast.parse("from shapprune.c import leaf\ndef g(n, *, x):\n    x = leaf(n + x, n)"),
        "c": ast.parse("def leaf(one, other): ...\ndef unseen(images): ..."),
    }
    assert walk(source, ("a", "f", "images")) == {
        ("a", "f", "images"),
        ("b", "g", "x"),
        ("c", "leaf", "one"),
    }
