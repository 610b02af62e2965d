"""Files: written whole or not at all, and errors of reading told in one line."""

import errno
import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from shapprune.errors import InputError
from shapprune.utils.text import describe, suggest

_MOST_JSON = 8 << 20  # bytes
_MOST_NAMES = 10_000  # of a folder, that a missing one is compared with
_ROOM = 1 << 20  # bytes that a report needs at least
_TEMPORARY = ".tmp"  # ends what is being written
_ABANDONED = 3600  # seconds after which nobody writes it any more


@dataclass(frozen=True)
class Fingerprint:
    """What tells a file from all others.

    Attributes:
        name: without its folder.
        bytes: how many.
        sha256: in hexadecimal digits.
        modified: when, in UTC, as ISO 8601 has it.
    """

    name: str
    bytes: int
    sha256: str
    modified: str


def fingerprint(path: Path) -> Fingerprint:
    """Of a file that can be read."""
    with open(path, "rb") as file:
        digest, facts = sha256(), os.fstat(file.fileno())
        while block := file.read(1 << 20):
            digest.update(block)
    modified = datetime.fromtimestamp(facts.st_mtime, timezone.utc).isoformat(timespec="seconds")
    return Fingerprint(path.name, facts.st_size, digest.hexdigest(), modified[:19] + "Z")


def unreadable(path: Path, error: OSError) -> InputError:
    """Why a file or folder cannot be read; of one that is not there, what it may be called."""
    why = error.strerror or str(error)
    if isinstance(error, FileNotFoundError):
        why += similar_file(path)
    return InputError(f"cannot read {path}: {why}")


def similar_file(path: Path) -> str:
    """What a path that leads nowhere may have been meant to be, see `suggest`.

    Of a path whose folder is missing, too, the folder.
    """
    try:
        there = next(folder for folder in path.parents if folder.is_dir())
        wanted = path.relative_to(there).parts[0]
        with os.scandir(there) as entries:
            names = [entry.name for entry in islice(entries, _MOST_NAMES)]
        return suggest(wanted, [name for name in names if name != wanted])  # a link into nowhere
    except (OSError, StopIteration):
        return ""


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` whole or not at all, in place of what stood there.

    The bytes go to a temporary file in the same folder, which then takes the name in one step:
    neither Ctrl-C nor a full disk leaves half a file.

    Raises:
        InputError: the folder is missing, or cannot be written to.
    """
    write_together({path: data})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write files all or none: no name is taken before all the bytes are on the disk, and none that
    a folder has.

    Raises:
        InputError: see `write_whole`.
    """
    # Not tempfile: its files are private to the user, and a result should follow the umask.
    waiting = {
        path: path.with_name(f".{path.name}.{secrets.token_hex(4)}{_TEMPORARY}")
        for path in contents
    }
    path: Path | None = None
    try:
        for path in contents:
            if path.is_dir() and not path.is_symlink():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        for path, temporary in waiting.items():
            with open(temporary, "xb") as file:
                file.write(contents[path])
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in waiting.items():
            os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        for temporary in waiting.values():
            with suppress(OSError):
                temporary.unlink()


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Before long work: whether results can be written to a folder that may not exist yet.

    Found out by writing: permissions do not tell of read-only, full and special file systems.

    Raises:
        InputError: it is a file, holds something while ``overwrite`` is not set, or cannot be made
            or written to.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file: expected a folder for the results")
        if folder.is_dir() and not overwrite and any(folder.iterdir()):
            raise InputError(f"{folder} exists already: add --overwrite, or name another folder")
        if not folder.absolute().parent.is_dir():
            raise InputError(
                f"{folder.absolute().parent} does not exist: make it first, or name another folder"
            )
        made = not folder.is_dir()
        folder.mkdir(exist_ok=True)
        try:
            _try_to_write(folder)
        finally:
            if made:
                folder.rmdir()
    except OSError as error:
        raise InputError(f"{folder} cannot be written to: {error.strerror or error}") from error


def check_file(path: Path, *, overwrite: bool, beside: Path | None = None) -> None:
    """The same for one file.

    Args:
        beside: a folder that will be there when the file is written, see `check_folder`.

    Raises:
        InputError: it is a folder, a link or a device, exists while ``overwrite`` is not set, or
            cannot be written.
    """
    try:
        there = beside and os.path.realpath(beside)
        if path.is_dir() or os.path.realpath(path) == there:
            raise InputError(f"{path} is a folder: expected the name of a file")
        # What is written takes the place of what bears the name, and not of what that leads to.
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise InputError(f"{path} is a link or no plain file: name another file")
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists already: add --overwrite, or name another file")
        folder = path.absolute().parent
        if os.path.realpath(folder) == there:
            return
        if not folder.is_dir():
            raise InputError(f"{folder} does not exist: make it first, or name another folder")
        _try_to_write(folder)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


def _try_to_write(folder: Path) -> None:
    probe = folder / f".{secrets.token_hex(4)}{_TEMPORARY}"
    try:
        with open(probe, "xb") as file:
            file.write(bytes(_ROOM))  # of a full disk, an empty file would say nothing
            file.flush()
            os.fsync(file.fileno())
    finally:
        probe.unlink(missing_ok=True)


def write_folder(
    folder: Path,
    contents: Mapping[str, bytes],
    *,
    stale: Sequence[str],
    beside: Mapping[Path, bytes] | None = None,
) -> None:
    """Write files into a folder, made if need be, all or none.

    Args:
        beside: other files with a path of their own, which come last.
        stale: glob patterns of the files that an earlier run left and this one does not write. Of
            temporary files only those are taken away that are an hour old: younger ones may be
            those of another run that works on the same folder.

    Raises:
        InputError: something cannot be written or taken away.
    """
    made = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {folder}: {error.strerror or error}") from error
    try:
        inside = {folder / name: data for name, data in contents.items()}
        write_together(inside | dict(beside or {}))
    except BaseException:
        if made:
            with suppress(OSError):
                folder.rmdir()
        raise
    for pattern in stale:
        for file in folder.glob(pattern):
            if file.name not in contents:
                _take_away(file)


def _take_away(file: Path) -> None:
    """Remove a file of an earlier run, unless another run may be writing it."""
    try:
        age = time.time() - file.lstat().st_mtime
        if file.suffix != _TEMPORARY or age > _ABANDONED:
            file.unlink()
    except FileNotFoundError:
        pass  # another run took it away, or gave it its name
    except OSError as error:
        raise InputError(f"cannot remove {file}: {error.strerror or error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A stranger's JSON file.

    Raises:
        InputError: it is missing, too large, no JSON, or no dictionary.
    """
    try:
        if path.stat().st_size > _MOST_JSON:
            raise ValueError(f"more than {_MOST_JSON} bytes")
        return parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {describe(error)}") from error


def parse_json(text: str) -> dict[str, Any]:
    """A stranger's JSON: a dictionary in which no name stands twice, since readers differ there.

    Raises:
        ValueError, RecursionError: what is wrong with it.
    """
    content = json.loads(text, object_pairs_hook=each_once)
    if not isinstance(content, dict):
        raise ValueError("no dictionary")
    return content


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For json: an object in which no name stands twice.

    Raises:
        ValueError: one does.
    """
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name that stands twice")
    return content
