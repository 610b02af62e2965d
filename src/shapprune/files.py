"""Files: written whole or not at all, and errors of reading told in one line."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from shapprune.errors import InputError


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` whole or not at all, in place of what stood there.

    The bytes go to a temporary file in the same folder, which then takes the name in one step:
    neither Ctrl-C nor a full disk leaves half a file.

    Raises:
        InputError: the folder is missing, or cannot be written to.
    """
    # Not tempfile: its files are private to the user, and a result should follow the umask.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def printable(text: str, limit: int = 240) -> str:
    """``text`` on one line of at most ``limit`` characters, without control characters.

    Names and messages that come out of a stranger's file reach a terminal through here.

    >>> printable("two\\n lines \\x1b[31m")
    'two lines ?[31m'
    """
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def describe(error: BaseException) -> str:
    """The type and message of an exception on one line.

    >>> describe(ValueError("too\\n small"))
    'ValueError: too small'
    """
    return printable(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
