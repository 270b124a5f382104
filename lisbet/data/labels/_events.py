"""Behaviours given as events with a beginning and an end."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lisbet.data.labels._labels import Labels
from lisbet.data.limits import require_csv
from lisbet.errors import DataError

SLACK_FRAMES = 1
"""An event may end so much after the last frame: videos are timed to the end of a frame."""

BEHAVIORS = 1000
"""Most behaviours of a file."""

ROUNDING = 1e-6
"""Times such as 0.1 s · 30 are whole frames, whatever floating point makes of them."""


@dataclass(frozen=True)
class Event:
    """A behaviour that was seen from one time to another, in seconds."""

    behavior: str
    start_s: float
    end_s: float


def labels_of(
    events: list[Event], frames: int, fps: float | None, file: Path, *, start_s: float = 0.0
) -> Labels:
    """Turn events into behaviours frame by frame.

    A frame belongs to an event that touches it: from floor(start·fps) up to ceil(end·fps), at least
    one frame; two behaviours that meet within a frame do not share it. The first frame is at
    `start_s` seconds of the video; what is before it is left out.

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
    if not 0 < fps < math.inf:
        raise DataError(
            f"{file.name}: the frame rate is {fps:g}; expected a positive number of frames per "
            "second. Correct it in the file"
        )
    behaviors = tuple(sorted({event.behavior for event in events}))
    if len(behaviors) > BEHAVIORS:
        raise DataError(
            f"{file.name} names {len(behaviors)} behaviours, such as {behaviors[0]!r} and "
            f"{behaviors[1]!r}; expected at most {BEHAVIORS}. Check which column holds their names"
        )
    events = _since(start_s, events, fps, file)
    number = {name: index for index, name in enumerate(behaviors)}
    for event in events:
        _check_event(event, frames, fps, file, float(event.end_s) * fps)
    # How many events begin less end at each frame: linear also in events that overlap.
    changes = np.zeros((frames + 1, len(behaviors)), dtype=np.int32)
    first, last = np.array(_spans(events, fps), dtype=np.int64).reshape(-1, 2).T
    for event, end in zip(events, last.tolist(), strict=True):
        _check_event(event, frames, fps, file, end)
    columns = np.array([number[event.behavior] for event in events], dtype=np.int64)
    np.add.at(changes, (np.minimum(first, frames), columns), 1)
    np.add.at(changes, (np.minimum(last, frames), columns), -1)
    return Labels(behaviors, changes.cumsum(axis=0, dtype=np.int32)[:frames] > 0)


def _since(start_s: float, events: list[Event], fps: float, file: Path) -> list[Event]:
    """Return the events in seconds since the first frame of a recording that begins later."""
    if not start_s:
        return events
    for event in events:
        _check_event(event, 0, fps, file, 0.0)  # that it does not run backwards
    return [
        Event(event.behavior, max(event.start_s - start_s, 0.0), event.end_s - start_s)
        for event in events
        if event.end_s > start_s or event.start_s >= start_s
    ]


def _check_event(event: Event, frames: int, fps: float, file: Path, last: float) -> None:
    """Refuse an event that runs backwards or leaves the recording; `last` is in frames."""
    if not 0 <= event.start_s <= event.end_s:
        raise DataError(
            f"{file.name}: {event.behavior!r} runs from {event.start_s:g} s to {event.end_s:g} s"
        )
    if last > frames + SLACK_FRAMES:
        raise DataError(
            f"{file.name}: {event.behavior!r} ends at {event.end_s:g} s, but the recording "
            f"ends at {frames / fps:g} s ({frames} frames at {fps:g} per second)"
        )


def _spans(events: list[Event], fps: float) -> list[tuple[int, int]]:
    """Return the first frame of each event and the one after its last.

    Where one behaviour ends and another begins within a frame, the frame goes to the one that has
    more of it: events that do not overlap in time do not overlap in frames.
    """
    first = [math.floor(event.start_s * fps + ROUNDING) for event in events]
    last = [
        max(math.ceil(event.end_s * fps - ROUNDING), begin + 1)
        for event, begin in zip(events, first, strict=True)
    ]
    starting: dict[int, list[int]] = {}
    ending: dict[int, list[int]] = {}
    for number, (begin, end) in enumerate(zip(first, last, strict=True)):
        starting.setdefault(begin, []).append(number)
        ending.setdefault(end - 1, []).append(number)
    gives_up_first, gives_up_last = set[int](), set[int]()
    for frame in starting.keys() & ending.keys():
        begins = sorted(starting[frame], key=lambda number: events[number].start_s)
        ends = sorted(ending[frame], key=lambda number: events[number].end_s)
        short = {number for number in begins if last[number] - first[number] == 1}
        gives_up_first |= _later_starts(events, begins, ends, frame, fps) - short
        gives_up_last |= _earlier_ends(events, begins, ends, short, frame, fps)
    spans = []
    for number, (begin, end) in enumerate(zip(first, last, strict=True)):
        length = end - begin
        begin += number in gives_up_first and length > 1
        end -= number in gives_up_last and end - begin > 1
        spans.append((begin, end))
    return spans


def _later_starts(
    events: list[Event], begins: list[int], ends: list[int], frame: int, fps: float
) -> set[int]:
    """Return those events of `begins` before which another behaviour has more of the frame.

    Both lists are sorted by time. Of the events that end before one begins, the last one of another
    behaviour has most of the frame.
    """
    found, place = set(), 0
    latest: dict[str, float] = {}  # end of the last two behaviours, in seconds
    for number in begins:
        event = events[number]
        while place < len(ends) and events[ends[place]].end_s <= event.start_s:
            _remember(latest, events[ends[place]].behavior, events[ends[place]].end_s)
            place += 1
        before = [end_s for behavior, end_s in latest.items() if behavior != event.behavior]
        if before and _has_more(before[-1], event.start_s, frame, fps):
            found.add(number)
    return found


def _earlier_ends(
    events: list[Event],
    begins: list[int],
    ends: list[int],
    short: set[int],
    frame: int,
    fps: float,
) -> set[int]:
    """Return those events of `ends` after which another behaviour has more of the frame.

    An event of a single frame (`short`) keeps it.
    """
    found, place = set(), len(begins) - 1
    earliest: dict[str, float] = {}  # start of the first two behaviours, in seconds
    keeping: dict[str, float] = {}
    for number in reversed(ends):
        event = events[number]
        while place >= 0 and events[begins[place]].start_s >= event.end_s:
            other = events[begins[place]]
            _remember(earliest, other.behavior, other.start_s)
            if begins[place] in short:
                _remember(keeping, other.behavior, other.start_s)
            place -= 1
        after = [start_s for behavior, start_s in earliest.items() if behavior != event.behavior]
        if keeping.keys() - {event.behavior} or (
            after and not _has_more(event.end_s, after[-1], frame, fps)
        ):
            found.add(number)
    return found


def _remember(recent: dict[str, float], behavior: str, time_s: float) -> None:
    """Keep the times of the two behaviours that were seen last, the last one at the end."""
    recent.pop(behavior, None)
    recent[behavior] = time_s
    if len(recent) > 2:
        del recent[next(iter(recent))]


def _has_more(end_s: float, start_s: float, frame: int, fps: float) -> bool:
    """Whether what ends at `end_s` has more of a frame than what begins at `start_s`."""
    return end_s * fps - frame > frame + 1 - start_s * fps


def read_table(file: Path, skip: int = 0) -> pd.DataFrame:
    """Read a CSV file as text.

    Raises
    ------
    DataError
        If it is no table, or too large.
    """
    require_csv(file, text=True)
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
