"""Behaviours given as events with a beginning and an end."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lisbet.core.errors import DataError
from lisbet.data.labels._labels import SLACK_FRAMES, Labels

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
    events: list[Event],
    frames: int,
    fps: float | None,
    file: Path,
    *,
    start_s: float = 0.0,
    slack: int = SLACK_FRAMES,
) -> Labels:
    """Turn events into behaviours frame by frame.

    A frame belongs to an event that touches it: from floor(start·fps) up to ceil(end·fps), at least
    one frame; two behaviours that meet within a frame do not share it.

    Parameters
    ----------
    events : list of Event
        In seconds.
    frames : int
        Length of the recording.
    fps : float or None
        Its frame rate.
    file : Path
        Where the events come from, for messages.
    start_s : float
        Time of the first frame in the events: what is before it is left out.
    slack : int
        Frames after the last one in which an event may end.

    Raises
    ------
    DataError
        Without a frame rate, or on events that run backwards or leave the recording.
    """
    fps = _known_rate(fps, file)
    behaviors = tuple(sorted({event.behavior for event in events}))
    if len(behaviors) > BEHAVIORS:
        raise DataError(
            f"{file.name} names {len(behaviors)} behaviours, such as {behaviors[0]!r} and "
            f"{behaviors[1]!r}; expected at most {BEHAVIORS}. Check which column holds their names"
        )
    events = _since(start_s, events, file)
    number = {name: index for index, name in enumerate(behaviors)}
    for event in events:
        _check_event(event, frames, fps, file, float(event.end_s) * fps, slack)
    # How many events begin less end at each frame: linear also in events that overlap.
    changes = np.zeros((frames + 1, len(behaviors)), dtype=np.int32)
    first, last = np.array(_spans(events, fps), dtype=np.int64).reshape(-1, 2).T
    for event, end in zip(events, last.tolist(), strict=True):
        _check_event(event, frames, fps, file, end, slack)
    columns = np.array([number[event.behavior] for event in events], dtype=np.int64)
    np.add.at(changes, (np.minimum(first, frames), columns), 1)
    np.add.at(changes, (np.minimum(last, frames), columns), -1)
    active = changes.cumsum(axis=0, dtype=np.int32)[:frames] > 0
    beyond = [events[number] for number in np.flatnonzero(first >= frames)]
    return Labels(behaviors, active, warnings=_warnings(beyond, file), notes=_notes(events, file))


def _known_rate(fps: float | None, file: Path) -> float:
    """Return the frame rate, or refuse to go without one."""
    if fps is None:
        raise DataError(
            f"{file.name}: the frame rate is unknown: neither this file nor the recording states "
            "it, and events in seconds need it; give it, such as --fps=30"
        )
    if not 0 < fps < math.inf:
        raise DataError(
            f"{file.name}: the frame rate is {fps:g}; expected a positive number of frames per "
            "second. Correct it in the file, or pass --fps"
        )
    return fps


def _warnings(beyond: list[Event], file: Path) -> tuple[str, ...]:
    """Warn of events that begin after the last frame."""
    if not beyond:
        return ()
    event = beyond[0]
    more = f" ({len(beyond)} such events)" if len(beyond) > 1 else ""
    return (
        f"{file.name}: {event.behavior!r} begins at {event.start_s:g} s, after the last frame "
        f"of the recording, so it is left out{more}",
    )


def _notes(events: list[Event], file: Path) -> tuple[str, ...]:
    """Name events without a duration."""
    points = Counter(event.behavior for event in events if event.start_s == event.end_s)
    if not points:
        return ()
    counts = ", ".join(f"{name!r} ({count})" for name, count in sorted(points.items()))
    return (f"{file.name}: events without a duration take one frame each: {counts}",)


def _since(start_s: float, events: list[Event], file: Path) -> list[Event]:
    """Return the events in seconds from the first frame of a recording that begins later."""
    if not start_s:
        return events
    for event in events:
        _check_order(event, file)
    # Rounded, as a difference of decimal fractions may be -1e-16 instead of 0.
    return [
        Event(
            event.behavior,
            max(round(event.start_s - start_s, 9), 0.0),
            round(event.end_s - start_s, 9),
        )
        for event in events
        if event.end_s > start_s or event.start_s >= start_s
    ]


def _check_order(event: Event, file: Path) -> None:
    """Refuse an event that runs backwards or begins before the video."""
    if not 0 <= event.start_s <= event.end_s:
        raise DataError(
            f"{file.name}: {event.behavior!r} runs from {event.start_s:g} s to {event.end_s:g} s"
        )


def _check_event(
    event: Event, frames: int, fps: float, file: Path, last: float, slack: int
) -> None:
    """Refuse an event that runs backwards or leaves the recording; `last` is in frames."""
    _check_order(event, file)
    if last > frames + slack:
        needed = last - frames
        allow = f", or accept it with --event_slack={math.ceil(needed)}" if needed < 1e6 else ""
        raise DataError(
            f"{file.name}: {event.behavior!r} ends at {event.end_s:g} s, but the recording "
            f"ends at {frames / fps:g} s ({frames} frames at {fps:g} per second). Check that file "
            f"and frame rate belong to the recording; shorten the event{allow}"
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
