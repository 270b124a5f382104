"""A converted dataset: one Zarr store of prepared tracks that is read in ranges of frames.

``position`` (frame, individuals, keypoints, space) holds the frames of all recordings one behind
the other, in [0, 1], NaN where a point is missing; ``target_cls`` (frame, behaviors) what was
annotated. The place and the properties of each recording are along the dimension ``recording``.
The store is plain Zarr v3 with named dimensions: ``xarray.open_zarr`` shows all of it.
"""

import json
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.errors import ZarrUserWarning

from lisbet.core.address import is_address, place_of
from lisbet.core.config import Features
from lisbet.core.errors import DataError
from lisbet.core.json_types import JsonDict
from lisbet.data.files.limits import require_memory
from lisbet.data.labels import Labels
from lisbet.data.record import Record
from lisbet.data.tracks import Stored
from lisbet.data.zarr.store_check import (
    check_arrays,
    check_attributes,
    check_names,
    check_table,
    parse_steps,
)
from lisbet.data.zarr.types import ZarrGroup

MARK, VERSION = "lisbet-dataset", 1
UNFINISHED = "lisbet-dataset-unfinished"
"""Marks a store at an address that is not complete yet."""
SHARD_BYTES = 128 * 2**20
"""Size of a shard before compression: few and large files, as parallel file systems want them."""
CHUNK_BYTES = 2**20
"""What is read and checked at once; `benchmarks/converted.py chunks` compares sizes."""
LARGE_BYTES = 2**30
"""Before so much is read at once, the free memory is asked for."""
METADATA_BYTES = 64 * 2**20
"""Most bytes of a store's metadata."""
POSITION, LABELS = "position", "target_cls"


@dataclass(frozen=True, eq=False)
class Store:
    """A store opened for reading.

    Parameters
    ----------
    path : Path
        Where it is: a folder, or an address.
    group : zarr.Group
        The store.
    features : Features
        Names along the axes of the tracks.
    behaviors : tuple of str
        Names of the annotated behaviours; empty without annotations.
    table : dict of ndarray
        What is known of each recording: recording (its id), start, frames, fps, missing, digest,
        steps.
    """

    path: Path
    group: ZarrGroup = field(repr=False)
    features: Features
    behaviors: tuple[str, ...]
    table: dict[str, np.ndarray] = field(repr=False)

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Open a store.

        Raises
        ------
        DataError
            If there is none, or it is none of ours.
        """
        group = _open(path)
        marked = (group.attrs.get("format"), group.attrs.get("version"))
        if marked[0] == UNFINISHED:
            copy = group.attrs.get("copied_from")
            raise DataError(
                f"{place_of(path)} is not complete: its conversion is running or was interrupted"
                + (f"; a complete copy is at {sibling_of(place_of(path), copy)}" if copy else "")
                + ". Give the same command of betman convert_dataset again"
            )
        if marked != (MARK, VERSION):
            what = "another program's Zarr store" if marked[0] != MARK else f"version {marked[1]}"
            raise DataError(
                f"{place_of(path)} is {what}; expected one that betman convert_dataset of this "
                "release wrote"
            )
        place = place_of(path)
        labels = LABELS if LABELS in group else None
        try:
            check_attributes(dict(group.attrs), place)
            check_arrays(group, place, POSITION, labels, COLUMNS)
            names = {axis: tuple(map(str, group[axis][:])) for axis in Features.model_fields}
            check_names(names, place)
            table = {name: group[name][:] for name in COLUMNS}
            behaviors = tuple(map(str, group["behaviors"][:])) if labels else ()
            check_table(table, group[POSITION].shape[0], place)
            parse_steps(table["steps"].tolist(), place)
        except DataError:
            raise
        except Exception as error:  # a damaged store makes the libraries raise almost anything
            raise DataError(f"{place} is damaged: {_words(error)}") from error
        return cls(path, group, Features(**names), behaviors, table)

    def records(self, *, annotated: bool = False) -> list[Record]:
        """Return all recordings; their tracks are read when they are used, annotations at once.

        Raises
        ------
        DataError
            If annotations are wanted and there are none, or they cannot be read.
        """
        labels: Iterator[Labels | None] = iter([None] * len(self.table["start"]))
        if annotated:
            if not self.behaviors:
                raise DataError(
                    f"{place_of(self.path)} holds no annotations; convert the recordings again "
                    "with --annot_format"
                )
            labels = self._labels()
        steps_of = parse_steps(self.table["steps"].tolist(), place_of(self.path))
        columns = zip(*(self.table[name].tolist() for name in COLUMNS), labels, strict=True)
        return [
            Record(
                id=record_id,
                tracks=Stored(self, start, frames, missing, digest, self.features),
                features=self.features,
                fps=None if np.isnan(fps) else fps,
                steps=steps_of[steps],
                labels=own,
            )
            for record_id, start, frames, fps, missing, digest, _, _, steps, own in columns
        ]

    def _labels(self) -> Iterator[Labels]:
        values = self._read(LABELS, 0, self.group[LABELS].shape[0])
        if values.size and (values.min() < 0 or values.max() > 1):
            raise DataError(
                f"{place_of(self.path)} is damaged: {LABELS!r} holds values other than 0 and 1. "
                "Copy it again, or convert the recordings again"
            )
        active = values.astype(bool)
        for start, frames in zip(self.table["start"], self.table["frames"], strict=True):
            yield Labels(self.behaviors, active[start : start + frames])

    def read(self, first: int, last: int) -> np.ndarray:
        """Read the tracks of a range of frames: (frames, individuals, keypoints, space), float32.

        Raises
        ------
        DataError
            If they cannot be read, or are not what was written.
        """
        values = self._read(POSITION, first, last).astype(np.float32, copy=False)
        low, high = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
        if low < 0 or high > 1:
            raise DataError(
                f"{place_of(self.path)} is damaged: {POSITION!r} of frames {first} to {last - 1} "
                f"({self._who(first, last)}) runs from {low:g} to {high:g}; expected values from 0 "
                "to 1. Copy it again, or convert the recordings again"
            )
        return values

    def _read(self, name: str, first: int, last: int) -> np.ndarray:
        try:
            array = self.group[name]
            for shard in range(first // array.shards[0], -(-last // array.shards[0])):
                key = "/".join(["c", str(shard), *"0" * (array.ndim - 1)])
                if not sync(array.store.exists(f"{array.path}/{key}")):
                    raise FileNotFoundError(f"{array.path}/{key} is missing")  # read as if empty
            needed = (last - first) * math.prod(array.shape[1:]) * array.dtype.itemsize
            if needed > LARGE_BYTES:
                require_memory(f"{first} to {last}", needed, "these frames")
            read: np.ndarray = array[first:last]
        except Exception as error:  # of the file system, the network, a checksum, a codec
            self._require_same()
            raise DataError(
                f"{place_of(self.path)}: frames {first} to {last - 1} ({self._who(first, last)}) "
                f"cannot be read: {_words(error)}. Copy or convert the dataset again"
            ) from error
        self._require_same()  # after reading: what was read is of the store that was opened
        return read

    def _require_same(self) -> None:
        """Refuse a store that was replaced by one of other recordings since it was opened.

        Others may have been added: those that are there do not change.
        """
        if _digest_now(self.group) in (self.group.attrs.get("digest"), None):
            return
        try:
            now = Store.open(self.path)
            count = len(self.table["start"])
            same = now.features == self.features and all(
                np.array_equal(now.table[name][:count], self.table[name])
                for name in ("recording", "start", "frames", "digest")
            )
        except DataError:
            same = False
        if not same:
            raise DataError(
                f"{place_of(self.path)} was replaced while it was read: its recordings are not "
                "those that this command began with. Restore the earlier store (a run resumes "
                "from its last checkpoint with --resume), or start again with the present one"
            )

    def _who(self, first: int, last: int) -> str:
        """Name the recordings that have frames in a range."""
        starts = self.table["start"]
        hit = np.flatnonzero((starts < last) & (starts + self.table["frames"] > first))
        ids = [str(self.table["recording"][number]) for number in hit[[0, -1]]] if len(hit) else []
        return " to ".join(dict.fromkeys(ids)) or "no recording"


COLUMNS = ("recording", "start", "frames", "fps", "missing", "digest", "source", "source_sha256",
           "steps")  # fmt: skip
"""What is known of each recording, in the order in which it is written."""
TABLE_ROWS = 1024
"""Recordings in a chunk of their table, or more: later ones are added without many small files."""
METADATA = "zarr.json"
OWN_ARRAYS = (POSITION, LABELS, "behaviors", *Features.model_fields, *COLUMNS)
"""Names of all arrays of a store."""
_OWN_KEY = re.compile(rf"zarr\.json|({'|'.join(OWN_ARRAYS)})/(zarr\.json|c(/[0-9]+)*)")
_SHARD = re.compile(rf"(?:{POSITION}|{LABELS})/c/([0-9]+)(?:/0)*")


def new_arrays(
    group: ZarrGroup,
    features: Features,
    behaviors: tuple[str, ...],
    storage: str,
    *,
    shard_bytes: int | None = None,
    chunk_bytes: int | None = None,
) -> None:
    """Make the empty arrays of a store, and its names along the axes.

    Shards and chunks have at most SHARD_BYTES and CHUNK_BYTES, unless other sizes are given.
    """
    shard_bytes, chunk_bytes = shard_bytes or SHARD_BYTES, chunk_bytes or CHUNK_BYTES
    size = features.size * np.dtype(storage).itemsize
    chunk = max(1, chunk_bytes // size)
    shard_rows = chunk * max(1, shard_bytes // (chunk * size))
    codecs = (BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"), Crc32cCodec())
    shaped = [(POSITION, storage, features.shape, tuple(Features.model_fields), float("nan"))]
    if behaviors:
        shaped.append((LABELS, "int8", (len(behaviors),), ("behaviors",), 0))  # type: ignore[arg-type]
    for name, dtype, shape, dimensions, empty in shaped:
        group.create_array(
            name,
            shape=(0, *shape),
            dtype=dtype,
            chunks=(chunk, *shape),
            shards=(shard_rows, *shape),
            compressors=codecs,
            fill_value=empty,
            dimension_names=("frame", *dimensions),
        )
    for axis in Features.model_fields:
        _write_names(group, axis, getattr(features, axis))
    if behaviors:
        _write_names(group, "behaviors", behaviors)


def write_table(group: ZarrGroup, rows: list[JsonDict]) -> None:
    """Write what is known of each recording; rows that are there already stay where they are.

    Chunks are only added, or replaced by ones with further rows: whoever reads a store that is
    being added to finds the old rows.
    """
    for name in COLUMNS:
        values = np.array([row[name] for row in rows])
        if values.dtype.kind == "U":
            values = values.astype(np.dtypes.StringDType())
        if name not in group:
            group.create_array(
                name,
                shape=values.shape,
                dtype=values.dtype,
                chunks=(max(len(rows), TABLE_ROWS),),
                dimension_names=("recording",),
            )
        array = group[name]
        array.resize(values.shape)
        array[:] = values


def finished_metadata(group: ZarrGroup, attributes: JsonDict) -> bytes:
    """Return the ``zarr.json`` of a finished store: attributes, and the metadata of its arrays.

    It is one file, so that writing it completes a store, or changes one, in one step.
    """
    memory = zarr.storage.MemoryStore()
    prototype = default_buffer_prototype()
    zarr.create_group(memory, zarr_format=3, attributes=attributes)
    for name in OWN_ARRAYS:
        content = sync(group.store.get(f"{name}/{METADATA}", prototype))
        if content is not None:
            sync(memory.set(f"{name}/{METADATA}", content))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZarrUserWarning)  # that others may not know of it
        zarr.consolidate_metadata(memory)
    content = sync(memory.get(METADATA, prototype))
    assert content is not None
    return content.to_bytes()


def write_metadata(group: ZarrGroup, content: bytes) -> None:
    """Write the ``zarr.json`` of a store."""
    buffer = default_buffer_prototype().buffer.from_bytes(content)
    sync(group.store.set(METADATA, buffer))


def sibling_of(place: str, token: str) -> str:
    """Return the address next to a store's at which its replacement is written."""
    return f"{place.rstrip('/')}.partial-{token}"


def is_own_key(key: str) -> bool:
    """Whether a file of this name, relative to a store, belongs to a store of ours."""
    return _OWN_KEY.fullmatch(key) is not None


def shard_of(key: str) -> int | None:
    """Return the number of the shard of tracks or annotations that a file is; None for others."""
    match = _SHARD.fullmatch(key)
    return None if match is None else int(match[1])


def _write_names(group: ZarrGroup, name: str, names: tuple[str, ...]) -> None:
    values = np.array(names, dtype=np.dtypes.StringDType())
    group.create_array(name, data=values, dimension_names=(name,))


def _digest_now(group: ZarrGroup) -> str | None:
    """Return the digest that a store has by now, "" if it has lost it; None if it is gone."""
    try:
        found = sync(group.store.get("zarr.json", prototype=default_buffer_prototype()))
        return None if found is None else json.loads(found.to_bytes())["attributes"]["digest"]
    except (ValueError, KeyError, TypeError):
        return ""  # it is being written


def _open(path: Path) -> ZarrGroup:
    if not is_address(path):
        if not path.is_dir():
            what = "is a file" if path.exists() else "does not exist"
            raise DataError(f"{path} {what}; expected a store that betman convert_dataset wrote")
        if (path / ".zgroup").exists() or (path / ".zattrs").exists():
            raise DataError(f"{path} is a store of Zarr's version 2; convert the recordings again")
        if not (path / "zarr.json").exists():
            raise DataError(
                f"{path} is no Zarr store: it has no zarr.json; expected one that betman "
                "convert_dataset wrote, or another --data_format"
            )
        if (size := (path / "zarr.json").stat().st_size) > METADATA_BYTES:
            raise DataError(
                f"{path / 'zarr.json'} has {size} bytes; expected at most {METADATA_BYTES}. Copy "
                "the store again, or convert the recordings again"
            )
    try:
        return zarr.open_group(place_of(path), mode="r", zarr_format=3)
    except Exception as error:
        hint = " (pip install 'lisbet[remote]')" if isinstance(error, ImportError) else ""
        raise DataError(
            f"{place_of(path)} cannot be opened as a Zarr store: {_words(error)}{hint}"
        ) from error


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
