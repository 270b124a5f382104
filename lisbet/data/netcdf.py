"""Open NetCDF files so that damaged ones are noticed."""

from pathlib import Path

import xarray as xr

CLASSIC = (b"CDF\x01", b"CDF\x02")


def load_netcdf(file: Path) -> xr.Dataset:
    """Read a NetCDF3 or NetCDF4 file into memory.

    Raises
    ------
    OSError, ValueError
        If it is none, or is cut off.
    """
    with file.open("rb") as stream:
        magic = stream.read(4)
    # The NetCDF library reads a truncated classic file as if the rest were zeros; SciPy refuses it.
    engine = "scipy" if magic in CLASSIC else "netcdf4"
    with xr.open_dataset(file, engine=engine, decode_times=False) as dataset:
        return dataset.load()


def names_along(array: xr.DataArray, axis: str) -> tuple[str, ...]:
    """Return the names along an axis.

    Raises
    ------
    ValueError
        If it has none, or names something twice.
    """
    if axis not in array.coords:
        raise ValueError(f"{array.name!r} has no names for its {axis}")
    names = tuple(
        name.decode(errors="replace") if isinstance(name, bytes) else str(name)
        for name in array.coords[axis].values.tolist()
    )
    if len(set(names)) < len(names) or "" in names:
        raise ValueError(f"{axis} are named twice or not at all: {', '.join(names)}")
    return names
