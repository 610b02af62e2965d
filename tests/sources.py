"""The source, for tests that read it."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "shapprune"


def modules(source: Path = SOURCE) -> dict[str, ast.Module]:
    """Every module by its name below a package, parsed: "" is its ``__init__.py``."""
    found = {}
    for file in sorted(source.rglob("*.py")):
        parts = file.relative_to(source).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(file.read_text(encoding="utf-8"), str(file))
    return found
