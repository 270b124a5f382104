"""Read the tracks of many recordings: those close to each other in a store are read together."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from lisbet.data.record import Record
from lisbet.data.tracks import Stored

READ_BYTES = 64 * 2**20
"""Maximum size of one read over several recordings."""
GAP_BYTES = 2**20
"""Maximum size of what is read between two recordings: chunks are read as a whole anyway."""


def part_of(record: Record, first: int, end: int) -> Record:
    """Return the frames first … end-1 of a recording, with their annotations.

    Tracks in a store are not read, those in memory not copied.
    """
    labels = record.labels
    return replace(
        record,
        tracks=record.tracks.part(first, end),
        labels=None if labels is None else replace(labels, active=labels.active[first:end]),
    )


def fill(records: list[Record], tracks: np.ndarray, starts: np.ndarray) -> None:
    """Copy recordings to rows of a table of tracks; missing points become 0.

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
    """Yield number and tracks of each recording; those close to each other are read at once."""
    for run in _runs(records):
        tracks = [records[number].tracks for number in run]
        first, last = tracks[0], tracks[-1]
        if not (isinstance(first, Stored) and isinstance(last, Stored)):
            yield run[0], first.read(0, first.frames)
            continue
        assert first.store is not None
        read = first.store.read(first.start, last.start + last.frames)
        for number, own in zip(run, tracks, strict=True):
            assert isinstance(own, Stored)
            yield number, own.arranged(read[own.start - first.start :][: own.frames])


def _runs(records: list[Record]) -> Iterator[list[int]]:
    """Group recordings that lie close to each other in one store."""
    run: list[int] = []
    for number, record in enumerate(records):
        if run and not _close(records[run[0]], records[run[-1]], record):
            yield run
            run = []
        run.append(number)
    if run:
        yield run


def _close(first: Record, last: Record, record: Record) -> bool:
    """Whether a recording is to be read along with others, from the first to the last of them."""
    begin, end, here = (r.tracks for r in (first, last, record))
    if not (isinstance(begin, Stored) and isinstance(end, Stored) and isinstance(here, Stored)):
        return False
    if here.store is not begin.store:
        return False
    row = here.features.size * 4
    gap = here.start - (end.start + end.frames)
    return 0 <= gap * row <= GAP_BYTES and (here.start - begin.start) * row < READ_BYTES
