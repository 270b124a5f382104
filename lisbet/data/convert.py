"""From recordings to one Zarr store, recording by recording: whole or not at all, and resumable.

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
from lisbet.data.labels import LABEL_READERS
from lisbet.data.load import Source, find_sources, ordered, read_all, report
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
from lisbet.errors import DataError, OutputError
from lisbet.options import ConvertOptions, DataOptions
from lisbet.processes import environment
from lisbet.publish import publish_folder, require_writable, sync

log = logging.getLogger(__name__)

OWN = {POSITION, LABELS, "behaviors", *Features.model_fields}
"""Arrays of a store, beside the table of its recordings."""
PREPARING = ("data_scale", "outside", "select_coords", "rename_coords", "fps")


def convert_dataset(options: ConvertOptions) -> None:
    """Convert a folder of recordings."""
    target, asked = options.target, _asked(options)
    sources = find_sources(options.dataset, options.data_filter)
    old = _existing(options)
    if old is not None and not options.overwrite:
        done = {str(name): str(seen) for name, seen in
                zip(old.table["recording"], old.table["source"], strict=True)}  # fmt: skip
        if old.group.attrs["preparation"] != asked:
            raise OutputError(_other_preparation(target, old.group.attrs["preparation"], asked))
        left_out = dict(old.group.attrs["left_out"])
        changed = [s.id for s in sources if s.id in done and done[s.id] != _seen(s, options)]
        if changed:
            raise DataError(
                f"{', '.join(changed[:5])} changed since {place_of(target)} was written; convert "
                "all of it again with --overwrite"
            )
        sources = [
            s for s in sources if s.id not in done and left_out.get(s.id) != _seen(s, options)
        ]
        if not sources:
            print(f"{place_of(target)} holds these recordings already")
            return
        if not options.append:
            raise OutputError(
                f"{place_of(target)} exists already and lacks {len(sources)} of these recordings, "
                f"such as {sources[0].id}; add them with --append, or replace it with --overwrite"
            )
    if not is_address(target):
        require_writable(target.parent)
    writer = Writer(options, asked, None if options.overwrite else old)
    writer.convert(sources)
    print(f"{len(writer.rows)} recordings, {writer.frames} frames written to {place_of(target)}")
    if options.storage == "float16":
        print(f"float16 moved coordinates by at most {writer.error:.2g} of the size of the video")
    for record_id in writer.left_out:
        print(f"left out: {record_id}")


def _asked(options: ConvertOptions) -> dict[str, Any]:
    """Return what the contents of a store follow from, beside the recordings."""
    values = options.model_dump(mode="json")
    return {name: values[name] for name in (*PREPARING, "annot_format", "storage")}


def _files(source: Source, options: ConvertOptions) -> list[Path]:
    """Return the files that a recording is made of, annotations included."""
    files = list(source.files)
    if options.annot_format is not None:
        files += LABEL_READERS[options.annot_format].find(source.files[0].parent)
    return files


def _seen(source: Source, options: ConvertOptions) -> str:
    """Return sizes and times of a recording's files: what tells whether they changed."""
    stats = [file.stat() for file in _files(source, options)]
    return ";".join(f"{stat.st_size}:{stat.st_mtime_ns}" for stat in stats)


def _hash(source: Source, options: ConvertOptions) -> str:
    """Return the SHA-256 of a recording's files."""
    digest = hashlib.sha256()
    for file in _files(source, options):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _existing(options: ConvertOptions) -> Store | None:
    """Return the store that is there already; anything else there is refused."""
    target = options.target
    if is_address(target):
        try:
            zarr.open_group(place_of(target), mode="r")
        except FileNotFoundError:
            return None
        except Exception as error:
            raise OutputError(f"{place_of(target)} cannot be reached: {error}") from error
    elif not target.exists():
        return None
    try:
        return Store.open(target)
    except DataError as error:
        if _is_ours(target, options):
            return None
        raise OutputError(f"{error}; choose another place to write to") from error


def _is_ours(target: Path, options: ConvertOptions) -> bool:
    """Whether what cannot be read as a store may be written over."""
    try:
        group = zarr.open_group(place_of(target), mode="r", zarr_format=3)
    except Exception:
        return False
    if group.attrs.get("format") == MARK:
        return options.overwrite  # a damaged one
    # At an address nothing can be renamed: what lacks the mark was not finished.
    return is_address(target) and not dict(group.attrs) and set(group) <= {*OWN, *COLUMNS}


def _other_preparation(target: Path, was: dict[str, Any], now: dict[str, Any]) -> str:
    lines = [f"  --{name}: was {was.get(name)!r}, is {now[name]!r}"
             for name in now if was.get(name) != now[name]]  # fmt: skip
    return (
        f"{place_of(target)} was converted with other options; use those, another place, or "
        "--overwrite:\n" + "\n".join(lines)
    )


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
    def journal(self) -> Path:
        """The file beside it that tells what of it is complete."""
        target = self.options.target
        return target.with_name(f".{target.name}.journal")

    def convert(self, sources: list[Source]) -> None:
        """Read, write and publish.

        Raises
        ------
        DataError
            If recordings cannot be used, and are not to be left out. Nothing is published.
        """
        seen = {source.id: _seen(source, self.options) for source in sources}
        try:
            self._begin(seen)
            with zarr.config.set({"array.write_empty_chunks": True}):  # a missing one is a damage
                problems = self._write_all(sources)
            if problems and not (self.options.skip_bad and self.rows):
                told = report(str(self.options.data_path), problems, len(sources))
                kept = "\nThe same command with --skip_bad leaves them out and goes on from there."
                raise DataError(told + kept * bool(self.rows))
            for record_id, why in problems.items():
                log.warning("%s is left out: %s", record_id, why)
                self.left_out[record_id] = seen[record_id]
            self._finish()
        except DataError:
            if self.hidden is not None and not self.kept:
                shutil.rmtree(self.hidden, ignore_errors=True)
                self.journal.unlink(missing_ok=True)
            raise
        except OSError as error:
            error.filename = error.filename or str(self.options.target)
            raise

    # Where it begins ------------------------------------------------------------------------------

    def _begin(self, seen: dict[str, str]) -> None:
        """Make the hidden folder, or take up that of an interrupted conversion."""
        if self.hidden is None:
            mode: Any = "r+" if self.old else "w"
            self.group = zarr.open_group(place_of(self.options.target), mode=mode, zarr_format=3)
            return self._add_to_old()
        before = None if self.old is None else self.old.group.attrs["digest"]
        request = {"preparation": self.asked, "sources": seen, "added_to": before}
        lines = _lines(self.journal)
        # The first shard is noted after all arrays are made.
        goes_on = self.hidden.is_dir() and len(lines) > 1 and lines[0] == request
        if not goes_on:
            self.journal.unlink(missing_ok=True)
            shutil.rmtree(self.hidden, ignore_errors=True)
            if self.old is None:
                self.hidden.mkdir()
                zarr.create_group(str(self.hidden), zarr_format=3)
            else:
                shutil.copytree(self.options.target, self.hidden, copy_function=_link_shard)
            self._note(request)
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

    def _note(self, line: dict[str, Any]) -> None:
        with self.journal.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    # Writing --------------------------------------------------------------------------------------

    def _write_all(self, sources: list[Source]) -> dict[str, str]:
        """Write recordings as they are read; return why some cannot be used."""
        known = {row["recording"] for row in self.rows}
        left = [source for source in sources if source.id not in known]
        options = DataOptions(**{k: getattr(self.options, k) for k in DataOptions.model_fields})
        workers = min(self.options.workers or environment.cores(), max(1, len(left)))
        problems = {}
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

    def _fitting(self, record: Record) -> Record:
        """Return a recording as the first one is; before the first one, make the arrays."""
        if self.features is None:
            self.features = record.features
            self.behaviors = record.labels.behaviors if record.labels else ()
        if POSITION not in self.group:
            new_arrays(self.group, self.features, self.behaviors, self.options.storage)
        record = ordered(record, self.features)
        if record.labels is None:
            return record
        if strange := set(record.labels.behaviors) - set(self.behaviors):
            raise DataError(
                f"behaviours {', '.join(sorted(strange))} are not among those of the first "
                f"recording: {', '.join(self.behaviors)}"
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
            "digest": record.digest, "source": _seen(source, self.options),
            "source_sha256": _hash(source, self.options),
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
            self._note({
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
            self.journal.unlink()


def track(records: Iterable[Record | str], total: int) -> Iterable[Record | str]:
    """Show progress on a terminal."""
    console = Console(file=sys.stderr)
    return rich.progress.track(
        records, "recordings", total, console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip


def _lines(path: Path) -> list[dict[str, Any]]:
    """Read a journal up to a line that was cut off."""
    lines: list[dict[str, Any]] = []
    if path.is_file():
        for text in path.read_text("utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                break
    return lines


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
