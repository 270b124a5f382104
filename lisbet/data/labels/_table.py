"""Tables of text with whatever separator, encoding and decimal mark a spreadsheet wrote."""

import codecs
import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lisbet.core.errors import DataError
from lisbet.data.files.limits import LINE_BYTES, require_csv, require_regular

SEPARATORS = (",", ";", "\t")
HEADER_ROWS = 200
"""The header of a table is looked for in so many rows: older BORIS exports have a preamble."""
HEAD_BYTES = 2**16
"""So much of a file is looked at to recognise it."""
SPARE_COLUMNS = 64
"""At most so many cells after the last column of the header are accepted, all of them empty."""
DECIMAL_COMMA = r"^([+-]?\d*),(\d+)$"


@dataclass(frozen=True)
class Layout:
    """Where the header of a table is, and how the file is written.

    Parameters
    ----------
    encoding : str
        Name of a codec of Python.
    separator : str
        Character between two cells.
    columns : tuple of str
        Cells of the header, without white space at their ends.
    skip : int
        Rows before the header.
    """

    encoding: str
    separator: str
    columns: tuple[str, ...]
    skip: int

    @property
    def note(self) -> str:
        """Name the encoding if it was guessed; empty for UTF-8 and UTF-16."""
        return "" if self.encoding.startswith("utf") else "read as Latin-1 (Windows-1252)"


def encoding_of(file: Path) -> str:
    """Return the encoding of a text file: UTF-8, UTF-16 or, if it is neither, Windows-1252."""
    with file.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        for encoding, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[0::2])):
            if head and zeros.count(0) > 0.5 * len(zeros):
                return encoding
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while head:
                decoder.decode(head)
                head = stream.read(HEAD_BYTES)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8-sig"


def find_header(file: Path, is_header: Callable[[set[str]], bool]) -> Layout | None:
    """Look for the first row whose cells make a header, with each of the separators.

    Parameters
    ----------
    file : Path
        A text file.
    is_header : callable
        Whether a set of cells is the header.
    """
    encoding = encoding_of(file)
    rows = {separator: first_rows(file, encoding, separator) for separator in SEPARATORS}
    for separator, found in rows.items():
        for number, row in enumerate(found):
            if is_header(set(row)):
                return Layout(encoding, separator, tuple(row), number)
    return None


def first_rows(file: Path, encoding: str, separator: str) -> list[list[str]]:
    """Return the first rows of a table, each cell without white space at its ends."""
    # A limit for the characters: a damaged file may have no line ends.
    with file.open(newline="", encoding=encoding, errors="replace") as stream:
        text = io.StringIO(stream.read(LINE_BYTES), newline="")
    rows: list[list[str]] = []
    try:
        for row in csv.reader(text, delimiter=separator):
            rows.append([cell.strip() for cell in row])
            if len(rows) >= HEADER_ROWS:
                break
    except csv.Error:  # such as NUL characters: no table, at least not after these rows
        pass
    return rows


def read_table(file: Path, layout: Layout, times: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read a table as text; rows that are empty are left out.

    Parameters
    ----------
    file : Path
        The file.
    layout : Layout
        Where its header is.
    times : tuple of str
        Columns of numbers; they get decimal points.

    Returns
    -------
    pandas.DataFrame
        Its index is the number of each row after the header, from 0.

    Raises
    ------
    DataError
        If it is no table, too large, or has cells outside its columns.
    """
    require_csv(file, text=True)
    columns = _unique(layout.columns)
    spare_count = min(_most_cells(file, layout.separator) - len(columns), SPARE_COLUMNS)
    spare = [f"\1{number}" for number in range(spare_count)]
    try:
        table = pd.read_csv(
            file, skiprows=layout.skip + 1, header=None, names=[*columns, *spare], dtype=str,
            keep_default_na=False, sep=layout.separator, encoding=layout.encoding,
            encoding_errors="replace", index_col=False,
        ).fillna("")  # fmt: skip
    except pd.errors.EmptyDataError:
        return pd.DataFrame({column: pd.Series(dtype=str) for column in columns})
    except (ValueError, pd.errors.ParserError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{file.name} cannot be read as a table: {reason}") from error
    outside = [number for name in spare for number in np.flatnonzero(table[name] != "")[:1]]
    if outside:
        row = min(outside)
        raise DataError(
            f"{file.name}: row {row + 1} has more cells than the header ({len(columns)}); expected "
            "one for each column. Put text that contains the separator "
            f"{layout.separator!r}, such as a decimal comma, in quotes, or use another separator"
        )
    table = table[columns]
    blank = np.ones(len(table), dtype=bool)
    for column in columns:
        if not blank.any():
            break
        blank[blank] = table.loc[blank, column].str.strip() == ""
    table = table[~blank].copy()
    for column in set(times) & set(columns):
        table[column] = decimal_points(table[column], layout.separator)
    return table


def _most_cells(file: Path, separator: str) -> int:
    """Return how many cells a line has at most; separators in quotes are counted as well."""
    mark = separator.encode()
    with file.open("rb") as stream:
        return 1 + max((line.count(mark) for line in stream), default=0)


def _unique(columns: tuple[str, ...]) -> list[str]:
    """Return names for columns of which some have the same name, or none."""
    unique: list[str] = []
    for number, name in enumerate(columns):
        unique.append(name if name and name not in unique else f"{name}\0{number}")
    return unique


def seconds(table: pd.DataFrame, column: str, file: Path) -> np.ndarray:
    """Return a column of times.

    Raises
    ------
    DataError
        Naming the row that holds no time.
    """
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=float)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        text = table[column].iloc[bad[0]]
        raise DataError(
            f"{file.name}: {column} of row {table.index[bad[0]] + 1} is {text!r}, not a time in "
            "seconds"
        )
    return values


def decimal_points(texts: pd.Series, separator: str) -> pd.Series:
    """Write the numbers among some texts with a decimal point.

    In a table that is separated by commas, a comma in a number may separate thousands: it is a
    decimal comma if one number of the column has not three digits after it, or a 0 before it.

    Examples
    --------
    >>> decimal_points(pd.Series(["1,500", "2"]), ";").tolist()
    ['1.500', '2']
    >>> decimal_points(pd.Series(["1,500", "2,5"]), ",").tolist()
    ['1.500', '2.5']
    >>> decimal_points(pd.Series(["1,500", "2"]), ",").tolist()
    ['1,500', '2']
    """
    texts = texts.str.strip()
    commas = texts[texts.str.contains(",", regex=False)]
    certain = separator != "," or commas.str.contains(r"^[+-]?0*,|,(?!\d{3}$)").any()
    if len(commas) and certain:
        return texts.str.replace(DECIMAL_COMMA, r"\1.\2", regex=True)
    return texts


def recognise(file: Path, is_header: Callable[[set[str]], bool]) -> bool:
    """Whether a file is a table with a certain header, whatever its name is."""
    if file.suffix.lower() not in (".csv", ".tsv", ".txt"):
        return False
    try:
        require_regular(file)
        return find_header(file, is_header) is not None
    except (DataError, OSError):
        return False
