"""Read every tracking file below a folder with betman, and plainly with pandas, h5py or netCDF4.

For each file, the largest difference of any coordinate is printed, which is expected to be 0, and
how long both took. The exit code is 1 if any differs, or is missing in one of the two only.

    python benchmarks/readers.py FOLDER
"""

import argparse
import sys
import time
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pandas as pd
import xarray as xr

from lisbet.core.config import Dataset
from lisbet.data.files.sources import find_sources
from lisbet.data.files.versions import FileChoice
from lisbet.data.readers import READERS
from lisbet.data.readers._peek import Peek
from lisbet.data.readers.auto import format_of

Points = dict[tuple[str, str, str], np.ndarray]
"""Coordinates of each frame by individual, keypoint and axis."""


def of_betman(dataset: xr.Dataset) -> Points:
    """Return what a reader made of a file."""
    singular = {"individual": "individuals", "keypoint": "keypoints"}
    position = dataset["position"]
    position = position.rename({old: new for old, new in singular.items() if old in position.dims})
    position = position.transpose("individuals", "keypoints", "space", "time")
    return {
        (str(individual), str(keypoint), str(axis)): position.values[i, k, s]
        for i, individual in enumerate(position["individuals"].values)
        for k, keypoint in enumerate(position["keypoints"].values)
        for s, axis in enumerate(position["space"].values)
    }


def dlc(file: Path) -> Points:
    """Read a DeepLabCut table with pandas."""
    with file.open("rb") as stream:
        hdf5 = stream.read(4) == b"\x89HDF"
        stream.seek(0)
        rows = [stream.readline().split(b",", 1)[0] for _ in range(4)]
    if hdf5:
        table = pd.read_hdf(file)
    else:
        header = [0, 1, 2, 3] if b"individuals" in rows else [0, 1, 2]
        table = pd.read_csv(file, header=header, index_col=0)
    table = table.reindex(range(int(table.index[-1]) + 1))
    points = {}
    for column in table.columns:
        *_, keypoint, axis = column
        individual = column[1] if len(column) == 4 else "individual_0"
        if axis != "likelihood":
            points[individual, keypoint, axis] = table[column].to_numpy()
    return points


def sleap(file: Path) -> Points:
    """Read a SLEAP analysis file, as SLEAP itself writes it, with h5py."""
    with h5py.File(file) as root:
        tracks = root["tracks"][:]
        individuals, keypoints = (
            [n.decode() for n in root[k][:]] for k in ("track_names", "node_names")
        )
    return {
        (individual, keypoint, axis): tracks[i, s, k]
        for i, individual in enumerate(individuals)
        for k, keypoint in enumerate(keypoints)
        for s, axis in enumerate("xy")
    }


def movement(file: Path) -> Points:
    """Read a movement file with netCDF4."""
    with netCDF4.Dataset(str(file)) as root:
        position = root["position"]
        dims = [dim if dim in ("space", "time") else dim.rstrip("s") for dim in position.dimensions]
        values = np.ma.filled(position[:].astype(np.float64), np.nan)
        names = {
            dim.rstrip("s"): [str(name) for name in root[dim][:]]
            for dim in position.dimensions
            if dim != "time"
        }
    order = ("individual", "keypoint", "space", "time")
    values = values.transpose([dims.index(dim) for dim in order])
    return {
        (individual, keypoint, axis): values[i, k, s]
        for i, individual in enumerate(names["individual"])
        for k, keypoint in enumerate(names["keypoint"])
        for s, axis in enumerate(names["space"])
    }


def difference(ours: Points, plain: Points) -> float:
    """Return the largest difference; infinite where a point is missing in one of the two only."""
    if ours.keys() != plain.keys():
        extra = [values for key, values in ours.items() if key not in plain]
        if plain.keys() - ours.keys() or not all(np.isnan(values).all() for values in extra):
            return np.inf
    largest = 0.0
    for key, expected in plain.items():
        values = ours[key]
        if values.shape != expected.shape or (np.isnan(values) != np.isnan(expected)).any():
            return np.inf
        known = ~np.isnan(values)
        if known.any():
            apart = np.abs(values[known].astype(np.float64) - expected[known])
            largest = max(largest, float(apart.max()))
    return largest


def main() -> int:
    """Compare, and print a line for each file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    plainly = {"dlc": dlc, "sleap": sleap, "movement": movement}
    worst, count = 0.0, 0
    sources = find_sources(Dataset(path=folder, format="auto"), choice=FileChoice(flat=True))
    for file in (file for source in sources for file in source.files):
        name, _ = format_of(Peek(file))
        assert name is not None
        read = READERS[name].read
        assert read is not None
        begin = time.perf_counter()
        ours = of_betman(read([file]))
        middle = time.perf_counter()
        plain = plainly[name](file)
        end = time.perf_counter()
        apart, frames = difference(ours, plain), len(next(iter(ours.values())))
        print(f"{apart:<8g} {name:8} {frames:6} frames {middle - begin:6.2f} s (plain "
              f"{end - middle:.2f} s)  {file.relative_to(folder)}")  # fmt: skip
        worst, count = max(worst, apart), count + 1
    print(f"{count} files, largest difference {worst:g}")
    return int(worst > 0)


if __name__ == "__main__":
    sys.exit(main())
