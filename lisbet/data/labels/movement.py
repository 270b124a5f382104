"""Annotations next to movement recordings: ``annotations*.nc``, ``manual_scoring*.nc``."""

from pathlib import Path

import numpy as np
import xarray as xr

from lisbet.core.errors import DataError
from lisbet.data.files.netcdf import load_netcdf, names_along
from lisbet.data.labels._labels import ALL, Choice, LabelReader, Labels

AXES = ("time", "behaviors", "annotators")


def _read(
    file: Path, frames: int, fps: float | None, start_s: float = 0.0, *, choice: Choice = ALL
) -> Labels:
    del frames, fps, start_s  # it is given frame by frame
    if choice.subject is not None:
        raise DataError(
            f"{file.name} does not name subjects, so --subject={choice.subject} cannot apply; "
            "leave it out"
        )
    dataset = load_netcdf(file)
    if "target_cls" not in dataset or set(dataset["target_cls"].dims) != set(AXES):
        raise DataError(f"{file.name}: expected target_cls over {', '.join(AXES)}")
    active = dataset["target_cls"].transpose(*AXES).to_numpy()[..., 0]
    if not np.isin(active, (0, 1)).all():
        raise DataError(f"{file.name}: target_cls holds values other than 0 and 1")
    names = names_along(dataset["target_cls"], "behaviors")
    return Labels(names, active.astype(bool), fps=_frame_rate(dataset))


def _names(file: Path, *, choice: Choice = ALL) -> tuple[str, ...]:
    del choice
    return names_along(load_netcdf(file, frames=1)["target_cls"], "behaviors")


def _frame_rate(dataset: xr.Dataset) -> float | None:
    try:
        value = float(np.asarray(dataset.attrs["fps"]).item())
    except (KeyError, TypeError, ValueError):
        return None
    return value if 0 < value < float("inf") else None


def _recognises(file: Path) -> bool:
    if file.suffix.lower() != ".nc":
        return False
    try:
        return "target_cls" in load_netcdf(file, frames=1)
    except (DataError, OSError, ValueError):
        return False


READER = LabelReader(
    patterns=("annotations*.nc", "manual_scoring*.nc"),
    read=_read,
    names=_names,
    recognises=_recognises,
    title="annotations in the movement format",
)
