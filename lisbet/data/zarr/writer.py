"""Writes recordings to one Zarr store, one after the other: whole or not at all, and resumable.

Where they are written, and how a complete store takes its place, is a matter of its destination.
"""

import hashlib
import json
import logging
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import zarr

from lisbet.core.config import Features
from lisbet.core.console import track
from lisbet.core.errors import DataError
from lisbet.core.json_types import JsonDict
from lisbet.data.annotations import find_annotations
from lisbet.data.files.sources import Source
from lisbet.data.load import ordered, report
from lisbet.data.preparation.majority import read_usual
from lisbet.data.read import read_all
from lisbet.data.record import Record
from lisbet.data.zarr.destination import Destination
from lisbet.data.zarr.store import (
    COLUMNS,
    LABELS,
    MARK,
    POSITION,
    VERSION,
    Store,
    new_arrays,
    write_table,
)
from lisbet.data.zarr.types import ZarrGroup
from lisbet.distributed.cores import cores
from lisbet.options import ConvertOptions, DataOptions

log = logging.getLogger(__name__)

MOST_WAITING = 3
"""Shards whose recordings may wait in memory to be written."""


@dataclass
class Writer:
    """Writes recordings into a store, shard by shard.

    Parameters
    ----------
    options : ConvertOptions
        What was asked for.
    asked : dict
        What of it the contents follow from.
    old : Store, optional
        The store to add to.
    destination : Destination
        Where it is written; its caller holds it.
    """

    options: ConvertOptions
    asked: JsonDict
    old: Store | None
    destination: Destination
    rows: list[JsonDict] = field(default_factory=list)
    """What is known of each recording."""
    features: Features | None = None
    behaviors: tuple[str, ...] = ()
    holders: str = "the store has"
    """Who has these names, for messages."""
    left_out: dict[str, str] = field(default_factory=dict)
    error: float = 0.0
    safe: int = 0
    """Rows of the arrays that are written."""
    first: int = 0
    """Row of the first new frame."""
    next: int = 0
    """Row of the first frame of the next recording."""
    noted: int = 0
    """Recordings that stand in the journal of the destination."""
    parts: list[tuple[np.ndarray, ...]] = field(default_factory=list)
    """Tracks, and annotations, that wait for their shard to be full."""
    writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "write"))
    """Writes shards while this thread receives recordings."""
    hasher: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(cores(), "hash"))
    writing: Future[None] | None = None

    @property
    def frames(self) -> int:
        """Frames of all recordings."""
        return sum(row["frames"] for row in self.rows)

    @property
    def group(self) -> ZarrGroup:
        """The Zarr group that is written."""
        return self.destination.group

    @property
    def kept(self) -> bool:
        """Whether at least one new, complete shard is on the disk: an error does not remove it."""
        return POSITION in self.group and self.safe - self.first >= self.group[POSITION].shards[0]

    def convert(self, sources: list[Source], request: JsonDict) -> None:
        """Read, write and publish.

        Parameters
        ----------
        sources : list of Source
            The recordings.
        request : dict
            What the contents follow from; an interrupted conversion of the same one is continued.

        Raises
        ------
        DataError
            If recordings cannot be used, and are not to be left out. Nothing is published.
        """
        before = request["sources"]
        noted = self.destination.begin(request, self.old)
        try:
            self._add_to_old()
            for line in noted:
                self._take_up(line)
            # A missing chunk would be a damage. Both threads have ended before an error is raised.
            with zarr.config.set({"array.write_empty_chunks": True}), self.writer, self.hasher:
                problems = self._write_all(sources)
            if problems and not (self.options.skip_bad and self.rows):
                message = report(str(self.options.data_path), problems, len(sources))
                kept = (
                    "\nThe same command with --skip_bad leaves them out and continues from there."
                )
                raise DataError(message + kept * bool(self.rows))
            for record_id, why in problems.items():
                log.warning("%s is left out: %s", record_id, why)
                self.left_out[record_id] = before[record_id]
            self._finish()
        except BaseException as error:
            if self.destination.give_up(keep=self.kept):
                log.warning(
                    "%d frames of %s are saved; the same command continues from there",
                    self.safe, self.destination.place,
                )  # fmt: skip
            if isinstance(error, OSError):
                error.filename = error.filename or self.destination.place
            raise

    # Where it begins ------------------------------------------------------------------------------

    def _add_to_old(self) -> None:
        """Keep what is there, and begin with a new shard: finished ones never change."""
        if self.old is None:
            return
        columns = [self.old.table[name].tolist() for name in COLUMNS]
        self.rows = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*columns, strict=True)]
        self.noted = len(self.rows)
        self.features, self.behaviors = self.old.features, self.old.behaviors
        self.left_out = dict(self.old.group.attrs["left_out"])
        self.error = self.old.group.attrs["greatest_error"]
        array = self.old.group[POSITION]
        self.first = self.safe = self.next = -(-array.shape[0] // array.shards[0]) * array.shards[0]

    def _take_up(self, line: JsonDict) -> None:
        """Continue after a shard; a recording that is also in the next one is read again."""
        self.safe, self.error = line["safe"], line["error"]
        self.features = Features(**line["features"])
        self.behaviors = tuple(line["behaviors"])
        for row in line["rows"]:
            if row["start"] + row["frames"] <= self.safe:
                self.rows.append(row)
                self.next = row["start"] + row["frames"]
        self.noted = len(self.rows)
        log.warning("resuming an interrupted conversion after %d frames", self.safe)

    # Writing --------------------------------------------------------------------------------------

    def _write_all(self, sources: list[Source]) -> dict[str, str]:
        """Write recordings as they are read; return why some cannot be used."""
        known = {row["recording"] for row in self.rows}
        left = [source for source in sources if source.id not in known]
        options = DataOptions(**{k: getattr(self.options, k) for k in DataOptions.model_fields})
        workers = min(self.options.workers or cores(), max(1, len(left)))
        problems = {}
        if self.features is None:
            self._decide(sources, options)
        records = read_all(left, self.options.dataset, options, workers)
        for source, found in zip(left, track(records, "recordings", len(left)), strict=True):
            try:
                if isinstance(found, str):
                    raise DataError(found)
                self._add(self._fitting(found), source)
            except DataError as error:
                problems[source.id] = str(error)
        if self.writing is not None:
            self.writing.result()
        while self.next > self.safe:
            self._write_shard()
        return problems

    def _decide(self, sources: list[Source], options: DataOptions) -> None:
        """Take the names that most recordings have: the first one may be the odd one."""
        sources = [source for source in sources if source.problem is None]
        files = [source.files for source in sources]
        videos = [source.video for source in sources]
        usual = read_usual(files, self.options.dataset, options, videos)
        if usual is not None:
            self.features, self.behaviors = usual.features, usual.behaviors
            self.holders = usual.holders

    def _fitting(self, record: Record) -> Record:
        """Return a recording as most are; before the first one, make the arrays."""
        if self.features is None:  # no names could be read beforehand
            self.features = record.features
            self.behaviors = record.labels.behaviors if record.labels else ()
        if POSITION not in self.group:
            new_arrays(self.group, self.features, self.behaviors, self.options.storage)
        record = ordered(record, self.features, self.holders)
        if record.labels is None:
            return record
        if strange := set(record.labels.behaviors) - set(self.behaviors):
            raise DataError(
                f"behaviours {', '.join(sorted(strange))} are not among those of "
                f"{'the store' if self.old else 'most recordings'}: {', '.join(self.behaviors)}"
            )
        return replace(record, labels=record.labels.over(self.behaviors))

    def _add(self, record: Record, source: Source) -> None:
        tracks = record.position.astype(self.options.storage)
        if self.options.storage == "float16":
            kept = tracks.astype(np.float32)
            self.error = max(self.error, float(np.nanmax(np.abs(kept - record.position))))
            record = record.with_position(kept)
        self.rows.append({
            "recording": record.id, "start": self.next, "frames": record.frames,
            "fps": float("nan") if record.fps is None else record.fps, "missing": record.missing,
            "digest": record.digest, "source": seen(source, self.options),
            "source_sha256": self.hasher.submit(hash_of, source, self.options),
            "steps": json.dumps(list(record.steps)),
        })  # fmt: skip
        labels = () if record.labels is None else (record.labels.active,)
        there = max(0, self.safe - self.next)  # frames that an interrupted conversion has written
        self.parts.append(tuple(part[there:] for part in (tracks, *labels)))
        self.next += record.frames
        self._write_in_background()

    def _write_in_background(self) -> None:
        """Let a thread write the shards that are full; wait for it if too much is in memory."""
        shard = self.group[POSITION].shards[0]
        if self.writing is not None and self.next - self.safe >= MOST_WAITING * shard:
            self.writing.result()
        if self.writing is not None and self.writing.done():
            self.writing.result()  # or its error
            self.writing = None
        if self.writing is None and self.next - self.safe >= shard:
            self.writing = self.writer.submit(self._write_full_shards)

    def _write_full_shards(self) -> None:
        while self.next - self.safe >= self.group[POSITION].shards[0]:
            self._write_shard()

    def _write_shard(self) -> None:
        """Write a shard of what waits, or all of it if it is less, and note that it is safe."""
        self.destination.require_held()
        shard = self.group[POSITION].shards[0]
        frames = min(shard, self.next - self.safe)
        taken, missing = [], frames
        while missing:
            part = self.parts.pop(0)
            taken.append(tuple(column[:missing] for column in part))
            if len(part[0]) > missing:
                self.parts.insert(0, tuple(column[missing:] for column in part))
            missing -= len(taken[-1][0])
        for name, column in zip((POSITION, LABELS), zip(*taken, strict=True), strict=False):
            array = self.group[name]
            array.resize((self.safe + frames, *array.shape[1:]))
            array[self.safe : self.safe + frames] = np.concatenate(column)
        self.safe += frames
        assert self.features is not None
        new = self.rows[self.noted :]
        for row in new:
            if isinstance(row["source_sha256"], Future):
                row["source_sha256"] = row["source_sha256"].result()
        line = {
            "safe": self.safe, "rows": new, "error": self.error,
            "features": self.features.model_dump(mode="json"), "behaviors": self.behaviors,
        }  # fmt: skip
        self.destination.note(line, (self.safe - 1) // shard)
        self.noted = sum(row["start"] + row["frames"] <= self.safe for row in self.rows)

    def _finish(self) -> None:
        """Write what is known of the recordings, and complete the store."""
        self.destination.require_held()
        write_table(self.group, self.rows)
        digest = hashlib.sha256("".join(row["digest"] for row in self.rows).encode()).hexdigest()
        self.destination.finish({
            "format": MARK, "version": VERSION, "preparation": self.asked, "digest": digest,
            "left_out": self.left_out, "greatest_error": self.error,
        })  # fmt: skip


def _files(source: Source, options: ConvertOptions) -> list[Path]:
    """Return the files that a recording is made of, annotations included."""
    files = list(source.files)
    if options.annot_format is not None:
        files += find_annotations(options.annot_format, source.files, source.video)
    return files


def seen(source: Source, options: ConvertOptions) -> str:
    """Return sizes and times of a recording's files: what tells whether they changed."""
    stats = [file.stat() for file in _files(source, options)]
    return ";".join(f"{stat.st_size}:{stat.st_mtime_ns}" for stat in stats)


def hash_of(source: Source, options: ConvertOptions) -> str:
    """Return the SHA-256 of a recording's files."""
    digest = hashlib.sha256()
    for file in _files(source, options):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
