"""DeepLabCut tables as text: comma-separated, or as a spreadsheet saved them again."""

import csv
import io
import logging
import re
from pathlib import Path

import numpy as np
import pandas as pd

from lisbet.data.limits import require_csv
from lisbet.data.readers._dlc_table import LEVELS, Table, columns_of
from lisbet.data.readers._peek import head_lines
from lisbet.data.text_tables import LINE_END, decode, is_blank, separator_after
from lisbet.errors import DataError

log = logging.getLogger(__name__)

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
NO_VALUE = {"", "nan", "na", "n/a", "null", "none", "<na>", "inf", "-inf", "#n/a"}
FIRST_ROWS = 2


def first_cell(line: str) -> str:
    """Return the first cell of a header row in lower case; no more than the length of a label."""
    return re.split('[,;\t|"]', line.lstrip(' "\t'), maxsplit=1)[0].strip().lower()


def read_csv(file: Path, *, head: bool = False) -> Table:
    """Read a table; with `head`, only its first rows.

    Raises
    ------
    DataError
        If it is no DeepLabCut table, is cut off, or a cell holds no number. The message names the
        line.
    """
    require_csv(file, text=False)
    if head:
        lines, ended = head_lines(file)[: len(LEVELS) + FIRST_ROWS], True
    else:
        text = decode(file.read_bytes(), file.name)
        lines = LINE_END.split(text)
        ended = not lines[-1].strip()
    return _parsed(lines, file.name, ended=ended)


def header_of(lines: list[str], name: str) -> tuple[dict[str, list[str]], str, int]:
    """Return the cells of each header row, the separator, and how many lines they take.

    Raises
    ------
    DataError
        If the lines do not begin with such rows.
    """
    levels: dict[str, list[str]] = {}
    separator, taken = "", 0
    for line in lines:
        label = first_cell(line)
        if not is_blank(line):
            if label not in LEVELS:
                break
            separator = separator or separator_after(line, label) or ""
            levels[label] = next(csv.reader([line], delimiter=separator or ","))[1:]
        taken += 1
    if not levels or not separator:
        start = next((line for line in lines if not is_blank(line)), "")
        shown = repr(start if len(start) <= 60 else f"{start[:60]}…")
        raise DataError(
            f"{name} begins with {shown}; expected the header rows of a DeepLabCut table, with "
            f"{', '.join(LEVELS)} in the first column. Export it again"
        )
    width = max(len(cells) for cells in levels.values())
    for cells in levels.values():
        cells += [""] * (width - len(cells))
    while width and not any(cells[width - 1].strip() for cells in levels.values()):
        width -= 1  # a spreadsheet adds empty columns
    return {label: cells[:width] for label, cells in levels.items()}, separator, taken


def _parsed(lines: list[str], name: str, *, ended: bool) -> Table:
    levels, separator, taken = header_of(lines, name)
    columns = columns_of(levels, name)
    width = len(columns) + 1
    body, numbers = [], []
    for number, line in enumerate(lines[taken:], start=taken + 1):
        if is_blank(line):
            continue
        if '"' in line:
            line = _unquoted(line, separator)
        if line.count(separator) != width - 1:
            line = _fitted(line, separator, width, name, number)
        body.append(line)
        numbers.append(number)
    if body and not ended:
        _check_end(body[-1], separator, name, numbers[-1])
    if body and not NUMBER.match(body[0].lstrip()):
        index_name, *others = body[0].split(separator)
        if not any(cell.strip() for cell in others):
            del body[0], numbers[0]  # pandas writes the name of the index in a row of its own
    text = "\n".join(body)
    if separator != ",":
        text = text.replace(",", ".")  # decimal comma
    if not body:
        return Table(columns, np.zeros(0, np.int64), np.zeros((0, len(columns))))
    frame = pd.read_csv(
        io.StringIO(text), header=None, names=list(range(width)), sep=separator, index_col=False,
        float_precision="round_trip", low_memory=False, skip_blank_lines=False, quoting=3,
        skipinitialspace=True,
    )  # fmt: skip
    for number in range(width):
        if frame[number].dtype.kind not in "iuf":
            frame[number] = _numbers(frame[number], number, columns, name, numbers)
    return Table(columns, frame[0].to_numpy(), frame.iloc[:, 1:].to_numpy(np.float64))


def _unquoted(line: str, separator: str) -> str:
    """Return a line without quotation marks; a decimal comma in them becomes a point."""
    cells = next(csv.reader([line], delimiter=separator))
    return separator.join(cell.replace(",", ".") for cell in cells)


def _fitted(line: str, separator: str, width: int, name: str, number: int) -> str:
    """Return a line without the empty cells that a spreadsheet adds.

    Raises
    ------
    DataError
        If it has too few or too many cells.
    """
    cells = line.split(separator)
    if len(cells) > width and not any(cell.strip() for cell in cells[width:]):
        return separator.join(cells[:width])
    raise DataError(
        f"{name}: line {number} has {len(cells)} cells; expected {width}, as in the header rows. "
        "The file may be cut off there; copy or export it again"
    )


def _check_end(line: str, separator: str, name: str, number: int) -> None:
    """Check the last line of a file that does not end with the end of a line."""
    last = line.split(separator)[-1].strip()
    if not last or not last[-1].isalnum():
        raise DataError(
            f"{name}: line {number} ends with {last!r} and without an end of line; expected a "
            "number. The file is cut off there; copy or export it again"
        )
    log.warning("%s: line %d has no end of line; check that the file is complete", name, number)


def _numbers(
    cells: "pd.Series[str]", column: int, columns: list[object], name: str, lines: list[int]
) -> "pd.Series[float]":
    """Return a column of texts as numbers.

    Raises
    ------
    DataError
        Naming the first cell that holds none.
    """
    texts = cells.astype("string").fillna("").str.strip()
    for number, text in zip(lines, texts.tolist(), strict=True):
        if text.lower() in NO_VALUE and column > 0:
            continue
        if not NUMBER.fullmatch(text):
            what = "the frame number" if column == 0 else f"column {columns[column - 1]}"
            raise DataError(
                f"{name}: line {number}, {what}, holds {text!r}; expected a number. Correct it, or "
                "export the file again"
            )
    return pd.to_numeric(texts.where(~texts.str.lower().isin(NO_VALUE)), errors="coerce").astype(
        np.float64
    )
