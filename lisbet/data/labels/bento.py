"""Annotation files of Bento and MARS (``.annot``): bouts of behaviours in channels."""

import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from lisbet.core.errors import DataError
from lisbet.data.files.limits import require_memory, require_regular
from lisbet.data.files.text_tables import decode
from lisbet.data.labels._events import Event, labels_of
from lisbet.data.labels._labels import ALL, Choice, LabelReader, Labels, require_subject

HEADER = "bento annotation file"
CHANNEL = re.compile(r"(.+?)\s*-{3,}\s*")
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
BOUT = re.compile(rf"({NUMBER})\s+({NUMBER})\s+({NUMBER})")
SETTING = re.compile(
    rf"annotation (start frame|stop frame|start time|stop time|framerate)\s*:\s*({NUMBER})", re.I
)
LISTS = re.compile("list of (channels|annotations) *:", re.I)
TEXT_GROWTH = 8
NEAR = 0.05
"""How far the time of the first frame may be from one frame, in frames."""
SAME_RATE = 0.01
"""Two frame rates that differ by less are taken for the same."""


@dataclass(frozen=True)
class _Bout:
    """A line of a table; the numbers are those of the file."""

    channel: str
    behavior: str
    start: float
    stop: float


@dataclass
class _File:
    """What a file holds."""

    settings: dict[str, float] = field(default_factory=dict)
    bouts: list[_Bout] = field(default_factory=list)
    seconds: bool = False

    @property
    def fps(self) -> float | None:
        """The frame rate that the file states."""
        rate = self.settings.get("framerate", 0.0)
        return rate if 0 < rate < math.inf else None


def _read(
    file: Path, frames: int, fps: float | None, start_s: float = 0.0, *, choice: Choice = ALL
) -> Labels:
    content = _content(file)
    bouts = _of_subject(content.bouts, choice, file)
    stated = content.fps
    if stated is None and fps is None:
        raise DataError(
            f"{file.name} states no 'Annotation framerate', and the recording has none; give it, "
            "such as --fps=30"
        )
    known = stated or fps or 0.0
    events = _events(content, bouts, known)
    same = fps is not None and stated is not None and abs(stated / fps - 1) <= SAME_RATE
    # Numbers of frames stay what they are where the two rates differ by their rounding.
    rate = stated if fps is None or (same and not content.seconds) else fps
    labels = labels_of(events, frames, rate, file, start_s=start_s, slack=choice.slack)
    labels = replace(labels, fps=stated)
    return _with_warnings(labels, content, bouts, frames, known, file)


def _names(file: Path, *, choice: Choice = ALL) -> tuple[str, ...]:
    bouts = _of_subject(_content(file).bouts, choice, file)
    return tuple(dict.fromkeys(bout.behavior for bout in bouts))


def _frame_rate(file: Path) -> float | None:
    return _content(file).fps


def _of_subject(bouts: list[_Bout], choice: Choice, file: Path) -> list[_Bout]:
    """Return the bouts of a channel, which --subject names."""
    if choice.subject is None:
        return bouts
    require_subject(choice.subject, sorted({bout.channel for bout in bouts}), file)
    return [bout for bout in bouts if bout.channel == choice.subject]


def _events(content: _File, bouts: list[_Bout], fps: float) -> list[Event]:
    """Return bouts in seconds from the first frame of the video.

    Frames count from 1 (from 0 where a 0 comes up), and the last one belongs to the bout. Seconds
    that Bento makes of them are frames divided by the frame rate, so that the first frame of the
    video is at one frame, not at 0: the time at which the annotation starts tells.
    """
    if content.seconds:
        first = content.settings.get("start time", 0.0)
        before = first if abs(first * fps - 1) <= NEAR else 0.0
        return [
            Event(b.behavior, round(max(b.start - before, 0.0), 9), b.stop)
            if b.start >= 0 else Event(b.behavior, b.start, b.stop)
            for b in bouts
        ]  # fmt: skip
    starts = [bout.start for bout in content.bouts]
    zero = 0.0 in starts or content.settings.get("start frame") == 0
    origin = 0 if zero else 1
    return [Event(b.behavior, (b.start - origin) / fps, (b.stop - origin + 1) / fps) for b in bouts]


def _with_warnings(
    labels: Labels, content: _File, bouts: list[_Bout], frames: int, fps: float, file: Path
) -> Labels:
    """Tell what is not known of a recording that was annotated in part, or by several."""
    channels = sorted({bout.channel for bout in bouts})
    if len(channels) > 1:
        labels = labels.warned(
            f"{file.name} has bouts in the channels {', '.join(channels)}, which are taken "
            "together; choose one with --subject"
        )
    settings = content.settings
    first = settings.get("start frame", settings.get("start time", 0.0) * fps) - 1
    last = settings.get("stop frame", settings.get("stop time", math.inf) * fps)
    if first > 1 or last < frames - 1:
        shown = min(last, frames)
        labels = labels.warned(
            f"{file.name} was annotated from frame {max(first, 0):.0f} to {shown:.0f} of "
            f"{frames}; the other frames are taken for frames without any behaviour"
        )
    return labels


def _content(file: Path) -> _File:
    """Read a file.

    Raises
    ------
    DataError
        Naming the line that cannot be read.
    """
    require_regular(file)
    require_memory(file.name, TEXT_GROWTH * file.stat().st_size, "its text")
    text = decode(file.read_bytes()).replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    if not lines[0].strip().lower().startswith(HEADER):
        raise DataError(
            f"{file.name} begins with {lines[0][:60]!r}; expected 'Bento annotation file'. Save it "
            "in Bento again"
        )
    content = _File()
    numbers = _lines(lines[1:], content, file)
    decimal = any(re.search("[.eE]", number) for number in numbers)
    timed = not {"stop time", "start time"}.isdisjoint(content.settings)
    content.seconds = decimal
    if content.bouts and timed and not decimal:
        raise DataError(
            f"{file.name} states its start and stop in seconds, but its bouts are whole numbers, "
            "which may be frames or seconds; write seconds with a decimal point, or 'Annotation "
            "start frame' and 'Annotation stop frame' in the header"
        )
    if not text.endswith("\n") and content.bouts:
        _check_end(lines[-1], file, seconds=content.seconds)
    return content


def _lines(lines: list[str], content: _File, file: Path) -> list[str]:
    """Read the lines after the first; return the numbers of the bouts as they are written."""
    channel, behavior, listing = "", "", False
    numbers = list[str]()
    for number, raw in enumerate(lines, start=2):
        line = raw.strip()
        if not line:
            listing = False
        elif listing:
            continue
        elif LISTS.fullmatch(line):
            listing = True
        elif found := CHANNEL.fullmatch(line):
            channel, behavior = found[1], ""
        elif line.startswith(">"):
            behavior = line[1:].strip()
            if not channel or not behavior:
                raise _wrong(file, number, line, "a behaviour with a name, in a channel")
        elif channel and re.fullmatch(r"start\s+stop\s+duration", line, re.I):
            continue
        elif channel:
            bout = BOUT.fullmatch(line)
            if bout is None or not behavior:
                raise _wrong(file, number, line, "start, stop and duration of a behaviour")
            numbers += bout.groups()
            content.bouts.append(_Bout(channel, behavior, float(bout[1]), float(bout[2])))
        elif setting := SETTING.match(line):
            content.settings[setting[1].lower()] = float(setting[2])
    if not channel:
        raise DataError(
            f"{file.name} has no channel; expected a line such as 'Ch1----------' before the "
            "behaviours. The file may be cut off; save it in Bento again"
        )
    return numbers


def _wrong(file: Path, number: int, line: str, expected: str) -> DataError:
    return DataError(
        f"{file.name}: line {number} is {line[:60]!r}; expected {expected}. The file may be cut "
        "off there; correct the line, or save the file in Bento again"
    )


def _check_end(line: str, file: Path, *, seconds: bool) -> None:
    """Check the last line of a file that does not end with the end of a line."""
    bout = BOUT.fullmatch(line.strip())
    if bout is None:
        return
    start, stop, duration = map(float, bout.groups())
    difference = duration - (stop - start)
    whole = abs(difference) < 1e-3 * max(duration, 1) if seconds else difference in (0, 1)
    if not whole:
        raise DataError(
            f"{file.name} ends with {line.strip()!r}, of which the duration is not that from start "
            "to stop; the file is cut off there. Save it in Bento again"
        )


def _recognises(file: Path) -> bool:
    try:
        if not file.is_file():
            return False
        with file.open("rb") as stream:
            start = decode(stream.read(64))
    except OSError:
        return False
    return start.lstrip("\ufeff \r\n").lower().startswith(HEADER)


READER = LabelReader(
    patterns=("*.annot",),
    read=_read,
    names=_names,
    frame_rate=_frame_rate,
    events=True,
    recognises=_recognises,
    title="annotations of Bento",
)
