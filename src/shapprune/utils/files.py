"""Files: written whole or not at all, and errors of reading told in one line."""

import json
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from shapprune.errors import InputError
from shapprune.utils.text import describe

_MOST_JSON = 8 << 20  # bytes


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


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Before long work: whether results can be written to a folder that may not exist yet.

    Raises:
        InputError: it is a file, holds something while ``overwrite`` is not set, or its parent is
            missing or cannot be written to.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: expected a folder for the results")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise InputError(f"{folder} exists already: add --overwrite, or name another folder")
    place = folder if folder.is_dir() else folder.absolute().parent
    if not place.is_dir():
        raise InputError(f"{place} does not exist: make it first, or name another folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"{place} cannot be written to")


def write_folder(folder: Path, contents: dict[str, bytes], *, stale: Sequence[str]) -> None:
    """Write files into a folder, made if need be, each whole or not at all.

    Args:
        stale: glob patterns of the files that an earlier run left and this one does not write.

    Raises:
        InputError: something cannot be written.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {folder}: {error.strerror or error}") from error
    for name, data in contents.items():
        write_whole(folder / name, data)
    for pattern in stale:
        for file in folder.glob(pattern):
            if file.name not in contents:
                file.unlink()


def read_json(path: Path) -> dict[str, Any]:
    """A stranger's JSON file.

    Raises:
        InputError: it is missing, too large, no JSON, or no dictionary.
    """
    try:
        if path.stat().st_size > _MOST_JSON:
            raise ValueError(f"more than {_MOST_JSON} bytes")
        return parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {describe(error)}") from error


def parse_json(text: str) -> dict[str, Any]:
    """A stranger's JSON: a dictionary in which no name stands twice, since readers differ there.

    Raises:
        ValueError, RecursionError: what is wrong with it.
    """
    content = json.loads(text, object_pairs_hook=_each_once)
    if not isinstance(content, dict):
        raise ValueError("no dictionary")
    return content


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name that stands twice")
    return content
