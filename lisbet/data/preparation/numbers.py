"""Refuse coordinates that would be constant, or lost in float32, once they are scaled."""

import numpy as np

from lisbet.core.errors import DataError
from lisbet.data.record import Record

SPREAD = 1e-3
"""All coordinates of a recording within this share of the video: its stated size is wrong."""
AXIS_SPREAD = 1e-5
"""The same for a single axis on which there is some movement."""
CONSTANT = 1e-12
"""A range of this share of the values themselves is rounding, no movement."""
OUTLIERS = (10, 90)
"""Percentiles between which most values lie."""
MOST = 1e-5
"""Most values must not lie within this share of the range: a few others are errors then."""
STEP = 1e-7
"""Movements from frame to frame, as a share of the range: float32 holds no smaller ones."""
SAMPLES = 500
"""Frames that are looked at, spread over the recording."""


def check_spread(
    record: Record, size: tuple[float, ...], low: np.ndarray, high: np.ndarray
) -> None:
    """Check that the stated size of the video fits the coordinates.

    Parameters
    ----------
    record : Record
        In pixels, all inside the video.
    size : tuple of float
        Size of the video along each axis, in pixels.
    low, high : ndarray
        (space,). Minimum and maximum of the coordinates along each axis, as a share of the size.

    Raises
    ------
    DataError
        If all coordinates, or those of an axis, would be almost the same once they are scaled.
    """
    spread = high - low
    wrong = spread.max() < SPREAD
    moving = (spread > 0) & (spread < AXIS_SPREAD)
    if not wrong and not moving.any():
        return
    axis = int(np.argmax(moving)) if not wrong else int(spread.argmax())
    name = record.features.space[axis]
    stated = "--data_scale" if record.image_size_px is None else "the size of the video"
    first, last = low[axis] * size[axis], high[axis] * size[axis]
    raise DataError(
        f"{name} runs from {first:.6g} to {last:.6g}, but {stated} is {size[axis]:g} along it, "
        f"so that its coordinates would be within {spread[axis]:.1g} of each other; "
        f"expected at least {SPREAD if wrong else AXIS_SPREAD:g}. Give the size of the video in "
        "the unit of the coordinates, or use --data_scale=minmax"
    )


def check_range(record: Record, low: np.ndarray, high: np.ndarray) -> None:
    """Check that a recording can be scaled by its own minimum and maximum.

    Parameters
    ----------
    record : Record
        In pixels.
    low, high : ndarray
        (space,). Its minimum and maximum along each axis.

    Raises
    ------
    DataError
        If an axis has no range, or one that is so large that float32 loses the movement.
    """
    with np.errstate(over="ignore"):
        extent = high - low
    flat = extent <= CONSTANT * np.maximum(np.abs(low), np.abs(high))
    names = record.features.space
    if flat.any():
        values = ", ".join(f"{value:.6g}" for value in low[flat])
        axes = ", ".join(name for name, same in zip(names, flat, strict=True) if same)
        raise DataError(
            f"{axes} is the same everywhere ({values}), so it has no range to scale by; "
            "pass --data_scale, or leave the axis out with --select_coords"
        )
    index = np.unique(np.linspace(0, record.frames - 1, SAMPLES).astype(np.int64))
    here, after = (
        record.position[rows].astype(np.float64)
        for rows in (index, np.minimum(index + 1, record.frames - 1))
    )
    for axis, name in enumerate(names):
        if not np.isfinite(extent[axis]):
            raise _too_large(name, low[axis], high[axis], "which is no range in float64")
        values = here[..., axis] / extent[axis]
        if np.isnan(values).all():
            continue
        first, last = np.nanpercentile(values, OUTLIERS, method="nearest")
        if 0 < last - first < MOST:
            most = f"but most values lie between {first * extent[axis]:.6g} and "
            raise _too_large(name, low[axis], high[axis], most + f"{last * extent[axis]:.6g}")
        steps = np.abs(after[..., axis] - here[..., axis])
        usual = 0.0 if np.isnan(steps).all() else np.nanpercentile(steps, OUTLIERS[1])
        if 0 < usual < STEP * extent[axis]:
            most = f"but moves by less than {usual:.2g} in most frames"
            raise _too_large(name, low[axis], high[axis], most)


def _too_large(name: str, low: float, high: float, problem: str) -> DataError:
    return DataError(
        f"{name} runs from {low:.6g} to {high:.6g}, {problem}: scaled by this range, the movement "
        "would be lost. Remove the points that are errors, or give the size of the video with "
        "--data_scale and use --outside=missing, or use --data_scale=robust"
    )
