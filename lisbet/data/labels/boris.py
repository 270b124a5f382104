"""Exports of BORIS: tabular events, before version 8 and since, and aggregated events."""

import math
from pathlib import Path

import pandas as pd

from lisbet.core.errors import DataError
from lisbet.data.files.limits import require_csv
from lisbet.data.labels._events import Event, labels_of
from lisbet.data.labels._labels import ALL, Choice, LabelReader, Labels, require_subject
from lisbet.data.labels._observations import OFFSET, Observed, observed, rates_of, stripped
from lisbet.data.labels._table import (
    SEPARATORS,
    encoding_of,
    find_header,
    first_rows,
    read_table,
    recognise,
    seconds,
)

KIND_COLUMNS = ("Status", "Behavior type")
START, STOP = "Start (s)", "Stop (s)"
ID = "Observation id"
EXPORT = (
    "in BORIS, choose Observations > Export events > Tabular events (or Aggregated events), as CSV "
    "or TSV"
)
UNKNOWN = ("", "NA", "NAN")


def _read(
    file: Path, frames: int, fps: float | None, start_s: float = 0.0, *, choice: Choice = ALL
) -> Labels:
    rows = rows_of(_table(file), choice, file)
    return labels_of_rows(rows, frames, fps, file, start_s=start_s, slack=choice.slack)


def labels_of_rows(
    rows: Observed, frames: int, fps: float | None, file: Path, *, start_s: float, slack: int
) -> Labels:
    """Turn the rows of a recording into behaviours frame by frame; see `LabelReader`.

    Raises
    ------
    DataError
        If the frame rate is not known, or events are not in pairs or leave the recording.
    """
    stated = rows.rates[0] if len(rows.rates) == 1 else None
    if fps is None:
        if len(rows.rates) > 1:
            rates = ", ".join(f"{rate:g}" for rate in rows.rates)
            raise DataError(
                f"{file.name}: FPS has several values, {rates}; expected one frame rate. Give that "
                "of the recording with --fps"
            )
        fps = stated
    events = _events(rows, file)
    labels = labels_of(events, frames, fps, file, start_s=start_s, slack=slack)
    known = stated if stated is not None and 0 < stated < math.inf else None
    return Labels(
        labels.behaviors,
        labels.active,
        fps=known,
        warnings=labels.warnings,
        notes=(*rows.notes, *labels.notes),
    )


def _names(file: Path, *, choice: Choice = ALL) -> tuple[str, ...]:
    return tuple(rows_of(_table(file), choice, file).table["Behavior"].unique().tolist())


def _frame_rate(file: Path) -> float | None:
    """Return the frame rate that all rows state; None without one."""
    rates = rates_of(_table(file))
    return rates[0] if len(rates) == 1 and 0 < rates[0] < math.inf else None


def rows_of(table: pd.DataFrame, choice: Choice, file: Path) -> Observed:
    """Return the rows of a recording, and of a subject.

    Raises
    ------
    DataError
        If it is not clear which they are.
    """
    rows = observed(table, choice.recording, file, shared=choice.shared)
    if choice.subject is None:
        return rows
    if "Subject" not in table:
        raise DataError(
            f"{file.name} has no column Subject, so --subject={choice.subject} cannot apply; leave "
            "it out"
        )
    require_subject(choice.subject, sorted(rows.table["Subject"].unique()), file)
    return rows.only(rows.table["Subject"] == choice.subject)


def _table(file: Path) -> pd.DataFrame:
    """Read an export, with names without white space around, and what is said before it."""
    require_csv(file, text=True)  # before the preamble is searched line by line
    layout = find_header(file, _is_header)
    if layout is None:
        raise DataError(f"{file.name} is no tabular export of BORIS: {_what(file)}")
    table = read_table(file, layout, times=("Time", START, STOP))
    preamble = {
        row[0]: row[1]
        for row in first_rows(file, layout.encoding, layout.separator)[: layout.skip]
        if len(row) > 1
    }
    for column in map(str, table.columns):
        if column in ("Behavior", "Subject", *KIND_COLUMNS) or column.startswith("Modif"):
            table[column] = stripped(table[column])
    if ID not in table and ID in preamble:
        table = table.assign(**{ID: preamble[ID]})
    if OFFSET not in table and OFFSET in preamble:
        table = table.assign(**{OFFSET: preamble[OFFSET]})
    return table


def _is_header(cells: set[str]) -> bool:
    times = "Time" in cells or {START, STOP} <= cells
    return times and "Behavior" in cells and bool(set(KIND_COLUMNS) & cells)


def _what(file: Path) -> str:
    """Say what a file is instead of an export with the times of events."""
    encoding = encoding_of(file)
    rows = [row for separator in SEPARATORS for row in first_rows(file, encoding, separator)]
    if any(row and row[0].startswith("{") for row in rows[:1]):
        return f"it looks like a project file; {EXPORT}"
    for row in rows:
        cells = {cell.lower() for cell in row}
        if any(cell.startswith(("total duration", "total number of occ")) for cell in cells):
            return f"it is a time budget, which has no times of events; {EXPORT}"
    return (
        f"no line with the columns Time, Behavior and {' or '.join(KIND_COLUMNS)} (or Behavior, "
        f"Behavior type, {START} and {STOP}); {EXPORT}"
    )


def _events(rows: Observed, file: Path) -> list[Event]:
    """Return the events in seconds from the first frame of the recording's video."""
    if START in rows.table and STOP in rows.table:
        return _aggregated(rows, file)
    return _paired(rows, file)


def _aggregated(rows: Observed, file: Path) -> list[Event]:
    """Return events that have a start and a stop in one row."""
    table = rows.table
    kinds = table["Behavior type"].str.upper()
    points = (kinds == "POINT") & table[STOP].str.upper().isin(UNKNOWN)
    table = table.assign(**{STOP: table[STOP].mask(points, table[START])})
    if not (known := kinds.isin(("POINT", "STATE"))).all():
        row = int((~known).to_numpy().argmax())
        raise DataError(
            f"{file.name}: Behavior type of row {table.index[row] + 1} is {kinds.iloc[row]!r}; "
            "expected STATE or POINT in a table of aggregated events"
        )
    starts = rows.since_start(seconds(table, START, file))
    stops = rows.since_start(seconds(table, STOP, file))
    return [
        Event(*event)
        for event in zip(table["Behavior"].tolist(), starts.tolist(), stops.tolist(), strict=True)
    ]


def _paired(rows: Observed, file: Path) -> list[Event]:
    """Pair starts and stops of each behaviour of each subject, with the same modifiers."""
    table = rows.table.assign(Time=rows.since_start(seconds(rows.table, "Time", file)))
    table = table.sort_values("Time", kind="stable")
    kind = next(column for column in KIND_COLUMNS if column in table)
    of_key = [name for name in map(str, table) if name == "Subject" or name.startswith("Modif")]
    keys = zip(*(table[column].tolist() for column in ("Behavior", *of_key)), strict=True)
    kinds = table[kind].str.upper().tolist()
    running: dict[tuple[str, ...], float] = {}
    events = []
    for key, time_s, what in zip(keys, table["Time"].tolist(), kinds, strict=True):
        behavior = key[0]
        if what == "POINT":
            events.append(Event(behavior, time_s, time_s))
        elif what == "START" and key not in running:
            running[key] = time_s
        elif what == "STOP" and key in running:
            events.append(Event(behavior, running.pop(key), time_s))
        else:
            raise DataError(
                f"{file.name}: {what or 'nothing'} of {behavior!r} at {time_s:g} s, which "
                f"{'runs already' if key in running else 'is not running'}"
                f"{_details(key[1:])}"
            )
    if running:
        key, start_s = next(iter(running.items()))
        raise DataError(
            f"{file.name}: {key[0]!r} starts at {start_s:g} s and never stops{_details(key[1:])}"
        )
    return events


def _details(names: tuple[str, ...]) -> str:
    """Name the subject and modifiers of an event."""
    said = ", ".join(name for name in names if name)
    return f" (subject and modifiers: {said})" if said else ""


READER = LabelReader(
    patterns=("*boris*.csv", "*boris*.tsv"),
    read=_read,
    names=_names,
    frame_rate=_frame_rate,
    events=True,
    recognises=lambda file: recognise(file, _is_header),
    chooses=True,
    title="BORIS",
)
