"""Anipose tables of points in three dimensions, CSV: one column for each number of a keypoint.

They are not read through movement, which sorts the keypoints and ignores the frame numbers in
`fnum`, so that frames without a row shift all later ones; tests/test_more_readers.py shows it.
"""

import re
from pathlib import Path

import numpy as np
import xarray as xr

from lisbet.core.errors import DataError
from lisbet.data.files.text_tables import decode, lines_of
from lisbet.data.readers._layouts.dlc_csv import read_flat
from lisbet.data.readers._layouts.dlc_table import ALONE, CONFIDENCE, Column, Table, to_dataset
from lisbet.data.readers._peek import Peek
from lisbet.data.readers._reader import Kind, RecordingReader, only

TABLE = Kind("Anipose table")
FRAME = "fnum"
COORDINATES = ("x", "y", "z")
OTHERS = ("error", "ncams", "score")
SCORE = "score"
ROTATION = re.compile("(M|center)_[0-9]+")
"""Columns of the transform that Anipose applied to all points."""


def _recognise(peek: Peek) -> Kind | None:
    if peek.is_hdf5 or peek.is_classic_netcdf or not peek.start or b"\0\0" in peek.start[:64]:
        return None
    # The first line may be longer than the start of the file.
    names = peek.lines[0] if peek.lines else lines_of(decode(peek.start))[0]
    cells = [cell.strip(' "') for cell in re.split("[,;\t]", names)]
    return TABLE if FRAME in cells and _keypoints(cells) else None


def _keypoints(columns: list[str]) -> list[str]:
    """Return the keypoints that have all columns of Anipose, in the order of the file."""
    there = set(columns)
    named = [column.removesuffix("_error") for column in columns if column.endswith("_error")]
    return [name for name in named if {f"{name}_{end}" for end in (*COORDINATES, *OTHERS)} <= there]


def _read(files: list[Path], *, head: bool = False) -> xr.Dataset:
    file = only(files)
    columns, values = read_flat(file, head=head)
    if len(set(columns)) < len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise DataError(
            f"{file.name} has two columns {twice!r}; expected each once. Export the file again"
        )
    keypoints = _keypoints(columns)
    if FRAME not in columns or not keypoints:
        raise DataError(
            f"{file.name} is no table of Anipose; expected the column {FRAME} and, for each "
            f"keypoint, {', '.join(f'NAME_{end}' for end in (*COORDINATES, *OTHERS))}. Use the "
            "files of the folder pose-3d"
        )
    _require_complete(columns, keypoints, file.name)
    kept, places = list[Column](), list[int]()
    for name in keypoints:
        for coordinate in COORDINATES:
            kept.append(Column(ALONE, name, coordinate))
            places.append(columns.index(f"{name}_{coordinate}"))
        kept.append(Column(ALONE, name, CONFIDENCE))
        places.append(columns.index(f"{name}_{SCORE}"))
    table = Table(kept, values[:, columns.index(FRAME)], values[:, np.array(places)])
    if np.isnan(table.frames).any():
        row = int(np.isnan(table.frames).argmax())
        raise DataError(
            f"{file.name}: row {row + 1} has no frame number in {FRAME}; expected the number of "
            "the frame, from 0. Export the file again"
        )
    return to_dataset(table, file.name, head=head, software="Anipose")


def _require_complete(columns: list[str], keypoints: list[str], name: str) -> None:
    """Refuse a keypoint of which some columns are lacking: it would be left out unseen."""
    known = {f"{keypoint}_{end}" for keypoint in keypoints for end in (*COORDINATES, *OTHERS)}
    for column in columns:
        keypoint, _, end = column.rpartition("_")
        if column not in known and end in COORDINATES and not ROTATION.fullmatch(column):
            raise DataError(
                f"{name} has a column {column!r}, but not all of {keypoint}_x, _y, _z, _error, "
                "_ncams and _score; expected all for each keypoint. Export the file again"
            )


def _head(files: list[Path]) -> xr.Dataset:
    return _read(files, head=True)


READER = RecordingReader(patterns=(), recognise=_recognise, read=_read, head=_head)
