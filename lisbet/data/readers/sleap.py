"""SLEAP analysis files: ``*SLEAP*.h5``."""

import tempfile
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


def _head(files: list[Path]) -> xr.Dataset:
    import h5py

    file = only(files)
    require_regular(file)
    check_hdf5(file)
    with tempfile.TemporaryDirectory() as folder:
        head = Path(folder, file.name)
        with h5py.File(file, "r") as whole, h5py.File(head, "w") as part:
            for name in {"track_names", "node_names"} & set(whole):
                part[name] = whole[name][:]
            part["tracks"] = whole["tracks"][..., :1]
        return _read([head])


READER = Reader(patterns=("*sleap*.h5",), read=_read, head=_head)
