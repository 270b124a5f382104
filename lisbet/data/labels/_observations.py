"""Which rows of a BORIS export belong to a recording, and when its video begins in their times."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from lisbet.core.errors import DataError
from lisbet.data.labels._labels import same_name

MEDIA = ("Media file name", "Media file path", "Media file")
OFFSET = "Time offset (s)"
DURATIONS = "Media duration (s)"
RATES = ("FPS", "FPS (frame/s)")
SHOWN = 10
"""At most so many observations are named in one message."""


@dataclass(frozen=True)
class Observed:
    """The rows of a recording.

    Parameters
    ----------
    table : pandas.DataFrame
        Those rows.
    start_s : float
        Time, in the file, of the first frame of the recording's video.
    rates : tuple of float
        Frame rates that the rows state, each once, NaN for text that is no number; empty if they
        state none.
    notes : tuple of str
        How the rows were chosen.
    """

    table: pd.DataFrame
    start_s: float = 0.0
    rates: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()

    def since_start(self, times: np.ndarray) -> np.ndarray:
        """Return times in seconds from the first frame of the video."""
        # Rounded, as a difference of decimal fractions may be -1e-16 instead of 0.
        return np.round(times - self.start_s, 9) if self.start_s else times

    def only(self, rows: pd.Series) -> "Observed":
        """Keep some rows."""
        return replace(self, table=self.table[rows])


def media_column(table: pd.DataFrame) -> str | None:
    """Return the column that holds the video of each event; None if there is none."""
    return next((column for column in MEDIA if column in table), None)


def observed(
    table: pd.DataFrame, recording: tuple[str, ...], file: Path, *, shared: bool = False
) -> Observed:
    """Choose the rows of a recording.

    Parameters
    ----------
    table : pandas.DataFrame
        Events as text, one or two rows each.
    recording : tuple of str
        Names that the recording's video may have, the most certain first.
    file : Path
        The file, for messages.
    shared : bool
        Whether all rows may belong to other recordings.

    Raises
    ------
    DataError
        If there are several observations or videos (or one, if `shared`), and not exactly one is
        the recording's.
    """
    media = media_column(table)
    columns = [name for name in ("Observation id", "Source", media) if name and name in table]
    if not len(table) or not columns:
        return _of_one(table, None, None, file)
    keys = pd.DataFrame({column: stripped(table[column]) for column in columns})
    rows = keys.drop_duplicates().itertuples(index=False, name=None)
    groups = [_Group.of(dict(zip(columns, row, strict=True)), media) for row in rows]
    if len(groups) == 1 and not shared:
        return _of_one(table, None, None, file)
    chosen, name, certain = _matching(groups, recording)
    if not certain:
        raise _ambiguous(groups, chosen, recording, file)
    chosen_keys = [tuple(group.row[column] for column in columns) for group in chosen]
    own = pd.MultiIndex.from_frame(keys).isin(chosen_keys)
    whole = len(chosen) == sum(group.origin == chosen[0].origin for group in groups)
    text = chosen[0].text if len(chosen) == 1 else f"observation {chosen[0].observation!r}"
    note = f"{file.name}: events of {text}, as the recording may be named {name!r}"
    return _of_one(table[own], None if whole else chosen[0].media, note, file)


@dataclass(frozen=True)
class _Group:
    """Rows of the same observation and video."""

    row: dict[str, str]
    observation: str
    source: str
    media: str

    @classmethod
    def of(cls, row: dict[str, str], media: str | None) -> "_Group":
        source = row.get("Source", "")
        video = row[media] if media is not None else source.rpartition(":")[2]
        return cls(row, row.get("Observation id", ""), source, video)

    @property
    def origin(self) -> tuple[str, str]:
        """What has one count of time: the observation and all of its videos."""
        return self.observation, self.source

    @property
    def text(self) -> str:
        video = file_name(self.media) or "no video"
        return f"observation {self.observation!r} ({video})" if self.observation else video


def stripped(column: pd.Series) -> pd.Series:
    """Return a column of text without white space at the ends of its cells."""
    return column.map({text: text.strip() for text in column.unique()})


def file_name(path: str) -> str:
    """Return the name of a file whose path was written on any system."""
    return path.replace("\\", "/").rpartition("/")[2]


def stem(path: str) -> str:
    """Return the name of a video without its extension."""
    return Path(file_name(path)).stem


def _matching(groups: list[_Group], recording: tuple[str, ...]) -> tuple[list[_Group], str, bool]:
    """Return the groups whose video, or else whose observation, has a name of the recording.

    Also the name, and whether they are one video or one observation.
    """
    for name in recording:
        if found := [group for group in groups if same_name(stem(group.media), name)]:
            return found, name, len(found) == 1
    for name in recording:
        if found := [group for group in groups if same_name(group.observation, name)]:
            return found, name, len({group.origin for group in found}) == 1
    return [], "", False


def _ambiguous(
    groups: list[_Group], chosen: list[_Group], recording: tuple[str, ...], file: Path
) -> DataError:
    texts = [group.text for group in (chosen or groups)]
    listed = ", ".join(texts[:SHOWN])
    if len(texts) > SHOWN:
        listed += f" and {len(texts) - SHOWN} more"
    which = f"{len(chosen)} of them are" if chosen else "none is"
    count = f"{len(groups)} observations or videos" if len(groups) > 1 else "one observation"
    names = " or ".join(map(repr, recording)) or "that of the recording"
    return DataError(
        f"{file.name} has events of {count}; {which} named {names}: {listed}. "
        "Export one file for each video, or name the tracking file or its folder as the video"
    )


def _of_one(table: pd.DataFrame, media: str | None, note: str | None, file: Path) -> Observed:
    """Return the rows of one observation with its start and frame rates."""
    notes: tuple[str, ...] = () if note is None else (note,)
    stated = table[OFFSET].iloc[0] if OFFSET in table and len(table) else ""
    offset_s = _number(stated) or 0.0
    if offset_s:
        notes += (f"{file.name}: a time offset of {offset_s:g} s is subtracted",)
    place, before_s = None, 0.0
    if media is not None:
        place, before_s = _place(table, media, file)
    rates = rates_of(table, place)
    return Observed(table, offset_s + before_s, rates, notes)


def _place(table: pd.DataFrame, media: str, file: Path) -> tuple[int, float]:
    """Return the number of a video in its observation, and the duration of those before it.

    BORIS counts the time of an observation through all of its videos, one after the other.
    """
    first = table.iloc[0]
    names = [stem(path) for path in first.get("Source", "").partition(":")[2].split(";")]
    durations = [_number(text) for text in first.get(DURATIONS, "").split(";")]
    place = next((n for n, name in enumerate(names) if same_name(name, stem(media))), -1)
    before = durations[:place]
    if place < 0 or len(names) != len(durations) or not all(before):
        raise DataError(
            f"{file.name}: {file_name(media)!r} is one of several videos of one observation, whose "
            "times run through all of them; expected the columns Source and "
            f"{DURATIONS}, which say when it begins. Export the events with a newer BORIS, or "
            "code each video in an observation of its own"
        )
    return place, float(sum(value for value in before if value))


def rates_of(table: pd.DataFrame, place: int | None = None) -> tuple[float, ...]:
    """Return the frame rates of some rows, NaN for text; "NA" means unknown."""
    column = next((name for name in RATES if name in table), None)
    if column is None:
        return ()
    found: dict[float, None] = {}
    for text in table[column].unique():
        parts = [part.strip() for part in text.split(";")]
        if place is not None and place < len(parts):
            parts = [parts[place]]
        for part in parts:
            if part.upper() not in ("", "NA", "NAN", "NONE"):
                value = _number(part)
                found[math.nan if value is None else value] = None
    return tuple(found)


def _number(text: str) -> float | None:
    try:
        return float(text.strip().replace(",", "."))
    except ValueError:
        return None
