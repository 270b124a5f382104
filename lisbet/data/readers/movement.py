"""Recordings in the movement format: ``tracking*.nc``, NetCDF3 or NetCDF4."""

from pathlib import Path

import xarray as xr

from lisbet.data.netcdf import load_netcdf
from lisbet.data.readers._reader import Reader, only


def _read(files: list[Path]) -> xr.Dataset:
    return load_netcdf(only(files))


def _head(files: list[Path]) -> xr.Dataset:
    return load_netcdf(only(files), frames=1)


READER = Reader(patterns=("tracking*.nc",), read=_read, head=_head)
