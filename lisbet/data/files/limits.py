"""Refuse files from their size and headers, before their values are read into memory."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from lisbet.core.errors import DataError
from lisbet.distributed.memory_policy import file_limit

VALUE_BYTES = 8
"""Coordinates are scaled in float64, whatever the file holds."""
TEXT_BYTES = 64
"""A short Python string, and the reference to it."""
TABLE_GROWTH = 8
"""A table of short texts takes about so many times the memory that its CSV file has bytes."""
LINE_BYTES = 16 * 2**20
COLUMNS = 50_000
"""Longest line and most columns of a CSV file (DeepLabCut has three columns for each keypoint)."""


def require_memory(name: str, needed: float, what: str) -> None:
    """Check that values fit in memory before they are read.

    Parameters
    ----------
    name : str
        File or store.
    needed : float
        Bytes that the values take in memory.
    what : str
        What they are, such as the shape that a header declares.

    Raises
    ------
    DataError
        If they take more than half of the free memory.
    """
    limit = file_limit()
    if needed > limit:
        raise DataError(
            f"{name}: {what} would take {_size(needed)} of memory; expected at most {_size(limit)},"
            " half of what is free here. Check that the file is what it should be; split the "
            "recording, or use a machine with more memory"
        )


def require_regular(file: Path) -> None:
    """Check that a file is a regular one: reading a pipe or a device may never end.

    Raises
    ------
    DataError
        If it is something else.
    """
    if file.exists() and not file.is_file():
        raise DataError(f"{file.name} is not a regular file; expected a file. Remove or rename it")


def bytes_of(shape: Iterable[int], dtype_kind: str) -> int:
    """Return the memory that an array takes once it is read."""
    return math.prod(map(int, shape)) * (VALUE_BYTES if dtype_kind in "biufcmM" else TEXT_BYTES)


def shape_text(name: str, shape: Sequence[int]) -> str:
    """Describe an array for `require_memory`."""
    return f"{name!r} of shape {'x'.join(map(str, shape)) or '()'}"


def require_csv(file: Path, *, text: bool) -> None:
    """Check that a CSV file can be read in bounded time and memory.

    Parameters
    ----------
    file : Path
        The file.
    text : bool
        Whether its cells are read as text, which takes more memory than numbers.

    Raises
    ------
    DataError
        If it is too large, or has a line or a number of columns beyond all use.
    """
    require_regular(file)
    needed = file.stat().st_size * (TABLE_GROWTH if text else 1)
    require_memory(file.name, needed, f"a table of {_size(file.stat().st_size)}")
    pending, number = b"", 1
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            *lines, rest = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
            if lines:
                lines[0] = pending + lines[0]
                pending = b""
            pending += rest
            for line in (*lines, pending):
                _check_line(file, number, line)
                number += 1
            number -= 1


def _check_line(file: Path, number: int, line: bytes) -> None:
    if len(line) > LINE_BYTES:
        raise DataError(
            f"{file.name}: line {number} has more than {LINE_BYTES // 2**20} MB; expected a table "
            "with lines of a few thousand characters. Export it again"
        )
    if len(line) > COLUMNS and max(map(line.count, (b",", b";", b"\t"))) >= COLUMNS:
        raise DataError(
            f"{file.name}: line {number} has more than {COLUMNS} columns; expected three for each "
            "keypoint. Export it again"
        )


def _size(count: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB", "TB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} PB"
