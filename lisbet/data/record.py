"""One recording in memory, as every reader hands it on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from lisbet.config import Features
from lisbet.data.labels import Labels
from lisbet.errors import DataError

AXES = {"time": "time", "individuals": "individual", "keypoints": "keypoint", "space": "space"}
"""Dimensions of a recording, and how the newer movement format spells them."""


@dataclass(frozen=True)
class Record:
    """The tracks of one recording.

    Parameters
    ----------
    id : str
        Path of the recording's folder, relative to the data path.
    position : ndarray
        (frames, individuals, keypoints, space). Pixels as read, [0, 1] once prepared; a missing
        point is NaN.
    features : Features
        Names along the last three axes.
    fps : float or None
        Frames per second, where the file tells.
    image_size_px : tuple of float or None
        Size of the video in pixels, where the file tells.
    steps : tuple of str
        What was done to the tracks since they were read, in order.
    labels : Labels or None
        The behaviours, where annotations were read.
    """

    id: str
    position: np.ndarray
    features: Features
    fps: float | None = None
    image_size_px: tuple[float, ...] | None = None
    steps: tuple[str, ...] = ()
    labels: Labels | None = None

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.position)

    @property
    def missing(self) -> float:
        """Share of the points (individual, keypoint, frame) that are missing."""
        return float(np.isnan(self.position).any(axis=-1).mean())


def from_dataset(record_id: str, source: Path, dataset: xr.Dataset) -> Record:
    """Turn a dataset of the movement format, older or newer, into a Record.

    Raises
    ------
    DataError
        If it holds no usable positions; the message names what was found instead.
    """
    if "position" not in dataset:
        found = ", ".join(map(str, dataset.data_vars)) or "nothing"
        raise DataError(f"{source.name}: no variable 'position' (found: {found})")
    position = dataset["position"]
    plural = {new: old for old, new in AXES.items() if new in position.dims and new != old}
    position = position.rename(plural)
    if set(position.dims) != set(AXES):
        raise DataError(
            f"{source.name}: 'position' has dimensions {', '.join(map(str, position.dims))}; "
            f"expected {', '.join(AXES)}"
        )
    if position.dtype.kind not in "fiu":
        raise DataError(f"{source.name}: 'position' holds {position.dtype}, not numbers")
    if empty := [str(axis) for axis, size in position.sizes.items() if size == 0]:
        raise DataError(f"{source.name}: 'position' is empty along {', '.join(empty)}")
    values = position.transpose(*AXES).to_numpy()
    values = values.astype(np.promote_types(values.dtype, np.float32), copy=False)
    complete = np.isfinite(values).all(axis=-1, keepdims=True)
    return Record(
        id=record_id,
        position=np.where(complete, values, np.nan),  # half a point is a missing point
        features=Features(
            **{axis: _names(position, axis, source) for axis in Features.model_fields}
        ),
        fps=_positive(dataset.attrs.get("fps")),
        image_size_px=_size(dataset.attrs.get("image_size_px")),
    )


def _names(position: xr.DataArray, axis: str, source: Path) -> tuple[str, ...]:
    if axis not in position.coords:
        raise DataError(f"{source.name}: 'position' has no names for its {axis}")
    names = tuple(
        name.decode(errors="replace") if isinstance(name, bytes) else str(name)
        for name in position.coords[axis].values.tolist()
    )
    if len(set(names)) < len(names):
        raise DataError(f"{source.name}: {axis} are named twice: {', '.join(names)}")
    return names


def _positive(raw: object) -> float | None:
    try:
        value = float(raw)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return value if 0 < value < float("inf") else None


def _size(raw: object) -> tuple[float, ...] | None:
    if raw is None:
        return None
    sides = [_positive(side) for side in np.atleast_1d(np.asarray(raw, dtype=object)).ravel()]
    return tuple(side for side in sides if side) if all(sides) else None
