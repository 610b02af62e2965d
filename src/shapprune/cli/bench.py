"""``shapprune bench``: finds the bench when it is asked for, and not before."""

from importlib import import_module

from shapprune.cli.options import BenchOptions


def bench(options: BenchOptions) -> int:
    """Run the command and return its exit code.

    Raises:
        InputError: what it cannot do, in one line.
    """
    # By name: nothing else in shapprune, its --version least of all, loads the bench.
    command = import_module("shapprune_bench.command")
    code: int = command.bench(options)
    return code
