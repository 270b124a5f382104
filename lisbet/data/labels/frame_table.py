"""Tables with one row for each frame and one column of 0 and 1 for each behaviour.

DeepEthogram, SimBA and others write them. A table of SimBA holds coordinates and features as well:
there, the behaviours are the last columns, or those with a column of probabilities.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lisbet.core.errors import DataError
from lisbet.data.files.limits import require_csv
from lisbet.data.labels._labels import ALL, Choice, LabelReader, Labels
from lisbet.data.labels._table import SEPARATORS, encoding_of, first_rows

INDEX = re.compile(r"|unnamed: *\d+|index|frames?|frame[ _]?(number|index|id|no)|image index", re.I)
"""Names of a first column that numbers the rows; pandas writes none."""
TIME = re.compile(r"(time|seconds|timestamp)s?([ _(\[]+s(ec|econds)?[)\]]?)?", re.I)
BACKGROUND = "background"
"""DeepEthogram's column of frames without any behaviour."""
PROBABILITY = "Probability_"
POSE = re.compile(r".+_(x|y|p|likelihood)", re.I)
FEATURES = re.compile("Low_prob_detections.*|Sum_probabilities.*", re.I)
"""Features of SimBA that may hold only 0 and 1; they come before the behaviours."""
BINARY = frozenset(("0", "1", "0.0", "1.0"))
TIME_TOLERANCE = 0.5
"""How far the time of a row may be from that of its frame, in frames."""


@dataclass(frozen=True)
class _Layout:
    """Where the behaviours of a table are.

    Parameters
    ----------
    columns : list of str
        The header.
    first : int
        Number of columns before the first one that may be a behaviour: of row numbers and times.
    behaviors : list of int
        Columns that may be behaviours, from their first rows.
    simba : bool
        Whether other columns are to be expected.
    """

    separator: str
    encoding: str
    columns: list[str]
    first: int
    behaviors: list[int]
    simba: bool


def _layout(file: Path) -> _Layout | None:
    """Find the behaviours in the first rows of a table; None if it is none of this format."""
    encoding = encoding_of(file)
    rows = {separator: first_rows(file, encoding, separator) for separator in SEPARATORS}
    separator = max(rows, key=lambda mark: len(rows[mark][0]) if rows[mark] else 0)
    found = [row for row in rows[separator] if any(row)]
    if len(found) < 2:
        return None
    columns, body = found[0], found[1:]
    while columns and not columns[-1] and len(columns) > 1:
        del columns[-1]
    first = 0
    while first < min(len(columns), 2) and (
        INDEX.fullmatch(columns[first]) or TIME.fullmatch(columns[first])
    ):
        first += 1
    if len(body) > 1:
        body = [row for row in body if len(row) >= len(columns)]  # the last may be cut off
    simba = sum(bool(POSE.fullmatch(column)) for column in columns) >= 6
    binary = [
        number
        for number in range(first, len(columns))
        if body and all(row[number] in BINARY for row in body)
    ]
    if not simba:
        # A damaged row is an error of the file: the first one tells what it is.
        whole = len(body) > 0 and all(cell in BINARY for cell in body[0][first : len(columns)])
        behaviors = list(range(first, len(columns))) if whole else []
    elif probable := [c.removeprefix(PROBABILITY) for c in columns if c.startswith(PROBABILITY)]:
        behaviors = sorted(columns.index(name) for name in probable if name in columns)
    else:
        behaviors = _last_of(columns, binary)
    names = [columns[number] for number in behaviors]
    if not names or any(re.fullmatch(r"[-+.\d]*", name) for name in names):
        return None  # a table without names
    return _Layout(separator, encoding, columns, first, behaviors, simba)


def _last_of(columns: list[str], binary: list[int]) -> list[int]:
    """Return the columns at the end of a table that hold only 0 and 1, without known features."""
    found = list[int]()
    for number in reversed(range(len(columns))):
        name = columns[number]
        if number not in binary or FEATURES.fullmatch(name) or POSE.fullmatch(name):
            break
        found.append(number)
    return found[::-1]


def _read(
    file: Path, frames: int, fps: float | None, start_s: float = 0.0, *, choice: Choice = ALL
) -> Labels:
    del frames, start_s  # it is given frame by frame
    if choice.subject is not None:
        raise DataError(
            f"{file.name} does not name subjects, so --subject={choice.subject} cannot apply; "
            "leave it out"
        )
    layout, table = _table(file)
    _check_rows(table, layout, fps, file)
    names, active, warnings = _behaviors(layout, table, file)
    return Labels(names, active, warnings=warnings)


def _names(file: Path, *, choice: Choice = ALL) -> tuple[str, ...]:
    del choice
    return _behaviors(*_table(file), file)[0]


def _table(file: Path) -> tuple[_Layout, pd.DataFrame]:
    """Read the columns of row numbers, times and behaviours as text."""
    require_csv(file, text=False)
    layout = _layout(file)
    if layout is None:
        raise DataError(
            f"{file.name} is no table of behaviours; expected a header with their names and one "
            "row of 0 and 1 for each frame (after a column of frame numbers, if any). Export it "
            "again"
        )
    columns = layout.columns
    if twice := [name for name in columns if name and columns.count(name) > 1]:
        raise DataError(f"{file.name}: the column {twice[0]} is there twice; remove one of them")
    used = [*range(layout.first), *layout.behaviors]
    try:
        table = pd.read_csv(
            file, sep=layout.separator, encoding=layout.encoding, encoding_errors="replace",
            dtype=str, keep_default_na=False, usecols=used, index_col=False, header=0,
            skip_blank_lines=True,
        ).fillna("")  # fmt: skip
    except (ValueError, pd.errors.ParserError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{file.name} cannot be read as a table: {reason}") from error
    table.columns = pd.Index([columns[number] for number in used])
    return layout, table


def _check_rows(table: pd.DataFrame, layout: _Layout, fps: float | None, file: Path) -> None:
    """Check that there is one row for each frame, by the numbers or times of the rows.

    Raises
    ------
    DataError
        If there is not.
    """
    for number in range(layout.first):
        name = layout.columns[number] or "the first column"
        values = pd.to_numeric(table.iloc[:, number], errors="coerce").to_numpy(float)
        if np.isnan(values).any():
            row = int(np.isnan(values).argmax())
            raise DataError(
                f"{file.name}: {name} of row {row + 1} is {table.iloc[row, number]!r}; expected a "
                "number. The file may be cut off there; export it again"
            )
        rows = np.arange(len(values))
        if not TIME.fullmatch(layout.columns[number]):
            wrong = (
                values - values[:1] != rows if len(values) and values[0] in (0, 1) else rows >= 0
            )
        elif fps is None:
            raise DataError(
                f"{file.name} states the times of its rows, and the frame rate is not known, so "
                "that it cannot be checked that each row is a frame; pass --fps"
            )
        else:
            wrong = np.abs((values - values[:1]) * fps - rows) > TIME_TOLERANCE
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(
                f"{file.name}: {name} of row {row + 1} is {values[row]:g}; expected one row for "
                "each frame, from the first on. Export the behaviours frame by frame"
            )


def _behaviors(
    layout: _Layout, table: pd.DataFrame, file: Path
) -> tuple[tuple[str, ...], np.ndarray, tuple[str, ...]]:
    """Return names, (frames, behaviours) and warnings."""
    names = [layout.columns[number] for number in layout.behaviors]
    texts = table.iloc[:, layout.first :].to_numpy(dtype=object)
    guessed = layout.simba and not any(name.startswith(PROBABILITY) for name in layout.columns)
    valid = np.array([[str(cell).strip() in BINARY for cell in row] for row in texts]).reshape(
        texts.shape
    )
    if guessed and not valid.all():  # a feature that is 0 or 1 in the first rows only
        first = int(np.flatnonzero(~valid.all(axis=0))[-1]) + 1
        names, texts, valid = names[first:], texts[:, first:], valid[:, first:]
    if not names:
        raise DataError(
            f"{file.name}: no column at its end holds only 0 and 1; expected a column for each "
            "behaviour. Annotate the video in SimBA, or export the behaviours alone"
        )
    if not valid.all():
        row, column = (int(n) for n in np.argwhere(~valid)[0])
        cell = str(texts[row, column]).strip()
        more = " (DeepEthogram's -1 is a frame that nobody annotated)" if cell == "-1" else ""
        raise DataError(
            f"{file.name}: {names[column]} of row {row + 1} is {cell!r}{more}; expected 0 or 1 for "
            "each frame. Complete the annotation, or remove columns that are no behaviours"
        )
    active = np.array([[float(cell) == 1 for cell in row] for row in texts], dtype=bool).reshape(
        texts.shape
    )
    warnings: tuple[str, ...] = ()
    if guessed:
        warnings = (f"{file.name}: taken for behaviours: {', '.join(names)}",)
    return (*_without_background(names, active, file), warnings)


def _without_background(
    names: list[str], active: np.ndarray, file: Path
) -> tuple[tuple[str, ...], np.ndarray]:
    """Leave out the column of frames without behaviours, if it says just that."""
    place = [number for number, name in enumerate(names) if name.lower() == BACKGROUND]
    if not place:
        return tuple(names), active
    others = np.delete(active, place[0], axis=1)
    if len(wrong := np.flatnonzero(active[:, place[0]] == others.any(axis=1))):
        raise DataError(
            f"{file.name}: {names[place[0]]} of row {wrong[0] + 1} is "
            f"{int(active[wrong[0], place[0]])}, with {int(others[wrong[0]].sum())} behaviours; "
            "expected 1 where there is no behaviour, and 0 elsewhere. Correct the row"
        )
    return tuple(name for name in names if name.lower() != BACKGROUND), others


def _recognises(file: Path) -> bool:
    if file.suffix.lower() not in (".csv", ".tsv", ".txt"):
        return False
    try:
        return file.is_file() and _layout(file) is not None
    except (DataError, OSError):
        return False


READER = LabelReader(
    patterns=("*_labels.csv", "*frame_labels*.csv", "*targets_inserted*.csv"),
    read=_read,
    names=_names,
    recognises=_recognises,
    title="a table of behaviours frame by frame",
)
