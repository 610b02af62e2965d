"""``shapprune bench``: finds the bench when it is asked for, and not before."""

import argparse
from importlib import import_module


def bench(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code.

    Raises:
        InputError: what it cannot do, in one line.
    """
    # By name: nothing else in shapprune, its --version least of all, loads the bench.
    command = import_module("shapprune_bench.command")
    code: int = command.bench(arguments)
    return code
