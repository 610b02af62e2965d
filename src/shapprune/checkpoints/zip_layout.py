"""Whether a zip is laid out as torch.save lays it out, and nothing else is in it.

Two readers may find different things in one file: the first or the last of two entries with a
name, a table of contents before another, names in upper case. Here every byte has one meaning.
"""

import re
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

from shapprune.utils.text import quote

_MOST_TABLE = 4 << 20  # bytes of the table of contents: 50,000 tensors
_END, _END64, _LOCATOR = 22, 56, 20  # bytes of what follows the table
_MOST_GAP = 24  # bytes between entries: a data descriptor
# What torch.save writes beside the pickle.
_BESIDE = re.compile(
    r"(data/\d+|version|byteorder|\.data/serialization_id|\.format_version|\.storage_alignment)"
)


def check_end(file: BinaryIO, size: int) -> None:
    """Before the table of contents is read: that it is small, the only one, and at the end.

    Raises:
        ValueError: what is wrong.
    """
    if is_tar(file):
        raise ValueError("a zip that is a tar archive as well")
    tail = min(size, _END + _LOCATOR + _END64)
    file.seek(size - tail)
    last = file.read(tail)
    file.seek(0)
    if last[-_END : -_END + 4] != b"PK\x05\x06":
        raise ValueError("the archive is cut short, or something follows it")
    table, start = struct.unpack("<II", last[-10:-2])
    after = _END
    if last[:4] == b"PK\x06\x06":
        table, start = struct.unpack("<QQ", last[40:56])
        after = tail
    if table > _MOST_TABLE:
        raise ValueError(f"a table of contents of {table} bytes")
    if start + table + after != size:
        raise ValueError("the table of contents is not where it should be")


def is_tar(file: BinaryIO) -> bool:
    """Whether a file begins as a tar archive does, with a checksum that is right."""
    file.seek(0)
    head = file.read(512)
    file.seek(0)
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "replace")
    except (tarfile.TarError, ValueError):
        return False
    return True


def strange(file: BinaryIO, entries: list[zipfile.ZipInfo], start: int) -> str | None:
    """What torch.save would not have written, in words that follow the file's name.

    Args:
        start: of the table of contents.
    """
    roots = {entry.filename.partition("/")[0] for entry in entries}
    if len(entries) != len({entry.filename for entry in entries}) or len(roots) != 1:
        return "is a zip that torch.save did not write: expected one folder, each name once"
    (root,) = roots
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        inside = entry.filename.removeprefix(root + "/")
        if inside != "data.pkl" and not _BESIDE.fullmatch(inside):
            return f"is a zip that holds {quote(entry.filename)}, which torch.save does not write"
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            return (
                f"is a zip that declares {entry.file_size} bytes for the {entry.compress_size} of "
                f"{quote(entry.filename)}: torch.save does not compress"
            )
        if entry.header_offset < end:
            return f"is a zip whose entry {quote(entry.filename)} overlaps another"
        if entry.header_offset > end + _MOST_GAP:
            return f"is a zip with {entry.header_offset - end} bytes that no entry accounts for"
        if entry.flag_bits & ~0x0808 or entry.orig_filename != entry.filename or entry.comment:
            return f"is a zip whose entry {quote(entry.filename)} has flags, or two names"
        end = _end_of(file, entry)
        if not end or end > start:
            return f"is a zip whose entry {quote(entry.filename)} is larger than the file"
    if start > end + _MOST_GAP:
        return f"is a zip with {start - end} bytes that no entry accounts for"
    return None


def unreferenced(entries: list[zipfile.ZipInfo], keys: set[str]) -> str | None:
    """The name of numbers that no tensor has, if there are such."""
    for entry in entries:
        _, found, key = entry.filename.partition("/data/")
        if found and key not in keys and entry.file_size:
            return entry.filename
    return None


def damaged(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> Iterator[str]:
    """Entries whose checksum is another; torch does not look at them."""
    for entry in entries:
        if not entry.CRC:  # torch may be told to write none
            continue
        try:
            with archive.open(entry) as part:
                while part.read(1 << 20):
                    pass
        except zipfile.BadZipFile:
            yield entry.filename


def _end_of(file: BinaryIO, entry: zipfile.ZipInfo) -> int:
    """Where an entry's data end, by its own header; 0 if that contradicts the table."""
    file.seek(entry.header_offset)
    head = file.read(30)
    if len(head) < 30 or head[:4] != b"PK\x03\x04":
        return 0
    name, extra = struct.unpack("<HH", head[26:])
    if file.read(name) != entry.orig_filename.encode():
        return 0
    padding = file.read(extra)  # torch.save aligns numbers; the other field is of large files
    if padding[:2] not in (b"", b"FB", b"\x01\x00") or padding[20:].strip(b"Z"):
        return 0
    return int(entry.header_offset + 30 + name + extra + entry.compress_size)
