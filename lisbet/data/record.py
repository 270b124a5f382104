"""One recording in memory, as every reader hands it on."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr

from lisbet.config import Features
from lisbet.data.labels import Labels
from lisbet.data.netcdf import names_along
from lisbet.data.time_axis import frame_rate
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
        point is NaN along all axes. Of a converted dataset, it is read when it is used
        (`tracks.Stored`).
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
        known: float | None = getattr(self.position, "missing", None)
        return float(np.isnan(self.position[..., 0]).mean()) if known is None else known

    def with_position(self, position: np.ndarray) -> "Record":
        """Return the recording with other tracks."""
        return replace(self, position=position)

    @property
    def digest(self) -> str:
        """SHA-256 of the tracks as they stand in a bank: float32, 0 where a point is missing."""
        known: str | None = getattr(self.position, "digest", None)
        if known is not None:
            return known
        values = np.nan_to_num(np.asarray(self.position, np.float32), nan=0.0)
        return hashlib.sha256(values.tobytes()).hexdigest()


def from_dataset(
    record_id: str, source: Path, dataset: xr.Dataset, fps: float | None = None
) -> Record:
    """Turn a dataset of the movement format, older or newer, into a Record.

    Parameters
    ----------
    record_id : str
        Id of the recording.
    source : Path
        The file, for messages.
    dataset : xarray.Dataset
        What was read from it.
    fps : float, optional
        Frame rate given by the user: used where the file's own cannot be.

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
        raise DataError(
            f"{source.name}: 'position' holds {position.dtype}; expected numbers (float or "
            "integer). Export the file again"
        )
    if empty := [str(axis) for axis, size in position.sizes.items() if size == 0]:
        raise DataError(f"{source.name}: 'position' is empty along {', '.join(empty)}")
    values = position.transpose(*AXES).to_numpy()
    complete = np.isfinite(values).all(axis=-1, keepdims=True)  # half a point is a missing point
    steps: tuple[str, ...] = ()
    if not complete.all() and (infinite := int(np.isinf(values).any(axis=-1).sum())):
        steps = (f"{infinite} points with infinite coordinates taken for missing",)
    if values.dtype.kind in "iu":
        # Whole numbers have no NaN: trackers that write them put missing points at the origin.
        complete &= (values != 0).any(axis=-1, keepdims=True)
        steps = ("points at 0 taken for missing, as the positions are whole numbers",)
    values = values.astype(np.promote_types(values.dtype, np.float32), copy=False)
    try:
        features = Features(**{axis: names_along(position, axis) for axis in Features.model_fields})
    except ValueError as error:
        raise DataError(f"{source.name}: {error}") from error
    return Record(
        id=record_id,
        position=np.where(complete, values, np.nan),
        features=features,
        fps=frame_rate(dataset, source.name, fps),
        image_size_px=_size(dataset.attrs.get("image_size_px")),
        steps=steps,
    )


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
