"""``python -m shapprune_bench.documentation [ROOT]``: pages and the figures in them anew.

ROOT is the repository, else the current folder. Pictures have a command of their own, see
`shapprune_bench.documentation.pictures`.
"""

import sys
from pathlib import Path

from shapprune_bench.documentation.pages import write

if __name__ == "__main__":
    try:
        for written in write(Path(sys.argv[1] if len(sys.argv) > 1 else ".")):
            print(written)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
