"""Recordings in the movement format: ``tracking*.nc``, NetCDF3 or NetCDF4."""

from pathlib import Path

import xarray as xr

from lisbet.data.readers._reader import Reader, only

CLASSIC = (b"CDF\x01", b"CDF\x02")


def _read(files: list[Path]) -> xr.Dataset:
    file = only(files)
    with file.open("rb") as stream:
        magic = stream.read(4)
    # The NetCDF library reads a truncated classic file as if the rest were zeros; SciPy refuses it.
    engine = "scipy" if magic in CLASSIC else "netcdf4"
    with xr.open_dataset(file, engine=engine, decode_times=False) as dataset:
        return dataset.load()


READER = Reader(patterns=("tracking*.nc",), read=_read)
