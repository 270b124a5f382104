"""SLEAP analysis files: ``*SLEAP*.h5``."""

from pathlib import Path

import xarray as xr

from lisbet.data.readers._reader import Reader, only


def _read(files: list[Path]) -> xr.Dataset:
    from movement.io import load_poses  # takes a second to import

    return load_poses.from_sleap_file(only(files))


READER = Reader(patterns=("*sleap*.h5",), read=_read)
