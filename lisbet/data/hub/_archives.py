"""Read what was downloaded without trusting it."""

import itertools
import pickle
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import ijson
import numpy as np

from lisbet.core.errors import DataError
from lisbet.core.json_types import JsonDict

MOST_UNPACKED_BYTES = 64 * 2**30
"""Archives that claim to hold more are refused; the largest known one holds a tenth of it."""

HARMLESS = {
    (module, name)
    for root in ("numpy.core", "numpy._core")
    for module, name in (
        (f"{root}.multiarray", "_reconstruct"),
        (f"{root}.multiarray", "scalar"),
        (f"{root}.numeric", "_frombuffer"),
    )
} | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
"""What a pickle may name: NumPy's arrays and numbers. Lists and dicts need no name."""


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open a ZIP archive after looking at what it claims to hold.

    Raises
    ------
    DataError
        If it is none, is too large, or holds links or paths that lead out of a folder.
    """
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is not a ZIP archive: {error}") from error
    total = 0
    for info in archive.infolist():
        place = PurePosixPath(info.filename.replace("\\", "/"))
        if place.is_absolute() or ".." in place.parts or ":" in info.filename:
            raise DataError(f"{path} is refused: its entry {info.filename!r} leads out of it")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise DataError(f"{path} is refused: its entry {info.filename!r} is a link")
        total += info.file_size
    if total > MOST_UNPACKED_BYTES:
        raise DataError(
            f"{path} is refused: it would unpack to {total / 2**30:.1f} GiB, more than "
            f"{MOST_UNPACKED_BYTES / 2**30:.1f} GiB"
        )
    return archive


def sequences(stream: IO[bytes], where: str) -> Iterator[tuple[str, str, JsonDict]]:
    """Read ``{group: {sequence: {…}}}`` one sequence at a time.

    Parameters
    ----------
    stream : binary file
        JSON.
    where : str
        Its name, for messages.

    Yields
    ------
    group, sequence : str
    value : dict

    Raises
    ------
    DataError
        If it is no JSON or is built otherwise.
    """
    events = ijson.basic_parse(stream, use_float=True)
    try:
        _expect(next(events), "start_map", where, "a group of sequences for each key")
        for event, group in events:
            if event == "end_map":
                return
            _expect(next(events), "start_map", where, f"sequences in {group!r}")
            for inner, sequence in events:
                if inner == "end_map":
                    break
                value = _value(events, next(events))
                if not isinstance(value, dict):
                    raise DataError(f"{where}: {group}/{sequence} is no mapping of names to values")
                yield group, sequence, value
    except ijson.JSONError as error:
        raise DataError(f"{where} is no JSON, or is cut off: {error}") from error
    except StopIteration:
        raise DataError(f"{where} is cut off") from None


def _expect(event: tuple[str, Any], kind: str, where: str, what: str) -> None:
    if event[0] != kind:
        raise DataError(f"{where} is built otherwise than expected: no {what}")


def _value(events: Iterator[tuple[str, Any]], first: tuple[str, Any]) -> Any:
    """Build the value that begins with an event."""
    builder, depth = ijson.ObjectBuilder(), 0
    for event, value in itertools.chain([first], events):
        builder.event(event, value)
        depth += event in ("start_map", "start_array")
        depth -= event in ("end_map", "end_array")
        if not depth:
            break
    return builder.value


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in HARMLESS:
            raise DataError(f"it asks for {module}.{name}, which no data needs")
        return super().find_class(module, name)


def read_pickled_npy(path: Path) -> Any:
    """Read an .npy file that holds one pickled object of plain containers and arrays.

    Raises
    ------
    DataError
        If it is none, or its pickle asks for anything but NumPy arrays and numbers.
    """
    with path.open("rb") as stream:
        try:
            version = np.lib.format.read_magic(stream)
            reader = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, kind = reader(stream)
            if not kind.hasobject or shape != ():
                raise DataError(f"it holds an array of {kind}, not one object")
            array = _Unpickler(stream).load()
            return array.item()
        except DataError as error:
            raise DataError(f"{path} is refused: {error}") from error
        except Exception as error:  # a damaged pickle raises almost anything
            raise DataError(f"{path} cannot be read as .npy: {error}") from error
