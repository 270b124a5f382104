"""Read tables of 0 and 1: behaviours or motifs, one row for each frame, whatever wrote them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pandas as pd

from lisbet.commands.applying.result_files import ANNOTATION, find_results, named
from lisbet.commands.applying.result_tables import read_table
from lisbet.commands.applying.sidecar import ResultModel, model_of_tables
from lisbet.core.errors import DataError

LOOKED_AT = 200
"""Rows from which a table of 0 and 1 is told from other tables."""
SHOWN = 3


@dataclass(frozen=True)
class ClassTables:
    """The tables of a folder.

    Parameters
    ----------
    names : tuple of str
        Behaviours or motifs: the columns.
    active : dict of ndarray
        By recording: (frames, names), bool.
    model : ResultModel or None
        What wrote them, where that is known.
    """

    names: tuple[str, ...]
    active: dict[str, np.ndarray]
    model: ResultModel | None


def read_class_tables(folder: Path, pattern: str | None = None) -> ClassTables:
    """Read the tables below a folder; the folder of each is the id of its recording.

    A table is a CSV file as pandas writes it: an unnamed column of frame numbers from 0, then a
    column of 0 and 1 for each class; or what ``betman annotate_behavior`` writes in another format.
    Other files are ignored.

    Parameters
    ----------
    folder : Path
        Holds a folder for each recording.
    pattern : str, optional
        Shell pattern of their file names, with or without the suffix; then each such file
        must be a table of 0 and 1.

    Raises
    ------
    DataError
        If there is none, or several of a recording, or they are of several models.
    """
    files = list(_tables(folder, pattern))
    # Next to the folders of recordings are tables about all of them, such as histories of fits.
    files = [file for file in files if file.parent != folder] or files
    if not files:
        what = ""
        if pattern is not None:
            there = {file.name for file in _tables(folder, None) if file.parent != folder}
            what = f" named {pattern}" + (f" (but {_some(sorted(there))})" if there else "")
        raise DataError(
            f"{folder} holds no tables of 0 and 1{what}: CSV files with a row for each frame and a "
            "column for each behaviour or motif, in a folder for each recording, as betman "
            "annotate_behavior writes them"
        )
    read: dict[str, np.ndarray] = {}
    paths: dict[str, Path] = {}
    names: tuple[str, ...] = ()
    for file in files:
        record_id = file.parent.relative_to(folder).as_posix()
        if record_id in read:
            raise DataError(
                f"{file.parent} holds several tables of 0 and 1: {paths[record_id].name} and "
                f"{file.name}; choose one with --table=NAME"
            )
        columns, read[record_id] = _read(file)
        paths[record_id] = file
        names = names or columns
        if columns != names:
            raise DataError(
                f"{file} has the columns {_some(columns)}, {files[0]} has {_some(names)}: they are "
                "of different models; give the folder of one of them, or choose with --table=NAME"
            )
    return ClassTables(names, read, model_of_tables(files))


def _tables(folder: Path, pattern: str | None) -> Iterator[Path]:
    """Find the tables of 0 and 1 below a folder."""
    for file in sorted(folder.rglob("*.csv")) if folder.is_dir() else []:
        if any(part.startswith(".") for part in file.relative_to(folder).parts):
            continue  # unfinished, or of another program
        if pattern is not None:
            if fnmatch(file.name, pattern) or fnmatch(file.stem, pattern):
                yield file
        elif _is_table(file):
            yield file
    if pattern is None:
        for own in find_results(folder, named(ANNOTATION)).values():
            if own[0].suffix != ".csv":  # a recording that has CSV, too, was found above
                yield own[0]


def _is_table(file: Path) -> bool:
    """Whether a file begins like a table of 0 and 1."""
    with file.open(encoding="utf-8", errors="replace") as stream:
        if not stream.readline(4096).startswith((",", '"",')):
            return False
    try:
        start = pd.read_csv(file, index_col=0, nrows=LOOKED_AT)
    except (ValueError, pd.errors.ParserError):
        return False
    return bool(start.size) and bool(start.isin([0, 1]).to_numpy().all())


def _read(file: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the classes of a table, and (frames, classes), bool."""
    try:
        table = pd.read_csv(file, index_col=0) if file.suffix == ".csv" else read_table(file)
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{file} is no table: {error}") from error
    if not table.size:
        raise DataError(f"{file} is an empty table; expected a row for each frame")
    wrong = ~table.isin([0, 1]).to_numpy()
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise DataError(
            f"{file}: row {row}, column {table.columns[column]!r} is {table.iloc[row, column]}; "
            "expected 0 or 1"
        )
    if not np.array_equal(table.index.to_numpy(), np.arange(len(table))):
        raise DataError(
            f"{file}: the first column does not number the frames 0, 1, 2, …; expected a row for "
            "each frame of the recording"
        )
    return tuple(map(str, table.columns)), table.to_numpy().astype(bool)


def _some(names: Sequence[str]) -> str:
    more = ", …" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
