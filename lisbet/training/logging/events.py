"""events.jsonl: one line of JSON for each step that is logged."""

import json
import math
import os
from pathlib import Path
from typing import Any

from lisbet.core.json_types import JsonDict
from lisbet.core.storage.files import claim, rewrite_text, sync

EVENTS = "events.jsonl"


class Events:
    """Appends to the events of a run.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end: int | None = None
        """Where a line that could not be written began."""

    def append(self, row: JsonDict) -> None:
        """Write a line.

        Raises
        ------
        OSError
            If it cannot be written; the next one takes its place.
        """
        claim(self.path, self.path.parent)
        line = json.dumps({name: _plain(value) for name, value in row.items()}) + "\n"
        handle = os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o666)
        try:
            if self._end is not None:
                os.ftruncate(handle, self._end)
            self._end = os.fstat(handle).st_size
            data = line.encode()
            while data:
                data = data[os.write(handle, data) :]
            self._end = None
        except OSError as error:
            error.filename = str(self.path)
            raise
        finally:
            os.close(handle)

    def sync(self) -> None:
        """Wait until all lines are on the disk."""
        if self.path.exists():
            sync(self.path)

    def cut(self, step: int, finished: int) -> list[JsonDict]:
        """Remove what was logged after a step, which is going to be repeated.

        Parameters
        ----------
        step, finished : int
            Steps and epochs that are done.

        Returns
        -------
        list of dict
            The rows that stay.
        """
        if not self.path.exists():
            return []
        there = read_events(self.path)
        rows = [row for row in there if _is_of(row, step, finished)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        if text.encode() != self.path.read_bytes():
            claim(self.path, self.path.parent)
            rewrite_text(self.path, text, self.path.parent)
        return rows


def read_events(path: Path) -> list[JsonDict]:
    """Read the rows of a run; a line that a kill cut off is left out."""
    rows = []
    for line in path.read_text("utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def _is_of(row: JsonDict, step: int, finished: int) -> bool:
    """Whether a row belongs to steps and epochs that are done.

    The last step of an epoch is done once without the epoch's scores, if a stop cut them off.
    """
    ends = row.get("epoch/epoch")
    return row["step"] <= step and (ends is None or ends < finished)


def _plain(value: object) -> Any:
    """JSON has no infinities and no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
