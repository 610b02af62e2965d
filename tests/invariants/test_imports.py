"""Which module may import which, and what a defence may be told. Read from the source alone.

The layers stand in pyproject.toml, where import-linter reads them.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sources import ROOT, SOURCE, modules

# A defender has neither the attacker's trigger nor the test set.
SECRET = re.compile(r"(^|_)(true|truth|test|tests|attacker)(_|$)|testset")


MODULES = modules(SOURCE)
BENCH = {
    f"bench: {name}": tree for name, tree in modules(SOURCE.parent / "shapprune_bench").items()
}
ALL = MODULES | BENCH


def room(name: str) -> str:
    return name.partition(".")[0]


STEPS = sorted({name for name in MODULES if room(name) == "method"} | {"pipeline"})


def lint(source: Path) -> subprocess.CompletedProcess[str]:
    """import-linter on the packages below a folder, with the contracts of pyproject.toml."""
    command = [sys.executable, "-c", "import sys; from importlinter.cli import lint_imports as l; "]
    command[-1] += f"sys.exit(l(config_filename={str(ROOT / 'pyproject.toml')!r}, no_cache=True))"
    return subprocess.run(
        command,
        cwd=source,
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_layers_hold():
    done = lint(ROOT / "src")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "code", "contract"),
    [
        ("model/neurons.py", "from shapprune.method import margins", "Rooms"),
        ("utils/files.py", "from shapprune import cli", "Rooms"),
        ("attacks/training.py", "def f():\n    from shapprune.pipeline import scan", "Rooms"),
        ("extension.py", "import shapprune.errors", "Rooms"),
        ("method/triggers.py", "from shapprune.method import detection", "No circles"),
        ("method/margins.py", "import shapprune.checkpoints.loading", "The method reads no files"),
        ("reporting/summary.py", "from shapprune.data import folders", "Reports know no files"),
        ("shapley/exact.py", "from shapprune.model import neurons", "Estimators"),
        ("cli/bench.py", "import shapprune_bench", "What users install knows no bench"),
    ],
)
def test_a_wrong_arrow_is_told(module, code, contract, tmp_path):
    for package in ("shapprune", "shapprune_bench"):
        shutil.copytree(ROOT / "src" / package, tmp_path / package)
    with (tmp_path / "shapprune" / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{code}\n")
    done = lint(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(rf"{contract}.* BROKEN", done.stdout)


def absolute_imports(name: str, tree: ast.Module) -> set[str]:
    """The dotted names that a module imports, wherever it does: also inside functions."""
    full = ("shapprune." + name).rstrip(".").split(".")
    here = full if (SOURCE / name.replace(".", "/")).is_dir() else full[:-1]
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [] if not node.level else here[: len(here) - node.level + 1]
            base += [node.module] if node.module else []
            imported |= {".".join([*base, alias.name]) for alias in node.names}
    return imported


@pytest.mark.parametrize("name", sorted(m for m in MODULES if room(m) == "shapley"))
def test_estimators_see_a_game_and_never_a_network(name):
    imported = absolute_imports(name, MODULES[name])
    ours = {dotted for dotted in imported if dotted.startswith("shapprune")}
    assert all(dotted.startswith(("shapprune.shapley.", "shapprune.errors.")) for dotted in ours)
    assert not {dotted for dotted in imported if dotted.startswith("torch.nn")}
    attributes = {n.attr for n in ast.walk(MODULES[name]) if isinstance(n, ast.Attribute)}
    assert "nn" not in attributes, "torch.nn by attribute"


@pytest.mark.parametrize("name", STEPS)
def test_no_defence_is_told_the_trigger_or_the_test_set(name):
    """By the names of what it is told. What comes under other names is caught where it is given:
    tests of `tables.defences` seal the attacker's trigger, those of `tables.measure` load
    the test set when the defence is over.
    """
    told = [
        f"{function.name}({parameter.arg})"
        for function in ast.walk(MODULES[name])
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for parameter in parameters(function)
        if SECRET.search(parameter.arg)
    ]
    fields = [
        f"{kind.name}.{field.target.id}"
        for kind in ast.walk(MODULES[name])
        if isinstance(kind, ast.ClassDef)
        for field in kind.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if SECRET.search(field.target.id)
    ]
    assert not told + fields, "the defender sees only the weights and the given images"


@pytest.mark.parametrize("name", STEPS)
def test_public_functions_of_the_defence_spell_out_their_parameters(name):
    loose = [
        node.name
        for node in MODULES[name].body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
        if node.args.vararg or node.args.kwarg
    ]
    assert not loose, "no *args or **kwargs: they hide what the defence is told"


@pytest.mark.parametrize(
    "name", sorted(set(ALL) - {"cli.console", "bench: documentation.__main__"})
)
def test_only_the_console_prints(name):
    calls = [n.func for n in ast.walk(ALL[name]) if isinstance(n, ast.Call)]
    assert "print" not in {f.id for f in calls if isinstance(f, ast.Name)}


@pytest.mark.parametrize("name", sorted(set(ALL) - {"cli.main"}))
def test_no_module_seeds_the_global_generators(name):
    """The command line may: its process is its own, and fresh networks draw from there."""
    calls = [n.func for n in ast.walk(ALL[name]) if isinstance(n, ast.Call)]
    named = {ast.unparse(call) for call in calls}
    assert not {call for call in named if re.search(r"(torch|random|cuda)\.(manual_)?seed\b", call)}


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    a = function.args
    rest = [arg for arg in (a.vararg, a.kwarg) if arg]
    return [*a.posonlyargs, *a.args, *a.kwonlyargs, *rest]


@pytest.mark.parametrize("name", ["true_trigger", "test_images", "ground_truth", "attacker_mask"])
def test_names_of_secrets(name):
    assert SECRET.search(name)


@pytest.mark.parametrize("name", ["triggers", "images", "latest", "attack_share", "targets"])
def test_names_of_no_secrets(name):
    assert not SECRET.search(name)


def test_public_names_are_there_when_they_are_asked_for():
    """`import shapprune` imports no torch; what is said for type checkers is what comes."""
    (block,) = (node for node in MODULES[""].body if isinstance(node, ast.If))
    told = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    code = (
        "import json, sys, shapprune\n"
        "assert 'torch' not in sys.modules\n"
        "table = shapprune._HOMES.items()\n"
        "homes = {name: f'shapprune.{home}' for home, names in table for name in names}\n"
        "assert sorted(homes) == sorted(shapprune.__all__)\n"
        "for name, home in homes.items():\n"
        "    assert getattr(shapprune, name) is getattr(sys.modules[home], name)\n"
        "assert not hasattr(shapprune, 'missing')\n"
        "print(json.dumps(homes))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == told
