"""training_history.csv: one row for each epoch."""

import csv
from pathlib import Path

from lisbet.core.errors import ModelError
from lisbet.core.storage.files import write_file

HISTORY = "training_history.csv"


def write_history(path: Path, rows: list[dict[str, float]]) -> None:
    """Write the rows so far; what a row lacks, as those of an earlier release do, is nan."""
    with (
        write_file(path, overwrite=True) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
    ):
        names = dict.fromkeys(name for row in rows for name in row)
        writer = csv.DictWriter(stream, fieldnames=list(names), restval="nan")
        writer.writeheader()
        writer.writerows(rows)


def read_history(path: Path) -> list[dict[str, float]]:
    """Read the rows of a run.

    Raises
    ------
    ModelError
        If there is no such file or it is no table of numbers.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file; train with --save_history to write one")
    with path.open(newline="", encoding="utf-8") as stream:
        try:
            rows = [
                {name: float(text) for name, text in row.items()} for row in csv.DictReader(stream)
            ]
        except (ValueError, TypeError, csv.Error) as error:
            raise ModelError(f"{path} is not a table of numbers: {error}") from error
    if not rows or "epoch" not in rows[0]:
        raise ModelError(f"{path} holds no epochs")
    return rows
