"""Writes recordings to one Zarr store, one after the other: whole or not at all, and resumable.

Everything is written in a hidden folder beside the store, with a journal of what is safe in it;
the folder takes the store's name when it is complete.
"""

import hashlib
import json
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import rich.progress
import zarr
from rich.console import Console
from zarr.errors import ZarrUserWarning

from lisbet.config import Features
from lisbet.data.journal import Journal
from lisbet.data.labels import LABEL_READERS
from lisbet.data.load import Source, ordered, read_all, report
from lisbet.data.majority import read_usual
from lisbet.data.record import Record
from lisbet.data.store import (
    COLUMNS,
    LABELS,
    MARK,
    POSITION,
    VERSION,
    Store,
    is_address,
    new_arrays,
    place_of,
    write_table,
)
from lisbet.errors import DataError
from lisbet.options import ConvertOptions, DataOptions
from lisbet.processes import environment
from lisbet.publish import publish_folder, sync

log = logging.getLogger(__name__)


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
    """

    options: ConvertOptions
    asked: dict[str, Any]
    old: Store | None
    rows: list[dict[str, Any]] = field(default_factory=list)
    """What is known of each recording."""
    features: Features | None = None
    behaviors: tuple[str, ...] = ()
    holders: str = "the store has"
    """Who has these names, for messages."""
    left_out: dict[str, str] = field(default_factory=dict)
    error: float = 0.0
    safe: int = 0
    """Rows of the arrays that are written."""
    next: int = 0
    """Row of the first frame of the next recording."""
    noted: int = 0
    """Recordings that stand in the journal."""
    group: Any = None
    parts: list[tuple[np.ndarray, ...]] = field(default_factory=list)
    """Tracks, and annotations, that wait for their shard to be full."""

    @property
    def frames(self) -> int:
        """Frames of all recordings."""
        return sum(row["frames"] for row in self.rows)

    @property
    def hidden(self) -> Path | None:
        """The folder that is filled; None at an address, where nothing can be renamed."""
        target = self.options.target
        return None if is_address(target) else target.with_name(f".{target.name}.partial")

    @property
    def kept(self) -> bool:
        """Whether so much is written that an error must not undo it: a shard, and no rest."""
        return POSITION in self.group and self.safe >= self.group[POSITION].shards[0]

    @property
    def journal(self) -> Journal:
        """What of it is complete."""
        target = self.options.target
        return Journal(target.with_name(f".{target.name}.journal"))

    def convert(self, sources: list[Source]) -> None:
        """Read, write and publish.

        Raises
        ------
        DataError
            If recordings cannot be used, and are not to be left out. Nothing is published.
        """
        before = {source.id: seen(source, self.options) for source in sources}
        try:
            self._begin(before)
            with zarr.config.set({"array.write_empty_chunks": True}):  # a missing one is a damage
                problems = self._write_all(sources)
            if problems and not (self.options.skip_bad and self.rows):
                told = report(str(self.options.data_path), problems, len(sources))
                kept = "\nThe same command with --skip_bad leaves them out and goes on from there."
                raise DataError(told + kept * bool(self.rows))
            for record_id, why in problems.items():
                log.warning("%s is left out: %s", record_id, why)
                self.left_out[record_id] = before[record_id]
            self._finish()
        except DataError:
            if self.hidden is not None and not self.kept:
                shutil.rmtree(self.hidden, ignore_errors=True)
                self.journal.remove()
            raise
        except OSError as error:
            error.filename = error.filename or str(self.options.target)
            raise

    # Where it begins ------------------------------------------------------------------------------

    def _begin(self, sources: dict[str, str]) -> None:
        """Make the hidden folder, or take up that of an interrupted conversion."""
        if self.hidden is None:
            mode: Any = "r+" if self.old else "w"
            self.group = zarr.open_group(place_of(self.options.target), mode=mode, zarr_format=3)
            return self._add_to_old()
        before = None if self.old is None else self.old.group.attrs["digest"]
        request = {"preparation": self.asked, "sources": sources, "added_to": before}
        lines = self.journal.lines()
        # The first shard is noted after all arrays are made.
        goes_on = self.hidden.is_dir() and len(lines) > 1 and lines[0] == request
        if not goes_on:
            self.journal.remove()
            shutil.rmtree(self.hidden, ignore_errors=True)
            if self.old is None:
                self.hidden.mkdir()
                zarr.create_group(str(self.hidden), zarr_format=3)
            else:
                shutil.copytree(self.options.target, self.hidden, copy_function=_link_shard)
            self.journal.note(request)
        self.group = zarr.open_group(str(self.hidden), mode="r+", zarr_format=3)
        self._add_to_old()
        for line in lines[1:] if goes_on else ():
            self._take_up(line)
        return None

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
        self.safe = self.next = -(-array.shape[0] // array.shards[0]) * array.shards[0]

    def _take_up(self, line: dict[str, Any]) -> None:
        """Go on after a shard; a recording that lies in the next one, too, is read again."""
        self.safe, self.error = line["safe"], line["error"]
        self.features = Features(**line["features"])
        self.behaviors = tuple(line["behaviors"])
        for row in line["rows"]:
            if row["start"] + row["frames"] <= self.safe:
                self.rows.append(row)
                self.next = row["start"] + row["frames"]
        self.noted = len(self.rows)
        log.warning("an interrupted conversion goes on after %d frames", self.safe)

    # Writing --------------------------------------------------------------------------------------

    def _write_all(self, sources: list[Source]) -> dict[str, str]:
        """Write recordings as they are read; return why some cannot be used."""
        known = {row["recording"] for row in self.rows}
        left = [source for source in sources if source.id not in known]
        options = DataOptions(**{k: getattr(self.options, k) for k in DataOptions.model_fields})
        workers = min(self.options.workers or environment.cores(), max(1, len(left)))
        problems = {}
        if self.features is None:
            self._decide(sources, options)
        records = read_all(left, self.options.dataset, options, workers)
        for source, found in zip(left, track(records, len(left)), strict=True):
            try:
                if isinstance(found, str):
                    raise DataError(found)
                self._add(self._fitting(found), source)
            except DataError as error:
                problems[source.id] = str(error)
        while self.next > self.safe:
            self._write_shard()
        return problems

    def _decide(self, sources: list[Source], options: DataOptions) -> None:
        """Take the names that most recordings have: the first one may be the odd one."""
        files = [source.files for source in sources]
        usual = read_usual(files, self.options.dataset, options)
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
            record = replace(record, position=kept)
        self.rows.append({
            "recording": record.id, "start": self.next, "frames": record.frames,
            "fps": float("nan") if record.fps is None else record.fps, "missing": record.missing,
            "digest": record.digest, "source": seen(source, self.options),
            "source_sha256": hash_of(source, self.options),
            "steps": json.dumps(list(record.steps)),
        })  # fmt: skip
        labels = () if record.labels is None else (record.labels.active,)
        there = max(0, self.safe - self.next)  # frames that an interrupted conversion has written
        self.parts.append(tuple(part[there:] for part in (tracks, *labels)))
        self.next += record.frames
        while self.next - self.safe >= self.group[POSITION].shards[0]:
            self._write_shard()

    def _write_shard(self) -> None:
        """Write a shard of what waits, or all of it if it is less, and note that it is safe."""
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
            if self.hidden is not None:
                zeros = "0" * (array.ndim - 1)
                sync(self.hidden.joinpath(name, "c", str(self.safe // shard), *zeros))
        self.safe += frames
        if self.hidden is not None:
            assert self.features is not None
            self.journal.note({
                "safe": self.safe, "rows": self.rows[self.noted :], "error": self.error,
                "features": self.features.model_dump(mode="json"), "behaviors": self.behaviors,
            })  # fmt: skip
            done = [row for row in self.rows if row["start"] + row["frames"] <= self.safe]
            self.noted = len(done)

    def _finish(self) -> None:
        """Write what is known of the recordings, last the mark, and give the store its name."""
        write_table(self.group, self.rows)
        digest = hashlib.sha256("".join(row["digest"] for row in self.rows).encode()).hexdigest()
        self.group.attrs.update({
            "format": MARK, "version": VERSION, "preparation": self.asked, "digest": digest,
            "left_out": self.left_out, "greatest_error": self.error,
        })  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ZarrUserWarning)  # that others may not know of it
            zarr.consolidate_metadata(self.group.store)
        if self.hidden is not None:
            publish_folder(self.hidden, self.options.target)
            self.journal.remove()


def _files(source: Source, options: ConvertOptions) -> list[Path]:
    """Return the files that a recording is made of, annotations included."""
    files = list(source.files)
    if options.annot_format is not None:
        files += LABEL_READERS[options.annot_format].find(source.files[0].parent)
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


def track(records: Iterable[Record | str], total: int) -> Iterable[Record | str]:
    """Show progress on a terminal."""
    console = Console(file=sys.stderr)
    return rich.progress.track(
        records, "recordings", total, console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip


def _link_shard(source: str, target: str) -> None:
    """Link a shard, which never changes; copy the rest, and where links cannot be made."""
    parts = Path(source).parts
    if "c" in parts[-6:] and {POSITION, LABELS} & set(parts[-6:]):
        try:
            return os.link(source, target)
        except OSError:
            pass
    shutil.copy2(source, target)
    return None
