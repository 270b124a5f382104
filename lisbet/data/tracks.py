"""Tracks that are read when they are used, and how many recordings are copied into one table."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lisbet.config import Features
from lisbet.data.record import Record

READ_BYTES = 64 * 2**20
"""Frames of recordings that lie side by side are read together, up to this size."""


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

    Recordings that lie side by side in a store are read together.

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
    """Yield number and tracks of each recording; those side by side in a store are read at once."""
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
    """Group recordings that lie side by side in one store, up to `READ_BYTES`."""
    run: list[int] = []
    for number, record in enumerate(records):
        if run:
            last, here, first = (records[n].position for n in (run[-1], number, run[0]))
            beside = (
                isinstance(last, Stored)
                and isinstance(here, Stored)
                and isinstance(first, Stored)
                and last.store is here.store
                and last.start + last.frames == here.start
                and (here.start - first.start) * record.features.size * 4 < READ_BYTES
            )
            if not beside:
                yield run
                run = []
        run.append(number)
    if run:
        yield run
