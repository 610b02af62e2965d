"""``python -m shapprune`` is the command ``shapprune``."""

import sys

from shapprune.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
