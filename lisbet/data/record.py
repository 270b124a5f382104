"""One recording, as every reader returns it."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import xarray as xr

from lisbet.core.config import Features
from lisbet.core.errors import DataError, shortened
from lisbet.core.json_types import JsonDict
from lisbet.data.files.limits import require_memory
from lisbet.data.files.netcdf import names_along
from lisbet.data.labels import Labels
from lisbet.data.preparation.time_axis import time_axis
from lisbet.data.tracks import InMemory, Tracks

AXES = {"time": "time", "individuals": "individual", "keypoints": "keypoint", "space": "space"}
"""Dimensions of a recording, and how the newer movement format spells them."""


@dataclass(frozen=True)
class Record:
    """The tracks of one recording.

    Parameters
    ----------
    id : str
        Path of the recording's folder, relative to the data path.
    tracks : Tracks
        Pixels as read, [0, 1] once prepared. Those of a converted dataset are read when they are
        used.
    features : Features
        Names along the last three axes.
    fps : float or None
        Frames per second, where the file or the user states it.
    start_s : float or None
        Time of the first frame in the video, in seconds; None if the file begins with a later
        frame and the frame rate is not known.
    image_size_px : tuple of float or None
        Size of the video in pixels, where the file tells.
    steps : tuple of str
        What was done to the tracks since they were read, in order.
    confidence : ndarray or None
        (frames, individuals, keypoints). How sure the tracker was of each point, from 0 to 1, as
        read; None where the file does not say, and once the recording is prepared.
    labels : Labels or None
        The behaviours, where annotations were read.
    prepared_with : dict or None
        Options that it was prepared with before it came into memory; None if it was read from
        files. That of a converted dataset is in its store.
    """

    id: str
    tracks: Tracks
    features: Features
    fps: float | None = None
    image_size_px: tuple[float, ...] | None = None
    steps: tuple[str, ...] = ()
    labels: Labels | None = None
    start_s: float | None = 0.0
    confidence: np.ndarray | None = None
    prepared_with: JsonDict | None = None

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.tracks.frames

    @property
    def missing(self) -> float:
        """Fraction of the points (individual, keypoint, frame) that are missing."""
        return self.tracks.missing

    @property
    def position(self) -> np.ndarray:
        """All tracks, (frames, individuals, keypoints, space), read if they are in a store."""
        return self.tracks.read(0, self.frames)

    @classmethod
    def in_memory(cls, record_id: str, position: np.ndarray, features: Features) -> Self:
        """Make a recording from an array (frames, individuals, keypoints, space)."""
        return cls(record_id, InMemory(position), features)

    def with_position(self, position: np.ndarray, *steps: str) -> Self:
        """Return the recording with other tracks, made from these by some further steps."""
        return replace(self, tracks=InMemory(position), steps=(*self.steps, *steps))

    @property
    def digest(self) -> str:
        """SHA-256 of the tracks in float32, with 0 for missing points."""
        return self.tracks.digest


def from_dataset(
    record_id: str,
    source: Path,
    dataset: xr.Dataset,
    fps: float | None = None,
    *,
    fps_override: bool = False,
    time_gaps: str = "error",
    size_given: bool = False,
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
        Frame rate given by the user.
    fps_override : bool
        Whether it replaces the one of the file.
    time_gaps : {"error", "missing"}
        What frames that are left out of the times are.
    size_given : bool
        Whether the user gives the size of the video, so that a wrong one in the file is ignored.

    Raises
    ------
    DataError
        If it holds no usable positions; the message names what was found instead. Also if the time
        axis cannot be used, or contradicts `fps`; see `time_axis`; or if the stated size of the
        video is no positive number for each axis.
    """
    position = _position(source, dataset)
    values = position.transpose(*AXES).to_numpy()
    confidence = _confidence(dataset, position.sizes)
    complete, steps = _complete(values, confidence)
    values = values.astype(np.promote_types(values.dtype, np.float32), copy=False)
    values = np.where(complete, values, np.nan)
    try:
        features = Features(**{axis: names_along(position, axis) for axis in Features.model_fields})
    except ValueError as error:
        raise DataError(f"{source.name}: {error}") from error
    times = time_axis(dataset, source.name, fps, override=fps_override, gaps=time_gaps)
    if times.rows is not None:
        values = _on_rows(values, times.rows, source)
        confidence = None if confidence is None else _on_rows(confidence, times.rows, source)
    return Record(
        id=record_id,
        tracks=InMemory(values),
        features=features,
        fps=times.fps,
        image_size_px=_size(dataset.attrs.get("image_size_px"), source.name, ignored=size_given),
        steps=(*steps, *times.steps),
        start_s=times.start_s,
        confidence=confidence,
    )


def _position(source: Path, dataset: xr.Dataset) -> xr.DataArray:
    """Return the positions of a dataset, with the names of the axes that are used here."""
    if "position" not in dataset:
        found = ", ".join(map(str, dataset.data_vars)) or "nothing"
        raise DataError(f"{source.name}: no variable 'position' (found: {found})")
    position = _plural(dataset["position"])
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
    return position


def _plural(array: xr.DataArray) -> xr.DataArray:
    """Return an array with the names of dimensions that older releases of movement use."""
    plural = {new: old for old, new in AXES.items() if new in array.dims and new != old}
    return array.rename(plural)


def _confidence(dataset: xr.Dataset, sizes: Mapping[Hashable, int]) -> np.ndarray | None:
    """Return how sure the tracker was: (frames, individuals, keypoints), or None."""
    if "confidence" not in dataset or dataset["confidence"].dtype.kind not in "fiu":
        return None
    confidence = _plural(dataset["confidence"])
    wanted = {axis: size for axis, size in sizes.items() if axis != "space"}
    if dict(confidence.sizes) != wanted:
        return None
    values = confidence.transpose(*(axis for axis in AXES if axis in wanted)).to_numpy()
    return None if np.isnan(values).all() else values  # movement fills in NaN where there is none


def _complete(
    values: np.ndarray, confidence: np.ndarray | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Say which points are there, and what was taken for missing.

    Trackers write points that they did not find as NaN or at the origin. Half a point is a missing
    point.

    Parameters
    ----------
    values : ndarray
        (frames, individuals, keypoints, space).
    confidence : ndarray or None
        (frames, individuals, keypoints).

    Returns
    -------
    complete : ndarray
        (frames, individuals, keypoints, 1), bool.
    steps : tuple of str
        For `Record.steps`.
    """
    complete = np.isfinite(values).all(axis=-1)
    steps: tuple[str, ...] = ()
    if not complete.all() and (infinite := int(np.isinf(values).any(axis=-1).sum())):
        steps = (f"{infinite} points with infinite coordinates taken for missing",)
    at_origin = complete & (values == 0).all(axis=-1)
    why = ""
    if values.dtype.kind in "iu":
        # Whole numbers have no NaN: trackers that write them put missing points at the origin.
        steps = ("points at 0 taken for missing, as the positions are whole numbers",)
    elif values.shape[-1] > 1 and at_origin.any():
        real = values[complete]
        if (real != np.rint(real)).any():
            why = "the other points are no whole numbers"
        elif confidence is not None:
            at_origin &= confidence == 0
            why = "their confidence is 0"
        else:
            at_origin[:] = False
        if why and (count := int(at_origin.sum())):
            steps = (*steps, f"{count} points at the origin taken for missing, as {why}")
    else:
        at_origin[:] = False
    return (complete & ~at_origin)[..., np.newaxis], steps


def _on_rows(values: np.ndarray, rows: np.ndarray, source: Path) -> np.ndarray:
    """Put frames on an even time axis; frames that are left out are NaN."""
    shape = (int(rows[-1]) + 1, *values.shape[1:])
    dtype = np.promote_types(values.dtype, np.float32)
    require_memory(source.name, np.prod(shape) * dtype.itemsize, f"{shape[0]} frames without gaps")
    filled = np.full(shape, np.nan, dtype)
    filled[rows] = values
    return filled


def _size(raw: object, name: str, *, ignored: bool) -> tuple[float, ...] | None:
    """Return the size of the video that a file states; None if it states none."""
    if raw is None or (isinstance(raw, str) and raw.strip().lower() in ("", "none", "unknown")):
        return None
    try:
        sides = np.atleast_1d(np.asarray(raw, dtype=np.float64)).ravel()
    except (TypeError, ValueError):
        sides = np.zeros(1)
    if sides.size and ((sides > 0) & (sides < np.inf)).all():
        return tuple(sides.tolist())
    if ignored:
        return None
    raise DataError(
        f"{name}: the attribute 'image_size_px' is {shortened(str(raw), 80)}; expected the width "
        "and height of the video in pixels. Correct or remove the attribute, or give the size with "
        "--data_scale"
    )
