"""Tabular exports of BORIS, before version 8 (column Status) and since (column Behavior type)."""

import csv
from pathlib import Path

import pandas as pd

from lisbet.data.labels._events import Event, labels_of, read_table, seconds
from lisbet.data.labels._labels import LabelReader, Labels
from lisbet.data.limits import require_csv
from lisbet.errors import DataError

KIND_COLUMNS = ("Status", "Behavior type")
HEADER_LINES = 200
"""The older layout has a preamble before the table: lists of files and of variables."""


def _read(file: Path, frames: int, fps: float | None, start_s: float = 0.0) -> Labels:
    table = _table(file)
    kind = next(column for column in KIND_COLUMNS if column in table)
    if fps is None and "FPS" in table and len(table):
        fps = float(seconds(table, "FPS", file)[0])
    return labels_of(_events(table, kind, file), frames, fps, file, start_s=start_s)


def _names(file: Path) -> tuple[str, ...]:
    return tuple(_table(file)["Behavior"].unique().tolist())


def _frame_rate(file: Path) -> float | None:
    """Return the frame rate that all rows state; None without one."""
    table = _table(file)
    if "FPS" not in table:
        return None
    stated = set(";".join(table["FPS"]).replace(" ", "").split(";")) - {"", "NA", "nan"}
    rates = {float(rate) for rate in pd.to_numeric(pd.Series(sorted(stated)), errors="coerce")}
    rate = rates.pop() if len(rates) == 1 else 0.0
    return rate if 0 < rate < float("inf") else None


def _table(file: Path) -> pd.DataFrame:
    require_csv(file, text=True)  # before the preamble is searched line by line
    return read_table(file, skip=_preamble(file))


def _preamble(file: Path) -> int:
    """Return the number of lines before the table's header."""
    with file.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        for number, row in enumerate(csv.reader(stream)):
            if {"Time", "Behavior"} <= set(row) and set(KIND_COLUMNS) & set(row):
                return number
            if number > HEADER_LINES:
                break
    raise DataError(
        f"{file.name} is no tabular export of BORIS: no line with the columns Time, Behavior and "
        f"{' or '.join(KIND_COLUMNS)}"
    )


def _events(table: pd.DataFrame, kind: str, file: Path) -> list[Event]:
    """Pair starts and stops of each behaviour of each subject."""
    table = table.assign(Time=seconds(table, "Time", file)).sort_values("Time", kind="stable")
    subjects = table["Subject"] if "Subject" in table else [""] * len(table)
    running: dict[tuple[str, str], float] = {}
    events = []
    rows = zip(table["Time"], subjects, table["Behavior"], table[kind].str.upper(), strict=True)
    for time_s, subject, behavior, what in rows:
        key = (subject, behavior)
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
            )
    if running:
        (_, behavior), start_s = next(iter(running.items()))
        raise DataError(f"{file.name}: {behavior!r} starts at {start_s:g} s and never stops")
    return events


READER = LabelReader(patterns=("*boris*.csv",), read=_read, names=_names, events=True,
                     frame_rate=_frame_rate)  # fmt: skip
