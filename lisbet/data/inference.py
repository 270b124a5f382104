"""Recordings to apply a model to: each process reads its share, one recording after the other.

All of them are checked before the first one is used, and memory does not grow with their number.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from accelerate.utils import gather_object

from lisbet.core.config import Dataset
from lisbet.core.errors import DataError
from lisbet.data.bank import Bank
from lisbet.data.files.sources import Source, find_sources
from lisbet.data.files.versions import FileChoice
from lisbet.data.load import accepted, load_records
from lisbet.data.read import read_all, read_one
from lisbet.data.readers import dataset_reader
from lisbet.data.reading import each
from lisbet.data.record import Record
from lisbet.data.tracks import Stored, TrackStore
from lisbet.distributed.memory_policy import inference_limit
from lisbet.options import DataOptions


@dataclass(frozen=True, eq=False)
class Recordings(Bank):
    """The outline of all recordings, and those that this process reads.

    Parameters
    ----------
    records : tuple of Record
        All recordings; the tracks of another process's may not be here.
    own : tuple of int
        Numbers of those that are this process's share.
    """

    records: tuple[Record, ...] = field(default=(), repr=False)
    own: tuple[int, ...] = ()

    @classmethod
    def share(cls, records: list[Record], own: list[int]) -> "Recordings":
        """Return recordings that have the same features, of which some are one's own."""
        outline = cls.outline(records)
        assert isinstance(outline, cls)
        return replace(outline, records=tuple(records), own=tuple(own))

    def each(self) -> Iterator[tuple[int, Bank]]:
        """Yield the number of each recording of this process, and a bank of it alone."""
        for place, tracks in each([self.records[number] for number in self.own]):
            record = self.records[self.own[place]]
            alone = Record.in_memory(record.id, tracks, record.features)
            yield self.own[place], Bank.from_records([alone])


@dataclass(frozen=True)
class Files:
    """The files of one recording, which are read once more when its tracks are used."""

    source: Source
    dataset: Dataset
    options: DataOptions
    seen: tuple[tuple[int, int], ...]
    """Size and time of each file when it was checked."""

    def read(self, first: int, last: int) -> np.ndarray:
        """Read the tracks of a range of frames: (frames, individuals, keypoints, space), float32.

        Raises
        ------
        DataError
            If the files changed since they were checked, or cannot be read any more.
        """
        same = _seen(self.source) == self.seen
        record = read_one(self.source, self.dataset, self.options) if same else None
        if record is None or isinstance(record, str):
            why = record or "its files changed while the others were read; run the command again"
            raise DataError(f"{self.dataset.path}: {self.source.id}: {why}")
        return np.asarray(record.position[first:last], np.float32)


def load_share(
    dataset: Dataset, options: DataOptions, rank: int, processes: int
) -> tuple[list[Record], list[int]]:
    """Read and check the recordings of a dataset, each process its share.

    Parameters
    ----------
    dataset : Dataset
        Where they are.
    options : DataOptions
        Filter, selection, new names and scale.
    rank, processes : int
        Number of this process, and how many there are. All of them must call it.

    Returns
    -------
    records : list of Record
        All recordings, sorted by id, with the same features. Tracks are in memory, or read when
        they are used, or, of other processes' recordings, not here at all.
    own : list of int
        Numbers of those that are this process's share.

    Raises
    ------
    DataError
        On all processes, if some cannot be used. One message names each of them and why.
    """
    if dataset_reader(dataset) is not None:
        records = load_records(dataset, options)  # their tracks are read when they are used
        return records, shares(np.array([r.frames for r in records]), processes)[rank]
    sources = find_sources(dataset, options.filters, FileChoice.of(options))
    own = shares(np.array([source.bytes for source in sources]), processes)[rank]
    mine = dict(zip(own, _read([sources[n] for n in own], dataset, options), strict=True))
    outlines = [(number, _without_tracks(outcome)) for number, outcome in mine.items()]
    outcomes = dict(pair for part in gather_object([outlines]) for pair in part) | mine
    return accepted(dataset, sources, [outcomes[n] for n in range(len(sources))]), own


def shares(lengths: np.ndarray, processes: int) -> list[list[int]]:
    """Share recordings out so that all processes have about as many frames.

    Examples
    --------
    >>> shares(np.array([10, 50, 30, 30]), 2)
    [[0, 1], [2, 3]]
    """
    parts: list[list[int]] = [[] for _ in range(processes)]
    frames = np.zeros(processes, dtype=np.int64)
    for number in np.argsort(-lengths, kind="stable"):
        least = int(frames.argmin())
        parts[least].append(int(number))
        frames[least] += lengths[number]
    return [sorted(part) for part in parts]


def _read(sources: list[Source], dataset: Dataset, options: DataOptions) -> Iterator[Record | str]:
    """Read recordings; tracks that take too much memory are dropped, and read when used."""
    left = inference_limit()
    before = [_seen(source) for source in sources]
    unlabelled = dataset.model_copy(update={"annotations": None})
    for source, seen, outcome in zip(
        sources, before, read_all(sources, dataset, options), strict=True
    ):
        if isinstance(outcome, str):
            yield outcome
            continue
        left -= outcome.position.nbytes
        if left > 0:
            yield outcome
        else:
            yield _with_tracks_in(Files(source, unlabelled, options, seen), outcome)


def _without_tracks(outcome: Record | str) -> Record | str:
    """Return what other processes need to know of a recording, or of its problem."""
    return outcome if isinstance(outcome, str) else _with_tracks_in(None, outcome)


def _with_tracks_in(store: TrackStore | None, record: Record) -> Record:
    tracks = Stored(store, 0, record.frames, record.missing, "", record.features)
    return replace(record, tracks=tracks)


def _seen(source: Source) -> tuple[tuple[int, int], ...]:
    """Return size and time of each file of a recording; none of files that are gone."""
    stats = [file.stat() for file in source.files if file.exists()]
    return tuple((stat.st_size, stat.st_mtime_ns) for stat in stats)
