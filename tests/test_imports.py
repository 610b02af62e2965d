"""Which module may import which, and what a defence may be told. Read from the source alone."""

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "shapprune"

# Imports go to a strictly lower rank, so that there are no cycles. A new module needs a row.
RANKS = {
    "errors": 0,
    "files": 1,
    "stages": 1,
    "detection": 1,
    "randomness": 1,
    "shapley.result": 1,
    "shapley.stopping": 2,
    "shapley.exact": 2,
    "shapley.permutation": 3,
    "shapley.tmab": 3,
    "shapley.multilinear": 3,
    "shapley.algorithm1": 3,
    "shapley": 4,
    "architectures": 2,
    "pickles": 2,
    "contents": 3,
    "weights": 4,
    "cifar_resnets": 3,
    "trojanzoo": 3,
    "stated": 5,
    "sources": 6,
    "models": 6,
    "model": 1,
    "model.adapted": 1,
    "model.examination": 7,
    "loading": 7,
    "networks": 2,
    "labeled": 1,
    "image_folders": 2,
    "image_arrays": 2,
    "data": 3,
    "attention": 1,
    "neurons": 2,
    "game": 3,
    "metrics": 3,
    "passes": 3,
    "augmentation": 4,
    "compact": 3,
    "compact_files": 8,
    "recovery": 8,
    "triggers": 5,
    "method": 1,
    "method.rates": 1,
    "method.settings": 1,
    "method.triggers": 1,
    "method.margins": 3,
    "method.signatures": 3,
    "method.stamping": 5,
    "method.paper": 7,
    "method.windows": 6,
    "method.perturbations": 6,
    "method.untargeted": 7,
    "method.evidence": 8,
    "method.detection": 9,
    "method.attribution": 5,
    "method.case": 8,
    "method.evaluation": 9,
    "method.pruning": 10,
    "method.finetuning": 10,
    "method.selection": 10,
    "method.repair": 11,
    "pipeline": 15,
    "charts": 16,
    "summary": 16,
    "findings": 16,
    "report": 17,
    "terminal": 17,
    "given": 18,
    "options": 21,
    "baselines.model_inversion": 16,
    "baselines.plain_finetuning": 16,
    "baselines.clp": 17,
    "baselines.anp": 17,
    "baselines.ibau": 17,
    "baselines.fine_pruning": 17,
    "baselines.neural_cleanse": 17,
    "baselines.deepinspect": 18,
    "baselines.gangsweep": 18,
    "baselines": 19,
    "attacks.labels": 9,
    "attacks.training": 9,
    "attacks.triggers": 9,
    "attacks.poisoning": 15,
    "attacks.additive": 17,
    "attacks.badnets": 16,
    "attacks.blended": 17,
    "attacks.patterns": 17,
    "attacks.physical_key": 17,
    "attacks.random_place": 18,
    "attacks.input_aware": 17,
    "attacks.sig": 17,
    "attacks.trojan": 18,
    "attacks.wanet": 17,
    "attacks.recipe": 19,
    "attacks": 20,
    "demo": 20,
    "bench.defences": 20,
    "bench.rankings": 20,
    "bench": 21,
    "bench.recipes": 21,
    "bench.paper": 21,
    "bench.page": 21,
    "bench.models": 22,
    "bench.retuning": 20,
    "bench.cells": 22,
    "bench.experiments": 23,
    "bench.runner": 23,
    "bench.measure": 24,
    "bench.processes": 24,
    "bench.on_ray": 24,
    "bench.plan": 24,
    "bench.command": 26,
    "bench.report": 24,
    "": 22,  # shapprune/__init__.py, the public names
    "cli": 27,
    "__main__": 28,
}

READERS = {"data", "labeled", "image_folders", "image_arrays"}

# What ranks do not say: importer (or its package) -> what it must leave alone.
FORBIDDEN = {
    "pipeline": {*READERS, "files", "weights", "architectures", "loading"},
    "summary": {*READERS, "weights", "architectures"},
    "findings": {*READERS, "weights", "architectures"},
    "report": {*READERS, "weights", "architectures"},
    "method": {*READERS, "files", "weights", "architectures", "loading", "pipeline"},
    "attacks": {"pipeline", "summary", "report"},
    "baselines": {"pipeline", "summary", "report"},
}

STEPS = {
    "triggers",
    "detection",
    "recovery",
    "method.margins",
    "method.stamping",
    "method.windows",
    "method.perturbations",
    "method.untargeted",
    "method.evidence",
    "method.detection",
    "method.paper",
    "method.attribution",
    "method.case",
    "method.evaluation",
    "method.pruning",
    "method.finetuning",
    "method.selection",
    "method.repair",
}

# A defender has neither the attacker's trigger nor the test set.
SECRET = re.compile(r"(^|_)(true|truth|test|tests|attacker)(_|$)|testset")


def modules() -> dict[str, ast.Module]:
    """Every module by its name below ``shapprune``, parsed: "" is ``shapprune/__init__.py``."""
    found = {}
    for file in sorted(SOURCE.rglob("*.py")):
        parts = file.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(file.read_text(encoding="utf-8"), str(file))
    return found


MODULES = modules()


def package(name: str) -> str:
    return name.partition(".")[0]


def is_package(name: str) -> bool:
    return (SOURCE / name.replace(".", "/")).is_dir()


def absolute_imports(name: str, tree: ast.Module) -> set[str]:
    """The dotted names that a module imports, wherever it does: also inside functions."""
    full = ("shapprune." + name).rstrip(".").split(".")
    here = full if is_package(name) else full[:-1]
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [] if not node.level else here[: len(here) - node.level + 1]
            base += [node.module] if node.module else []
            imported |= {".".join([*base, alias.name]) for alias in node.names}
    return imported


def project_imports(name: str, tree: ast.Module, known: set[str]) -> set[str]:
    """The project's modules among them."""
    found = set()
    for dotted in absolute_imports(name, tree):
        root, _, rest = dotted.partition(".")
        if root != "shapprune":
            continue
        while rest and rest not in known and rest not in RANKS:  # the name of a thing, not a module
            rest = rest.rpartition(".")[0]
        found.add(rest)
    return found


def arrow_fault(name: str, target: str) -> str | None:
    """What is wrong with ``name`` importing ``target``, in words."""
    for module in (name, target):
        if module not in RANKS:
            return f"{module} has no rank: give it a row in RANKS of tests/test_imports.py"
    if target in FORBIDDEN.get(package(name), ()):
        return f"{name} imports {target}, which FORBIDDEN rules out"
    if RANKS[target] >= RANKS[name]:
        return f"{name} (rank {RANKS[name]}) imports {target} (rank {RANKS[target]}): not lower"
    return None


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_module_has_a_place(name):
    assert name in RANKS, (
        f"shapprune.{name} has no rank: give it a row in RANKS of tests/test_imports.py, above "
        "everything that it imports"
    )


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_downward(name):
    targets = project_imports(name, MODULES[name], set(MODULES))
    faults = [fault for target in sorted(targets) if (fault := arrow_fault(name, target))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", sorted(m for m in MODULES if package(m) == "shapley"))
def test_estimators_see_a_game_and_never_a_network(name):
    imported = absolute_imports(name, MODULES[name])
    project = project_imports(name, MODULES[name], set(MODULES))
    assert {target for target in project if package(target) != "shapley"} <= {"errors"}
    assert not {dotted for dotted in imported if dotted.startswith("torch.nn")}
    attributes = {n.attr for n in ast.walk(MODULES[name]) if isinstance(n, ast.Attribute)}
    assert "nn" not in attributes, "torch.nn by attribute"


@pytest.mark.parametrize("name", sorted(STEPS | {"pipeline"}))
def test_no_defence_is_told_the_trigger_or_the_test_set(name):
    if name not in MODULES:
        pytest.skip("not written yet")
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


@pytest.mark.parametrize("name", sorted(STEPS | {"pipeline"}))
def test_public_functions_of_the_defence_spell_out_their_parameters(name):
    if name not in MODULES:
        pytest.skip("not written yet")
    loose = [
        node.name
        for node in MODULES[name].body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
        if node.args.vararg or node.args.kwarg
    ]
    assert not loose, "no *args or **kwargs: they hide what the defence is told"


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"terminal"}))
def test_only_the_terminal_prints(name):
    calls = [n.func for n in ast.walk(MODULES[name]) if isinstance(n, ast.Call)]
    assert "print" not in {f.id for f in calls if isinstance(f, ast.Name)}


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"cli"}))
def test_no_module_seeds_the_global_generators(name):
    """The command line may: its process is its own, and fresh networks draw from there."""
    calls = [n.func for n in ast.walk(MODULES[name]) if isinstance(n, ast.Call)]
    named = {ast.unparse(call) for call in calls}
    assert not {call for call in named if re.search(r"(torch|random|cuda)\.(manual_)?seed\b", call)}


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    a = function.args
    rest = [arg for arg in (a.vararg, a.kwarg) if arg]
    return [*a.posonlyargs, *a.args, *a.kwonlyargs, *rest]


# The checks above, on sources that break the rules.


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("neurons", "from shapprune.pipeline import scan", "not lower"),
        ("metrics", "import shapprune.attacks.badnets", "not lower"),
        ("stages", "def f():\n    from shapprune import neurons", "not lower"),
        ("triggers", "from .method import finetuning", "not lower"),
        ("shapley.exact", "from .. import neurons", "not lower"),
        ("shapley.exact", "from .multilinear import multilinear", "not lower"),
        ("shapley.exact", "from . import exact", "not lower"),
        ("errors", "from shapprune import InputError", "not lower"),
        ("attacks.training", "from ..pipeline import scan", "FORBIDDEN"),
        ("pipeline", "from shapprune import data", "FORBIDDEN"),
        ("report", "import shapprune.cli", "not lower"),
        ("brand_new", "import shapprune.errors", "RANKS"),
        ("cli", "from shapprune.brand_new import thing", "RANKS"),
    ],
)
def test_a_wrong_arrow_is_told(name, code, message):
    targets = project_imports(name, ast.parse(code), {*MODULES, "brand_new"})
    faults = [arrow_fault(name, target) or "" for target in targets]
    assert any(message in fault for fault in faults), (targets, faults)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("cli", "from shapprune import pipeline, report"),
        ("pipeline", "from shapprune.triggers import invert_triggers"),
        ("attacks.training", "from shapprune.metrics import accuracy"),
        ("shapley", "from .exact import exact"),
        ("metrics", "import torch, os.path"),
    ],
)
def test_a_right_arrow_passes(name, code):
    targets = project_imports(name, ast.parse(code), set(MODULES))
    assert not [fault for target in targets if (fault := arrow_fault(name, target))]


@pytest.mark.parametrize("name", ["true_trigger", "test_images", "ground_truth", "attacker_mask"])
def test_names_of_secrets(name):
    assert SECRET.search(name)


@pytest.mark.parametrize("name", ["triggers", "images", "latest", "attack_share", "targets"])
def test_names_of_no_secrets(name):
    assert not SECRET.search(name)
