"""What starting the command line loads, and that it starts where a system lacks what Linux has."""

import os
import subprocess
import sys

# Of the bench, its clusters and plots nothing is needed to scan or repair a model.
NEVER = ("shapprune_bench", "ray", "matplotlib", "sklearn", "scipy")


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_core_loads_no_bench():
    told = python(
        "import sys, shapprune\n"
        "from shapprune import demo\n"
        "from shapprune.cli.main import main\n"
        "assert main(['inspect', str(demo.WEIGHTS)]) == 0\n"
        "try: main(['--version'])\n"
        "except SystemExit as end: print('ended', end.code)\n"
        f"print('loaded', [name for name in {NEVER} if name in sys.modules])"
    )
    assert told.splitlines()[-2:] == ["ended 0", "loaded []"]


# The libraries find their own way on each system; once they are loaded, ours must not ask.
WITHOUT = """
import os, sys
import jinja2, numpy, PIL.Image, rich.console, rich.progress, safetensors.torch, torch
for name in ("fcntl", "resource"):
    sys.modules[name] = None  # import raises
del os.sysconf, os.sysconf_names
"""


def test_the_command_line_starts_where_linux_things_are_missing():
    told = python(
        WITHOUT + "import pkgutil, importlib, shapprune\n"
        "for module in pkgutil.walk_packages(shapprune.__path__, 'shapprune.'):\n"
        "    if module.name != 'shapprune.__main__': importlib.import_module(module.name)\n"
        "from shapprune.cli.main import main\n"
        "try: main(['--version'])\n"
        "except SystemExit as end: print('version', end.code)\n"
        "print('bench', main(['bench', 'list']))\n"
        "from shapprune.model.game import _free_memory\n"
        "from shapprune_bench.studies.growth import _memory\n"
        "print('memory', _free_memory(torch.device('cpu')), _memory())"
    )
    lines = told.splitlines()
    assert "version 0" in lines
    assert lines[-2:] == ["bench 0", f"memory {4 << 30} None"]
