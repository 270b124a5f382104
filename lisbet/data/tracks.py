"""Tracks that are read when they are used, and how many recordings are copied into one table."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lisbet.core.config import Features
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
    order : tuple of tuple of int, optional
        Places in the store of the individuals, keypoints and axes, where they come in another
        order there.
    """

    store: Any
    start: int
    frames: int
    missing: float
    digest: str
    features: Features
    order: tuple[tuple[int, ...], ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """(frames, individuals, keypoints, space)."""
        return (self.frames, *self.features.shape)

    def __len__(self) -> int:
        return self.frames

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read the tracks."""
        del copy
        read = self.store.read(self.start, self.start + self.frames)
        return self.arranged(read).astype(dtype or np.float32)

    def arranged(self, read: np.ndarray) -> np.ndarray:
        """Return tracks as the store has them, (frames, …), in the order of `features`."""
        if self.order is None:
            return read
        return read[np.ix_(*map(np.asarray, (range(len(read)), *self.order)))]

    def reordered(self, features: Features) -> "Stored":
        """Return the tracks with the same names along the axes, in another order."""
        order = tuple(
            tuple(own.index(name) for name in wanted)
            for (_, own), (_, wanted) in zip(self.features, features, strict=True)
        )
        # Without reading, the digest of the tracks in this order is not known: but what it follows
        # from is.
        digest = hashlib.sha256(f"{self.digest} {order}".encode()).hexdigest()
        if self.order is not None:
            order = tuple(
                tuple(before[n] for n in own) for before, own in zip(self.order, order, strict=True)
            )
        return replace(self, features=features, order=order, digest=digest)

    def part(self, first: int, end: int) -> "Stored":
        """Return some of the frames; `missing` and `digest` stay those of all of them."""
        return replace(self, start=self.start + first, frames=end - first)


def part_of(record: Record, first: int, end: int) -> Record:
    """Return the frames first … end-1 of a recording, with their annotations.

    Tracks in a store are not read, those in memory not copied.
    """
    position: Any = record.position
    stored = isinstance(position, Stored)
    labels = record.labels
    return replace(
        record,
        position=position.part(first, end) if stored else position[first:end],
        labels=None if labels is None else replace(labels, active=labels.active[first:end]),
    )


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
            yield number, own.arranged(read[own.start - first.start :][: own.frames])


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
