"""Every format, recognised by looking into the files."""

from collections.abc import Iterator
from pathlib import Path

import xarray as xr

from lisbet.core.errors import DataError
from lisbet.data.readers._peek import Peek
from lisbet.data.readers._reader import Kind, RecordingReader


def formats() -> Iterator[tuple[str, RecordingReader]]:
    """Yield the name and the reader of each format of tracking files."""
    from lisbet.data.readers import READERS

    for name, reader in READERS.items():
        if name != "auto" and isinstance(reader, RecordingReader):
            yield name, reader


def format_of(peek: Peek, *, by_name: bool = True) -> tuple[str | None, Kind | None]:
    """Return the format of a file and what it is.

    A file that no format recognises belongs to the one that documents its name, because it may be
    damaged (`by_name`); else to none.
    """
    general: tuple[str | None, Kind | None] = None, None
    for name, reader in formats():
        kind = reader.recognise(peek)
        if kind is not None and not kind.general:
            return name, kind
        general = (name, kind) if general[1] is None else general
    if general[1] is not None:
        return general
    if by_name:
        for name, reader in formats():
            if reader.matches(peek.path.name):
                return name, Kind(f"unreadable {name} file", certain=False)
    return None, None


def _recognise(peek: Peek) -> Kind | None:
    return format_of(peek, by_name=False)[1]


def _reader(files: list[Path]) -> RecordingReader:
    found = dict.fromkeys(format_of(Peek(file))[0] for file in files)
    (name, *others) = found
    if name is None or others:
        listed = ", ".join(file.name for file in files)
        raise DataError(f"{listed}: expected tracking files of one format; see --data_format")
    return dict(formats())[name]


def _read(files: list[Path]) -> xr.Dataset:
    return _reader(files).read(files)


def _head(files: list[Path]) -> xr.Dataset:
    return _reader(files).read_head(files)


READER = RecordingReader(patterns=(), recognise=_recognise, read=_read, head=_head)
