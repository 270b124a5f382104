"""Behaviours given as events with a beginning and an end."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lisbet.data.labels._labels import Labels
from lisbet.errors import DataError

SLACK_FRAMES = 1
"""An event may end so much after the last frame: videos are timed to the end of a frame."""

ROUNDING = 1e-6
"""Times such as 0.1 s · 30 are whole frames, whatever floating point makes of them."""


@dataclass(frozen=True)
class Event:
    """A behaviour that was seen from one time to another, in seconds."""

    behavior: str
    start_s: float
    end_s: float


def labels_of(events: list[Event], frames: int, fps: float | None, file: Path) -> Labels:
    """Turn events into behaviours frame by frame.

    A frame belongs to an event that touches it: from floor(start·fps) up to ceil(end·fps), at least
    one frame; two behaviours that meet within a frame do not share it.

    Raises
    ------
    DataError
        Without a frame rate, or on events that run backwards or leave the recording.
    """
    if fps is None:
        raise DataError(
            f"{file.name}: neither it nor the recording tells the frame rate, which turns seconds "
            "into frames; pass --fps"
        )
    behaviors = tuple(sorted({event.behavior for event in events}))
    active = np.zeros((frames, len(behaviors)), dtype=bool)
    for event, (first, last) in zip(events, _spans(events, fps), strict=True):
        if not 0 <= event.start_s <= event.end_s:
            raise DataError(
                f"{file.name}: {event.behavior!r} runs from {event.start_s:g} s to "
                f"{event.end_s:g} s"
            )
        if last > frames + SLACK_FRAMES:
            raise DataError(
                f"{file.name}: {event.behavior!r} ends at {event.end_s:g} s, but the recording "
                f"ends at {frames / fps:g} s ({frames} frames at {fps:g} per second)"
            )
        active[first:last, behaviors.index(event.behavior)] = True
    return Labels(behaviors, active)


def _spans(events: list[Event], fps: float) -> list[tuple[int, int]]:
    """Return the first frame of each event and the one after its last.

    Where one behaviour ends and another begins within a frame, the frame goes to the one that has
    more of it: events that do not overlap in time do not overlap in frames.
    """
    spans = []
    for event in events:
        first = math.floor(event.start_s * fps + ROUNDING)
        spans.append([first, max(math.ceil(event.end_s * fps - ROUNDING), first + 1)])
    ending: dict[int, list[int]] = {}
    for number, (_, last) in enumerate(spans):
        ending.setdefault(last - 1, []).append(number)
    for number, event in enumerate(events):
        frame = spans[number][0]
        for other in ending.get(frame, ()):
            before = events[other]
            if before.behavior == event.behavior or before.end_s > event.start_s:
                continue
            more_before = before.end_s * fps - frame > frame + 1 - event.start_s * fps
            if more_before and spans[number][1] - spans[number][0] > 1:
                spans[number][0] = frame + 1
            elif spans[other][1] - spans[other][0] > 1:
                spans[other][1] = frame
    return [(first, last) for first, last in spans]


def read_table(file: Path, skip: int = 0) -> pd.DataFrame:
    """Read a CSV file as text.

    Raises
    ------
    DataError
        If it is no table.
    """
    try:
        return pd.read_csv(file, skiprows=skip, dtype=str, keep_default_na=False)
    except (ValueError, pd.errors.ParserError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{file.name} cannot be read as a table: {reason}") from error


def seconds(table: pd.DataFrame, column: str, file: Path) -> np.ndarray:
    """Return a column of times.

    Raises
    ------
    DataError
        Naming the row that holds no time.
    """
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=float)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        text = table[column].iloc[bad[0]]
        raise DataError(f"{file.name}: {column} of row {bad[0] + 1} is {text!r}, not a time")
    return values
