"""DeepLabCut tables as text: comma-separated, or as a spreadsheet saved them again."""

import csv
import logging
import re
from array import array
from pathlib import Path

import numpy as np

from lisbet.core.errors import DataError
from lisbet.data.files.limits import require_csv
from lisbet.data.files.text_tables import encoding_of, is_blank, lines_of, separator_after
from lisbet.data.readers._layouts.dlc_table import LEVELS, Table, columns_of
from lisbet.data.readers._peek import head_lines

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
    lines, ended = _lines(file, len(LEVELS) + FIRST_ROWS if head else None)
    levels, separator, taken = header_of(lines, file.name)
    columns = columns_of(levels, file.name)
    labels = ["the frame number", *(f"column {column}" for column in columns)]
    values = _values(lines[taken:], separator, labels, file.name, taken + 1, ended=ended)
    return Table(columns, values[:, 0], values[:, 1:])


def read_flat(file: Path, *, head: bool = False) -> tuple[list[str], np.ndarray]:
    """Read a table of numbers with one row of names; with `head`, only its first rows.

    Returns
    -------
    columns : list of str
        Their names.
    values : ndarray
        (rows, columns), NaN for empty cells.

    Raises
    ------
    DataError
        If it is cut off, or a cell holds no number. The message names the line.
    """
    lines, ended = _lines(file, 1 + FIRST_ROWS if head else None)
    taken = next((number for number, line in enumerate(lines) if not is_blank(line)), 0)
    separator = next((mark for mark in ",;\t" if mark in lines[taken]), ",")
    columns = [cell.strip() for cell in next(csv.reader([lines[taken]], delimiter=separator), [])]
    while columns and not columns[-1]:
        del columns[-1]  # a spreadsheet adds empty columns
    labels = [f"column {column}" for column in columns]
    values = _values(
        lines[taken + 1 :], separator, labels, file.name, taken + 2, ended=ended, indexed=False
    )
    return columns, values


def _lines(file: Path, count: int | None) -> tuple[list[str], bool]:
    """Return the lines of a table, or only the first, and whether the last one is whole."""
    require_csv(file, text=False)
    if count is not None:
        return head_lines(file)[:count], True
    raw = file.read_bytes()
    if (encoding := encoding_of(raw)) != "utf-8-sig":
        log.info("%s is read in the encoding %s", file.name, encoding)
    lines = lines_of(raw.decode(encoding, errors="replace"))
    return lines, not lines[-1].strip()


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


def _values(
    lines: list[str],
    separator: str,
    labels: list[str],
    name: str,
    first: int,
    *,
    ended: bool,
    indexed: bool = True,
) -> np.ndarray:
    """Return the numbers of the lines after the header, (rows, columns).

    Parameters
    ----------
    lines : list of str
        The lines.
    separator : str
        Between their cells.
    labels : list of str
        What each column is, for messages.
    name : str
        Name of the file, for messages.
    first : int
        Number of the first line in the file.
    ended : bool
        Whether the last line is whole.
    indexed : bool
        Whether the first column holds frame numbers, none of which may be empty.
    """
    width = len(labels)
    numbers, cells, rows, number = array("d"), [""], 0, 0
    for number, line in enumerate(lines, start=first):
        if is_blank(line):
            continue
        cells = _cells(line, separator, width, name, number)
        if indexed and not rows and not any(cells[1:]) and not NUMBER.match(cells[0]):
            continue  # pandas writes the name of the index in a row of its own
        try:
            if "_" in line:  # Python takes 1_000 for a number
                raise ValueError
            numbers.extend([float(cell) for cell in cells])
        except ValueError:
            del numbers[rows * width :]
            numbers.extend(_numbers(cells, labels, name, number, indexed=indexed))
        rows += 1
    if rows and not ended:
        _check_end(cells[-1], name, number)
    return np.frombuffer(numbers, np.float64).reshape(rows, width)


def _cells(line: str, separator: str, width: int, name: str, number: int) -> list[str]:
    """Return the cells of a line, without the empty ones that a spreadsheet adds at its end.

    Raises
    ------
    DataError
        If it has too few or too many.
    """
    quoted = '"' in line
    cells = next(csv.reader([line], delimiter=separator)) if quoted else line.split(separator)
    if "," in line and (separator != "," or quoted):
        cells = [cell.replace(",", ".") for cell in cells]  # decimal comma
    if len(cells) > width and not any(cell.strip() for cell in cells[width:]):
        del cells[width:]
    if len(cells) != width:
        raise DataError(
            f"{name}: line {number} has {len(cells)} cells; expected {width}, as in the header "
            "rows. The file may be cut off there; copy or export it again"
        )
    return cells


def _check_end(cell: str, name: str, number: int) -> None:
    """Check the last line of a file that does not end with the end of a line."""
    last = cell.strip()
    if not last or not last[-1].isalnum():
        raise DataError(
            f"{name}: line {number} ends with {last!r} and without an end of line; expected a "
            "number. The file is cut off there; copy or export it again"
        )
    log.warning("%s: line %d has no end of line; check that the file is complete", name, number)


def _numbers(
    cells: list[str], labels: list[str], name: str, line: int, *, indexed: bool
) -> list[float]:
    """Return the cells of a line of which some are empty, or no numbers.

    Raises
    ------
    DataError
        Naming the first cell that holds something else.
    """
    values = []
    for place, cell in enumerate(map(str.strip, cells)):
        if NUMBER.fullmatch(cell):
            values.append(float(cell))
        elif (place or not indexed) and cell.lower() in NO_VALUE:
            values.append(np.nan)
        else:
            raise DataError(
                f"{name}: line {line}, {labels[place]}, holds {cell!r}; expected a number. "
                "Correct it, or export the file again"
            )
    return values
