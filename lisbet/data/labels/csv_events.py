"""Tables of events: behavior (or behaviour), start_time, end_time in seconds."""

from pathlib import Path

import pandas as pd

from lisbet.core.errors import DataError
from lisbet.data.files.limits import require_csv
from lisbet.data.labels._events import Event, labels_of
from lisbet.data.labels._labels import ALL, Choice, LabelReader, Labels, require_subject
from lisbet.data.labels._table import (
    SEPARATORS,
    Layout,
    encoding_of,
    find_header,
    first_rows,
    read_table,
    recognise,
    seconds,
)

COLUMNS = ("behavior", "start_time", "end_time")


def _read(
    file: Path, frames: int, fps: float | None, start_s: float = 0.0, *, choice: Choice = ALL
) -> Labels:
    table = _table(file, choice)
    rows = zip(
        table["behavior"].str.strip(),
        seconds(table, "start_time", file),
        seconds(table, "end_time", file),
        strict=True,
    )
    events = [Event(*row) for row in rows]
    return labels_of(events, frames, fps, file, start_s=start_s, slack=choice.slack)


def _names(file: Path, *, choice: Choice = ALL) -> tuple[str, ...]:
    return tuple(_table(file, choice)["behavior"].str.strip().unique().tolist())


def _table(file: Path, choice: Choice) -> pd.DataFrame:
    require_csv(file, text=True)  # before the header is searched
    layout = find_header(file, _is_header)
    if layout is None:
        raise _without_header(file)
    columns = tuple(_name(column) for column in layout.columns)
    if double := [name for name in (*COLUMNS, "subject") if columns.count(name) > 1]:
        raise DataError(f"{file.name}: the column {double[0]} is there twice; remove one of them")
    layout = Layout(layout.encoding, layout.separator, columns, layout.skip)
    table = read_table(file, layout, times=COLUMNS[1:])
    unnamed = table.index[table["behavior"].str.strip() == ""]
    if len(unnamed):
        raise DataError(
            f"{file.name}: behavior of row {unnamed[0] + 1} is empty; expected the name of a "
            "behaviour. Name it, or remove the row"
        )
    if choice.subject is None:
        return table
    if "subject" not in table:
        raise DataError(
            f"{file.name} has no column subject, so --subject={choice.subject} cannot apply; "
            "leave it out, or add the column"
        )
    subjects = table["subject"].str.strip()
    require_subject(choice.subject, sorted(subjects.unique()), file)
    return table[subjects == choice.subject]


def _without_header(file: Path) -> DataError:
    """Build the error for a file without the columns, naming those of its first row."""
    if file.stat().st_size == 0:
        return DataError(f"{file.name} cannot be read as a table: it is empty")
    encoding = encoding_of(file)
    rows = [first_rows(file, encoding, separator) for separator in SEPARATORS]
    firsts = [next((row for row in found if any(row)), [""]) for found in rows]
    found = [_name(column) for column in max(firsts, key=len)]
    missing = [column for column in COLUMNS if column not in found]
    return DataError(
        f"{file.name}: no column {', '.join(missing)} (found: {', '.join(found)}); expected a "
        "table with these columns, separated by comma, semicolon or tab"
    )


def _name(column: str) -> str:
    name = column.lower()
    return "behavior" if name == "behaviour" else name


def _is_header(cells: set[str]) -> bool:
    return set(COLUMNS) <= {_name(cell) for cell in cells}


READER = LabelReader(
    patterns=tuple(
        f"{name}.{suffix}"
        for name in ("annotations*", "manual_scoring*", "*events*")
        for suffix in ("csv", "tsv")
    ),
    read=_read,
    names=_names,
    events=True,
    recognises=lambda file: recognise(file, _is_header),
    title="a table of events",
)
