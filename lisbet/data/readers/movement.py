"""Recordings in the movement format: NetCDF3 or NetCDF4 files with a variable `position`."""

from pathlib import Path

import xarray as xr

from lisbet.data.files.netcdf import load_netcdf
from lisbet.data.readers._peek import Peek
from lisbet.data.readers._reader import Kind, RecordingReader, only

FILE = Kind("movement file")


def _recognise(peek: Peek) -> Kind | None:
    if peek.is_hdf5:
        return FILE if peek.hdf5_root.get("position") == "dataset" else None
    if not peek.is_classic_netcdf:
        return None
    import netCDF4

    try:
        with netCDF4.Dataset(str(peek.path)) as header:
            return FILE if "position" in header.variables else None
    except Exception:  # a damaged file makes the library raise almost anything
        return Kind("NetCDF file", usable=False, advice="damaged; copy it again")


def _read(files: list[Path]) -> xr.Dataset:
    return load_netcdf(only(files))


def _head(files: list[Path]) -> xr.Dataset:
    return load_netcdf(only(files), frames=1)


READER = RecordingReader(patterns=("tracking*.nc",), recognise=_recognise, read=_read, head=_head)
