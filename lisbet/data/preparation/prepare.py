"""Prepare a recording for the bank: select, rename, scale to [0, 1]."""

from dataclasses import replace

import numpy as np

from lisbet.core.config import Features
from lisbet.core.errors import DataError
from lisbet.core.option_values import Renames, Scale, Selection
from lisbet.data.preparation.gaps import with_confidence, without_gaps
from lisbet.data.preparation.numbers import check_range, check_spread
from lisbet.data.preparation.outliers import MARGIN, PERCENTILES, outlier_note, robust_range
from lisbet.data.record import Record

AXIS = {"individuals": 1, "keypoints": 2, "space": 3}


def prepare(
    record: Record,
    *,
    select: Selection | None = None,
    rename: Renames | None = None,
    scale: Scale | None = None,
    outside: str = "error",
    min_confidence: float | None = None,
    max_gap: int = 0,
) -> Record:
    """Return the recording as the network will see it: coordinates in [0, 1], float32.

    Parameters
    ----------
    record : Record
        As read, in pixels.
    select, rename : optional
        What to keep and what to call it; selecting comes first.
    scale : Scale, optional
        Size of the video. Default: the recording's own image_size_px, else its own minimum and
        maximum along each axis, without missing points.
    outside : {"error", "missing"}
        What points outside the stated size are.
    min_confidence : float, optional
        Points of less confidence are missing.
    max_gap : int
        Points that are missing for at most so many frames in a row are interpolated.

    Raises
    ------
    DataError
        If a selected name is not there, everything is missing, coordinates lie outside the
        stated size, or a confidence is asked for that is not known.
    """
    record = with_confidence(record, min_confidence)
    if select is not None:
        record = selected(record, select)
    axes = record.features.space  # sides of the video belong to axes by the names in the file
    if rename is not None:
        record = renamed(record, rename)
    if np.isnan(record.position).all():
        raise DataError("every point is missing")
    if scale is None and record.image_size_px is not None:
        scale = Scale(size=record.image_size_px)
    if scale is not None and scale.robust:
        return scaled_robustly(record, max_gap)
    if scale is None or scale.size is None:
        return scaled_by_range(without_gaps(record, max_gap))
    size = sides(scale, axes)
    if outside == "missing":
        record = without_outsiders(record, size)
    return scaled(without_gaps(record, max_gap), size)


def selected(record: Record, select: Selection) -> Record:
    """Keep the selected individuals, axes and keypoints, in the order of the selection."""
    position, confidence, names = record.position, record.confidence, record.features.model_dump()
    for axis, wanted in select.model_dump().items():
        if wanted is None:
            continue
        have = names[axis]
        if absent := [name for name in wanted if name not in have]:
            raise DataError(f"no {axis} {', '.join(absent)}; there are {', '.join(have)}")
        places = [have.index(name) for name in wanted]
        position = np.take(position, places, axis=AXIS[axis])
        if confidence is not None and axis != "space":
            confidence = np.take(confidence, places, axis=AXIS[axis])
        names[axis] = wanted
    return replace(
        record.with_position(position, f"selected {select}"),
        confidence=confidence,
        features=Features(**names),
    )


def renamed(record: Record, rename: Renames) -> Record:
    """Give individuals, axes and keypoints their new names."""
    names = record.features.model_dump()
    for axis, pairs in rename.model_dump().items():
        new = dict(pairs)
        if absent := [name for name in new if name not in names[axis]]:
            have = ", ".join(names[axis])
            raise DataError(f"cannot rename {axis} {', '.join(absent)}; there are {have}")
        names[axis] = tuple(new.get(name, name) for name in names[axis])
        if len(set(names[axis])) < len(names[axis]):
            raise DataError(
                f"renaming would leave two {axis} of one name: {', '.join(names[axis])}"
            )
    return replace(record, features=Features(**names), steps=(*record.steps, f"renamed {rename}"))


def sides(scale: Scale, axes: tuple[str, ...]) -> tuple[float, ...]:
    """Return the side of the video along each axis: by name for x, y and z, else by place."""
    assert scale.size is not None
    named = dict(zip(("x", "y", "z"), scale.size, strict=False))
    if set(axes) <= set(named):
        return tuple(named[axis] for axis in axes)
    if len(scale.size) != len(axes):
        raise DataError(
            f"the scale {scale} has {len(scale.size)} sides, but the axes are {', '.join(axes)}"
        )
    return scale.size


def without_outsiders(record: Record, size: tuple[float, ...]) -> Record:
    """Take points outside the video for missing."""
    with np.errstate(invalid="ignore"):
        inside = ((record.position >= 0) & (record.position <= size)).all(axis=-1, keepdims=True)
    position = np.where(inside, record.position, np.nan)
    lost = int(np.isnan(position[..., 0]).sum() - np.isnan(record.position[..., 0]).sum())
    video = Scale(size=size)
    if np.isnan(position).all():
        raise DataError(f"every point is outside {video}")
    step = f"{lost} points outside {video} taken for missing"
    return record.with_position(position, step)


def scaled(record: Record, size: tuple[float, ...]) -> Record:
    """Divide by the size of the video; everything must lie inside it."""
    space = record.features.space
    position = record.position.astype(np.float64) / size
    limits = np.zeros((2, len(space)))
    for axis, name in enumerate(space):
        values = position[..., axis]
        low, high = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
        limits[:, axis] = low, high
        if low < 0 or high > 1:
            side = size[axis]
            outside = np.count_nonzero((values < 0) | (values > 1))
            raise DataError(
                f"{name} runs from {low * side:.5g} to {high * side:.5g}, but the size of the "
                f"video is said to be {side:g}: {outside} of {values.size} values are outside. "
                f"{_advice(outside / values.size, low < 0, record)}"
            )
    check_spread(record, size, *limits)
    return _finished(record, position, f"divided by {Scale(size=size)}")


MANY_OUTSIDE = 0.01
"""Larger fractions of the values outside the video are probably not tracking errors."""


def _advice(share: float, negative: bool, record: Record) -> str:
    """Say what to do about a fraction of the values that is outside the video."""
    errors = "to treat these points as missing, pass --outside=missing"
    own = "leave it out" if record.image_size_px is None else "use --data_scale=minmax"
    larger = "" if negative else "give a larger --data_scale, or "
    other = f"{larger}{own} to scale by the recording's own minimum and maximum"
    if share <= MANY_OUTSIDE:
        return f"These are probably tracking errors: {errors}. If the size is wrong, {other}"
    return f"The size is probably wrong: {other}; or {errors}"


def scaled_by_range(record: Record) -> Record:
    """Stretch each axis from its minimum to its maximum over the recording."""
    position = record.position.astype(np.float64)
    flat = position.reshape(-1, position.shape[-1])
    low, high = np.fmin.reduce(flat), np.fmax.reduce(flat)  # fmin and fmax pass NaN over
    check_range(record, low, high)
    limits = ", ".join(f"{lo:.5g} to {hi:.5g}" for lo, hi in zip(low, high, strict=True))
    scaled_record = _finished(record, (position - low) / (high - low), f"scaled from {limits}")
    notes = (
        f"{note} (--data_scale=robust or the size of the video avoid it)"
        for note in outlier_note(record)
    )
    return replace(scaled_record, steps=(*scaled_record.steps, *notes))


def scaled_robustly(record: Record, max_gap: int = 0) -> Record:
    """Scale all axes by one factor, to a range that few outliers do not change.

    Points beyond it are missing; the middle of each axis comes to 0.5.
    """
    centre, extent = robust_range(record)
    low, high = centre - extent / 2, centre + extent / 2
    with np.errstate(invalid="ignore"):
        inside = ((record.position >= low) & (record.position <= high)).all(-1, keepdims=True)
    position = np.where(inside, record.position, np.nan)
    lost = int(np.isnan(position[..., 0]).sum() - np.isnan(record.position[..., 0]).sum())
    limits = ", ".join(f"{lo:.5g} to {hi:.5g}" for lo, hi in zip(low, high, strict=True))
    record = record.with_position(position, f"{lost} points outside {limits} taken for missing")
    record = without_gaps(record, max_gap)
    position = np.clip((record.position.astype(np.float64) - low) / extent, 0, 1)  # of rounding
    percentiles = f"{PERCENTILES[0]:g} and {PERCENTILES[1]:g}"
    step = (
        f"scaled from {limits}, one factor for all axes (percentiles {percentiles}, and "
        f"{MARGIN:.0%} more on each side)"
    )
    return _finished(record, position, step)


def _finished(record: Record, position: np.ndarray, step: str) -> Record:
    return record.with_position(position.astype(np.float32), step)
