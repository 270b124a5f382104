"""A reader of recordings: a CSV file with the columns frame, individual, keypoint, x, y."""

from pathlib import Path

import pandas as pd
import xarray as xr

from lisbet.core.errors import DataError
from lisbet.data.readers import Kind, Peek, RecordingReader, only

COLUMNS = ["frame", "individual", "keypoint", "x", "y"]


def recognise(peek: Peek) -> Kind | None:
    """Recognise a file by its first line."""
    if peek.lines and peek.lines[0].strip() == ",".join(COLUMNS):
        return Kind("table with one row per point")
    return None


def read(files: list[Path]) -> xr.Dataset:
    """Read the file of a recording; points without a row are missing.

    Errors of pandas need no handling: they are reported with the name of the file.
    """
    file = only(files)
    table = pd.read_csv(file)
    keys = COLUMNS[:3]
    if table.duplicated(keys).any():
        raise DataError(f"{file.name}: a point has two rows of the same frame; remove one")
    points = table.set_index(keys)[["x", "y"]].to_xarray().to_dataarray("space")
    points = points.reindex(frame=range(int(table["frame"].max()) + 1))
    points = points.rename(frame="time", individual="individuals", keypoint="keypoints")
    # The format states no frame rate. Where one does, add the attribute "fps".
    attributes = {"time_unit": "frames"}
    return points.to_dataset(name="position").assign_attrs(attributes)


READER = RecordingReader(patterns=("*_long.csv",), recognise=recognise, read=read)
