"""The time axis of a recording: it must be even, and agree with the frame rate of the file."""

from typing import Any

import numpy as np
import xarray as xr

from lisbet.errors import DataError

TOLERANCE = 0.01
"""How far a step may be from the usual one, as a share of it; two frame rates likewise."""
ROUNDED_S = 0.001
"""Time stamps in seconds are often written with three decimals: a step may be off by one digit."""


def frame_rate(dataset: xr.Dataset, name: str, fallback: float | None = None) -> float | None:
    """Return the frames per second that a file states, or that its times in seconds make.

    Parameters
    ----------
    dataset : xarray.Dataset
        A recording in the movement format.
    name : str
        Name of its file, for messages.
    fallback : float, optional
        Frame rate to use where the file states one that cannot be, or two.

    Returns
    -------
    float or None
        None if the file does not tell.

    Raises
    ------
    DataError
        If the time axis is not even, the stated frame rate is no positive number, or the two
        contradict each other.
    """
    stated = _stated(dataset.attrs.get("fps"), name, fallback)
    unit = dataset.attrs.get("time_unit")
    step = _even_step(dataset, name, unit)
    # Files without a unit may count frames; times in seconds have steps below 1.
    seconds = unit == "seconds" or (unit is None and step is not None and step < 1)
    if step is None or not seconds:
        return stated
    measured = 1 / step
    if stated is None:
        return measured if unit == "seconds" else None
    rounding = ROUNDED_S / (dataset.sizes["time"] - 1) / step
    if abs(stated * step - 1) <= TOLERANCE + rounding:
        return stated
    for rate in (stated, measured):
        if fallback is not None and abs(fallback / rate - 1) <= TOLERANCE + rounding:
            return fallback
    raise DataError(
        f"{name}: the attribute 'fps' is {stated:g}, but the times in 'time' are {step:.6g} s "
        f"apart, which is {measured:.6g} frames per second; expected both to be the same. Correct "
        "the wrong one, or give the right frame rate with --fps"
    )


def _stated(raw: Any, name: str, fallback: float | None) -> float | None:
    """Return the attribute `fps`; None if there is none."""
    if raw is None or (isinstance(raw, str) and raw.strip().lower() in ("", "none", "unknown")):
        return None
    try:
        value = float(np.asarray(raw).item())
    except (TypeError, ValueError):
        value = float("nan")
    if 0 < value < float("inf"):
        return value
    if fallback is not None:
        return None  # --fps is used instead
    raise DataError(
        f"{name}: the attribute 'fps' is {raw!s}; expected a positive number of frames per second. "
        "Correct or remove the attribute, or give the frame rate with --fps"
    )


def _even_step(dataset: xr.Dataset, name: str, unit: object) -> float | None:
    """Return the time between two frames, in the file's unit; None if it has no times."""
    if "time" not in dataset.variables:
        return None
    raw = np.asarray(dataset["time"].values)
    if raw.dtype.kind not in "fiu" or raw.ndim != 1:
        raise DataError(
            f"{name}: 'time' holds {raw.dtype} of shape {raw.shape}; expected one number for each "
            "frame. Export the file again"
        )
    times = raw.astype(np.float64)
    if len(bad := np.flatnonzero(~np.isfinite(times))):
        raise DataError(
            f"{name}: 'time' of frame {bad[0]} is {times[bad[0]]} ({len(bad)} of {len(times)} time "
            "stamps are no numbers); expected a time for each frame. Export the file again"
        )
    if len(times) < 2:
        return None
    step = float((times[-1] - times[0]) / (len(times) - 1))
    usual = float(np.median(np.diff(times)))
    rounding = ROUNDED_S if unit != "frames" else 0.0
    # Far from zero, the time stamps themselves are rounded: float32 has seven digits.
    precision = np.finfo(raw.dtype).eps if raw.dtype.kind == "f" else 0.0
    slack = 2 * precision * float(np.abs(times).max()) + TOLERANCE * abs(usual)
    slack = max(slack, min(1.01 * rounding, 0.5 * abs(usual)))
    differences = np.diff(times)
    for wrong, problem in (
        (differences < 0, "runs backwards"),
        (differences == 0, "repeats"),
        (np.abs(differences - usual) > slack, "jumps"),
    ):
        if len(found := np.flatnonzero(wrong)):
            at = int(found[0])
            raise DataError(
                f"{name}: 'time' {problem} at frame {at + 1}, from {times[at]:.9g} to "
                f"{times[at + 1]:.9g} ({len(found)} such steps; the usual one is {usual:.6g}); "
                "expected evenly spaced times. Cut the recording there into several, or fill in "
                "the frames that are left out"
            )
    return step
