"""Lightning Pose tables, CSV: DeepLabCut's layout, of one animal, by a model of Lightning Pose."""

from pathlib import Path

import xarray as xr

from lisbet.core.errors import DataError
from lisbet.data.files.text_tables import decode, lines_of
from lisbet.data.readers._layouts.dlc_csv import first_cell, header_of, read_csv
from lisbet.data.readers._layouts.dlc_table import LEVELS, is_lightning_pose, to_dataset
from lisbet.data.readers._peek import Peek, head_lines
from lisbet.data.readers._reader import Kind, RecordingReader, only

TABLE = Kind("Lightning Pose table")


def _recognise(peek: Peek) -> Kind | None:
    if peek.is_hdf5 or peek.is_classic_netcdf or not peek.start or b"\0\0" in peek.start[:64]:
        return None
    if first_cell(lines_of(decode(peek.start).lstrip())[0]) not in LEVELS:
        return None
    try:
        levels, separator, taken = header_of(peek.lines, peek.path.name)
    except DataError:
        return None
    first = peek.lines[taken].split(separator)[0].strip(' "') if len(peek.lines) > taken else "0"
    if not first[:1].isdigit():  # labelled frames have the names of pictures
        return None
    return TABLE if is_lightning_pose(levels) else None


def _read(files: list[Path], *, head: bool = False) -> xr.Dataset:
    file = only(files)
    table = read_csv(file, head=head)
    if not is_lightning_pose(header_of(head_lines(file), file.name)[0]):
        raise DataError(
            f"{file.name} is no table of Lightning Pose: expected the header rows scorer (such as "
            "heatmap_tracker), bodyparts and coords, of one animal. Read a table of DeepLabCut "
            "with --data_format=dlc"
        )
    return to_dataset(table, file.name, head=head, software="LightningPose")


def _head(files: list[Path]) -> xr.Dataset:
    return _read(files, head=True)


READER = RecordingReader(patterns=(), recognise=_recognise, read=_read, head=_head)
