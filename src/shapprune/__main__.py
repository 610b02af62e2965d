"""``python -m shapprune`` is the command ``shapprune``."""

import os
import signal
import sys


def main() -> int:
    """Run the command line, and return its exit code.

    Ctrl-C while modules are imported, which takes seconds, is told in one line like any other:
    an exception would come up inside some library's import, which may swallow it or mistake it.
    """
    mine = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else it is ignored
    if mine:
        signal.signal(signal.SIGINT, _interrupted)
    if "_ARGCOMPLETE" in os.environ:  # a shell's Tab key
        from shapprune.cli.parser import complete

        complete()
    from shapprune.cli.main import main as run

    if mine:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    code = run()
    if mine:  # all is said and written: while Python shuts down, Ctrl-C changes nothing more
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code


def _interrupted(_number: int, _frame: object) -> None:
    try:
        os.write(2, b"shapprune: interrupted, nothing was written\n")
    finally:
        os._exit(130)


if __name__ == "__main__":
    code = main()
    # Python remembers a Ctrl-C that came up through any exec of text, which lazy imports do, and
    # `python -m` then dies of the signal whatever the code. Another exec makes it forget.
    exec("")
    sys.exit(code)
