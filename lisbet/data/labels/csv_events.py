"""Tables of events: behavior, start_time, end_time in seconds."""

from pathlib import Path

import pandas as pd

from lisbet.data.labels._events import Event, labels_of, read_table, seconds
from lisbet.data.labels._labels import LabelReader, Labels
from lisbet.errors import DataError

COLUMNS = ("behavior", "start_time", "end_time")


def _read(file: Path, frames: int, fps: float | None, start_s: float = 0.0) -> Labels:
    table = _table(file)
    rows = zip(
        table["behavior"].str.strip(),
        seconds(table, "start_time", file),
        seconds(table, "end_time", file),
        strict=True,
    )
    return labels_of([Event(*row) for row in rows], frames, fps, file, start_s=start_s)


def _names(file: Path) -> tuple[str, ...]:
    return tuple(_table(file)["behavior"].str.strip().unique().tolist())


def _table(file: Path) -> pd.DataFrame:
    table = read_table(file).rename(columns=lambda name: name.strip().lower())
    if missing := [column for column in COLUMNS if column not in table]:
        found = ", ".join(map(str, table.columns))
        raise DataError(f"{file.name}: no column {', '.join(missing)} (found: {found})")
    return table


READER = LabelReader(
    patterns=("annotations*.csv", "manual_scoring*.csv", "*events*.csv"),
    read=_read,
    names=_names,
    events=True,
)
