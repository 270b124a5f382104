"""Open NetCDF files so that damaged ones are noticed."""

import math
from pathlib import Path

import xarray as xr

from lisbet.data.files.hdf5 import check_hdf5
from lisbet.data.files.limits import bytes_of, require_memory, require_regular, shape_text

CLASSIC = (b"CDF\x01", b"CDF\x02")
CLASSIC_64BIT_DATA = b"CDF\x05"


def load_netcdf(file: Path, *, frames: int | None = None) -> xr.Dataset:
    """Read a NetCDF3 or NetCDF4 file into memory; of its times only the first `frames`, if given.

    Raises
    ------
    OSError, ValueError
        If it is none, or is cut off.
    DataError
        If its values are too large for the memory, or lie in other files.
    """
    require_regular(file)
    with file.open("rb") as stream:
        magic = stream.read(4)
    # The NetCDF library reads a truncated classic file as if the rest were zeros; SciPy refuses it.
    engine = "scipy" if magic in CLASSIC else "netcdf4"
    if magic in CLASSIC or magic == CLASSIC_64BIT_DATA:
        _check_classic(file)
    else:
        check_hdf5(file)
    with xr.open_dataset(file, engine=engine, decode_times=False) as dataset:
        return dataset.isel(time=slice(frames), missing_dims="ignore").load()


def _check_classic(file: Path) -> None:
    """Check that a file of the classic format holds what its header declares, and fits in memory.

    Raises
    ------
    ValueError
        If it is shorter than its variables.
    DataError
        If these are too large.
    """
    import netCDF4

    with netCDF4.Dataset(str(file)) as header:
        variables = list(header.variables.values())
        shapes = {variable.name: variable.shape for variable in variables}
        kinds = {variable.name: variable.dtype.kind for variable in variables}
        sizes = {v.name: math.prod(v.shape) * v.dtype.itemsize for v in variables}
    if not sizes:
        return
    largest = max(sizes, key=sizes.__getitem__)
    declared, found = sum(sizes.values()), file.stat().st_size
    if declared > found:
        raise ValueError(
            f"its header declares {declared} bytes of values "
            f"({shape_text(largest, shapes[largest])}), but the file has {found} bytes; copy or "
            "export it again"
        )
    needed = sum(bytes_of(shape, kinds[name]) for name, shape in shapes.items())
    require_memory(file.name, needed, shape_text(largest, shapes[largest]))


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
