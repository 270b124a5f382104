"""Tracks that are read when they are used, and how many recordings are copied into one table."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lisbet.config import Features
from lisbet.data.record import Record

READ_BYTES = 64 * 2**20
"""Recordings that lie near to each other in a store are read together, up to this size."""
GAP_BYTES = 2**20
"""What lies between two that are read together at most: a chunk is read as a whole anyway."""


@dataclass(frozen=True, eq=False)
class Stored:
    """The tracks of one recording, in a store: an array that is read when it is used.

    Parameters
    ----------
    store : Store
        Where it is; None for tracks that another process has.
    start, frames : int
        Which frames of the store.
    missing : float
        Share of the points that are missing.
    digest : str
        See `Record.digest`.
    features : Features
        Names along the axes.
    """

    store: Any
    start: int
    frames: int
    missing: float
    digest: str
    features: Features

    @property
    def shape(self) -> tuple[int, ...]:
        """(frames, individuals, keypoints, space)."""
        return (self.frames, *self.features.shape)

    def __len__(self) -> int:
        return self.frames

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read the tracks."""
        del copy
        return self.store.read(self.start, self.start + self.frames).astype(dtype or np.float32)


def fill(records: list[Record], tracks: np.ndarray, starts: np.ndarray) -> None:
    """Copy recordings to rows of a table of tracks; missing points become 0.

    Recordings that lie near to each other in a store are read together.

    Parameters
    ----------
    records : list of Record
        What to copy.
    tracks : ndarray
        (rows, individuals, keypoints, space), float32.
    starts : ndarray
        (records,). The row of each one's first frame.
    """
    for number, position in each(records):
        target = tracks[starts[number] : starts[number] + len(position)]
        target[...] = position
        np.nan_to_num(target, copy=False, nan=0.0)


def each(records: list[Record]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield number and tracks of each recording; those near to each other are read at once."""
    for run in _runs(records):
        first: Any = records[run[0]].position
        if not isinstance(first, Stored):
            yield run[0], first
            continue
        last: Any = records[run[-1]].position
        read = first.store.read(first.start, last.start + last.frames)
        for number in run:
            own: Any = records[number].position
            yield number, read[own.start - first.start :][: own.frames]


def _runs(records: list[Record]) -> Iterator[list[int]]:
    """Group recordings that lie near to each other in one store."""
    run: list[int] = []
    for number, record in enumerate(records):
        if run and not _near(records[run[0]], records[run[-1]], record):
            yield run
            run = []
        run.append(number)
    if run:
        yield run


def _near(first: Record, last: Record, record: Record) -> bool:
    """Whether a recording is to be read along with others, from the first to the last of them."""
    begin, end, here = (r.position for r in (first, last, record))
    if not (isinstance(begin, Stored) and isinstance(end, Stored) and isinstance(here, Stored)):
        return False
    if here.store is not begin.store:
        return False
    row = here.features.size * 4
    gap = here.start - (end.start + end.frames)
    return 0 <= gap * row <= GAP_BYTES and (here.start - begin.start) * row < READ_BYTES
