"""Annotations beside movement recordings: ``annotations*.nc``, ``manual_scoring*.nc``."""

from pathlib import Path

import numpy as np

from lisbet.data.labels._labels import LabelReader, Labels
from lisbet.data.netcdf import load_netcdf, names_along
from lisbet.errors import DataError

AXES = ("time", "behaviors", "annotators")


def _read(file: Path, frames: int, fps: float | None, start_s: float = 0.0) -> Labels:
    del frames, fps, start_s  # it is given frame by frame
    dataset = load_netcdf(file)
    if "target_cls" not in dataset or set(dataset["target_cls"].dims) != set(AXES):
        raise DataError(f"{file.name}: expected target_cls over {', '.join(AXES)}")
    active = dataset["target_cls"].transpose(*AXES).to_numpy()[..., 0]
    if not np.isin(active, (0, 1)).all():
        raise DataError(f"{file.name}: target_cls holds values other than 0 and 1")
    return Labels(names_along(dataset["target_cls"], "behaviors"), active.astype(bool))


def _names(file: Path) -> tuple[str, ...]:
    return names_along(load_netcdf(file, frames=1)["target_cls"], "behaviors")


READER = LabelReader(patterns=("annotations*.nc", "manual_scoring*.nc"), read=_read, names=_names)
