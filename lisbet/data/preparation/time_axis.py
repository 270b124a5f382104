"""The time axis of a recording: frame rate, time of the first frame, frames that are left out."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from lisbet.core.errors import DataError

TOLERANCE = 0.01
"""How far a step may be from the usual one, as a share of it; two frame rates likewise."""
SAME_RATE = 1e-4
"""How far `--fps` may be from the frame rate of a file: 29.97 and 30 differ by 10 times that."""
ROUNDED_S = 0.001
"""Time stamps in seconds are often written with three decimals: a step may be off by one digit."""
OFF_GRID = 0.25
"""How far a time behind a gap may be from a whole number of steps, in steps."""
LONGEST = 10
"""With its gaps filled, a recording has at most so many times the frames of its file."""
SECONDS = {"seconds": 1.0, "second": 1.0, "sec": 1.0, "s": 1.0, "milliseconds": 1e-3, "ms": 1e-3}


@dataclass(frozen=True)
class TimeAxis:
    """When the frames of a file were recorded.

    Parameters
    ----------
    fps : float or None
        Frames per second; None if neither the file nor the user states it.
    start_s : float or None
        Time of the first frame in seconds, not 0 in a file that was cropped; None if the file
        begins later and counts frames, and no frame rate turns them into seconds.
    rows : ndarray or None
        (frames of the file,), int64. Number of each frame on the even time axis, from 0; None if
        there are no gaps.
    steps : tuple of str
        What was done, for `Record.steps`.
    """

    fps: float | None
    start_s: float | None = 0.0
    rows: np.ndarray | None = None
    steps: tuple[str, ...] = ()


def time_axis(
    dataset: xr.Dataset,
    name: str,
    fps: float | None = None,
    *,
    override: bool = False,
    gaps: str = "error",
) -> TimeAxis:
    """Return the time axis that a file states, in its times and its attribute ``fps``.

    Parameters
    ----------
    dataset : xarray.Dataset
        A recording in the movement format.
    name : str
        Name of its file, for messages.
    fps : float, optional
        Frame rate given by the user, ``--fps``.
    override : bool
        Whether `fps` replaces what the file states, ``--fps_override``.
    gaps : {"error", "missing"}
        What frames that are left out of the times are, ``--time_gaps``.

    Raises
    ------
    DataError
        If the times are not even (or have gaps, unless these become missing frames), the stated
        frame rate is no positive number, or two of the attribute, the times and `fps` contradict
        each other.
    """
    stated = _stated(dataset.attrs.get("fps"), name, fps)
    times = _times(dataset, name)
    if times is None or len(times) < 2:
        return TimeAxis(_chosen(stated, fps, name, override=override))
    unit = dataset.attrs.get("time_unit")
    rows, step, slack = _rows(times, name, unit, gaps)
    seconds = _seconds_per_unit(times, step, unit, stated or fps, name)
    start = float(times[0])
    steps: tuple[str, ...] = ()
    if seconds is None:  # it counts the frames of the video, or every second one, and so on
        video = _chosen(stated, fps, name, override=override)
        rate = None if video is None else video / step
        start_s = start / video if video else None if start else 0.0
        if abs(step - 1) > TOLERANCE:
            steps = (f"'time' counts every {step:g}. frame of the video",)
    else:
        rounding = ROUNDED_S / rows[-1] / (step * seconds)
        own = _own_rate(stated, step * seconds, rounding, name, fps, override=override)
        rate = _chosen(own, fps, name, rounding, override=override)
        start_s = start * seconds * (own / rate if rate and override else 1)
    if rate and start_s:  # the first frame of a video that was cropped is a whole one
        frame = round(start_s * rate)
        start_s = frame / rate if abs(start_s * rate - frame) <= slack / step else start_s
        steps = (*steps, f"begins at {start_s:.6g} s of the video, by its times")
    if override and fps is not None:
        steps = (*steps, f"taken to have {fps:g} frames per second, by --fps_override")
    added = int(rows[-1]) + 1 - len(times)
    if added:
        steps = (*steps, f"{added} frames that are left out of 'time' added as missing")
    return TimeAxis(rate, start_s, rows if added else None, steps)


def require_same_rate(fps: float, stated: float, name: str, rounding: float = 0.0) -> None:
    """Check that the frame rate of the user is what a file states.

    Parameters
    ----------
    fps : float
        Given with ``--fps``.
    stated : float
        Of the file, stated or measured.
    name : str
        Name of the file, for the message.
    rounding : float
        How far the one of the file may be off, as a share of it.

    Raises
    ------
    DataError
        If they differ.
    """
    if not abs(fps / stated - 1) <= SAME_RATE + rounding:
        raise DataError(
            f"{name}: it states {stated:.6g} frames per second, but --fps is {fps:g}; expected "
            "both to be the same. Leave --fps out, or add --fps_override if the file is wrong"
        )


def _chosen(
    own: float | None, fps: float | None, name: str, rounding: float = 0.0, *, override: bool
) -> float | None:
    """Return the frame rate of a file, or the one of the user."""
    if own is None or fps is None:
        return fps if own is None else own
    if override:
        return fps
    require_same_rate(fps, own, name, rounding)
    return own


def _own_rate(
    stated: float | None,
    step_s: float,
    rounding: float,
    name: str,
    fps: float | None,
    *,
    override: bool,
) -> float:
    """Return the frame rate that the times make; the stated one where rounding explains it."""
    measured = 1 / step_s
    difference = 0.0 if stated is None else abs(stated * step_s - 1)
    if stated is not None and difference <= SAME_RATE + rounding:
        return stated
    decided = override or (fps is not None and abs(fps * step_s - 1) <= SAME_RATE + rounding)
    if difference <= TOLERANCE + rounding or (fps is not None and decided):
        return measured
    raise DataError(
        f"{name}: the attribute 'fps' is {stated:g}, but the times in 'time' are {step_s:.6g} s "
        f"apart, which is {measured:.6g} frames per second; expected both to be the same. Correct "
        f"the wrong one. If it is the attribute, --fps={measured:.6g} will do; if it is the times, "
        "add --fps_override to --fps"
    )


def _stated(raw: object, name: str, fallback: float | None) -> float | None:
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


def _times(dataset: xr.Dataset, name: str) -> np.ndarray | None:
    """Return the times of the frames, in the file's unit; None if it has none."""
    if "time" not in dataset.variables:
        return None
    times = np.asarray(dataset["time"].values)
    if times.dtype.kind not in "fiu" or times.ndim != 1:
        raise DataError(
            f"{name}: 'time' holds {times.dtype} of shape {times.shape}; expected one number for "
            "each frame. Export the file again"
        )
    if len(bad := np.flatnonzero(~np.isfinite(times))):
        raise DataError(
            f"{name}: 'time' of frame {bad[0]} is {times[bad[0]]} ({len(bad)} of {len(times)} time "
            "stamps are no numbers); expected a time for each frame. Export the file again"
        )
    return times


def _rows(raw: np.ndarray, name: str, unit: object, gaps: str) -> tuple[np.ndarray, float, float]:
    """Return the number of each frame on an even axis, its step, and the tolerance of a time."""
    times = raw.astype(np.float64)
    differences = np.diff(times)
    usual = float(np.median(differences))
    rounding = ROUNDED_S if unit != "frames" else 0.0
    # Far from zero, the time stamps themselves are rounded: float32 has seven digits.
    precision = np.finfo(raw.dtype).eps if raw.dtype.kind == "f" else 0.0
    slack = 2 * precision * float(np.abs(times).max()) + TOLERANCE * abs(usual)
    slack = max(slack, min(1.01 * rounding, 0.5 * abs(usual)))
    even = np.abs(differences - usual) <= slack
    step = float(differences[even].mean()) if even.any() else usual
    with np.errstate(all="ignore"):
        ratio = differences / step
        count = np.where(even, 1, np.rint(np.clip(ratio, 0, 2**40)))
        tolerance = np.minimum(OFF_GRID, TOLERANCE * count + slack / step)
        whole = (count >= 2) & (np.abs(ratio - count) <= tolerance)
    for wrong, problem in (
        (differences < 0, "runs backwards"),
        (differences == 0, "repeats"),
        (~even & ~whole if gaps == "missing" else ~even, "jumps"),
    ):
        if len(found := np.flatnonzero(wrong)):
            at = int(found[0])
            way_out = "" if problem != "jumps" or not whole[found].all() else (
                ", or use --time_gaps=missing, which adds the frames that are left out as missing"
            )  # fmt: skip
            raise DataError(
                f"{name}: 'time' {problem} at frame {at + 1}, from {times[at]:.9g} to "
                f"{times[at + 1]:.9g} ({len(found)} such steps; the usual one is {usual:.6g}); "
                f"expected evenly spaced times. Cut the recording there into several{way_out}"
            )
    rows = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    if rows[-1] + 1 > LONGEST * len(times):
        at = int(differences.argmax())
        raise DataError(
            f"{name}: 'time' leaves out {rows[-1] + 1 - len(times)} frames and has {len(times)} "
            f"(the longest gap is before frame {at + 1}, from {times[at]:.9g} to "
            f"{times[at + 1]:.9g}); expected a recording without such gaps. Cut it there into "
            "several, or correct its times"
        )
    return rows, float(times[-1] - times[0]) / float(rows[-1]), slack


def _seconds_per_unit(
    times: np.ndarray, step: float, unit: object, fps: float | None, name: str
) -> float | None:
    """Return the length in seconds of the unit of the times; None if they count frames.

    Files without a unit may count frames, but not if the steps are below 1.
    """
    word = str(unit).strip().lower()
    if unit is not None and word in SECONDS:
        return SECONDS[word]
    if word in ("frames", "frame"):
        if step < 1 - TOLERANCE:
            raise DataError(
                f"{name}: 'time' has steps of {step:.6g}, but the attribute 'time_unit' is "
                f"{str(unit)!r}; expected whole numbers of frames. Write 'seconds' if it is in "
                "seconds"
            )
        return None
    if unit is None:
        if step < 1:
            return 1.0
        for seconds in (1.0, 1e-3):
            if fps is not None and abs(fps * step * seconds - 1) <= TOLERANCE:
                return seconds
        if (times == np.rint(times)).all():
            return None
    raise DataError(
        f"{name}: the unit of 'time' is not known: the attribute 'time_unit' is "
        f"{'missing' if unit is None else repr(str(unit))} and the steps are {step:.6g}; expected "
        "'seconds' or 'frames'. Add or correct the attribute"
    )
