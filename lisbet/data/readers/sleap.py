"""SLEAP analysis files: ``*SLEAP*.h5``."""

from pathlib import Path

import xarray as xr

from lisbet.data.hdf5 import check_hdf5
from lisbet.data.limits import require_regular
from lisbet.data.readers._reader import Reader, only


def _read(files: list[Path]) -> xr.Dataset:
    from movement.io import load_poses  # takes a second to import

    file = only(files)
    require_regular(file)
    check_hdf5(file)
    return load_poses.from_sleap_file(file)


READER = Reader(patterns=("*sleap*.h5",), read=_read)
