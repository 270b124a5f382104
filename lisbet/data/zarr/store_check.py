"""Check a converted dataset from others when it is opened: sizes first, then what it states."""

import json
import math
import re
from collections.abc import Iterable

import numpy as np

from lisbet.core.config import Features
from lisbet.core.errors import DataError
from lisbet.core.json_types import JsonDict
from lisbet.data.files.ids import check_ids
from lisbet.data.files.limits import bytes_of, require_memory, shape_text
from lisbet.data.zarr.types import ZarrGroup

RECORDINGS = 10_000_000
STEPS_CHARACTERS = 2**20
"""Most recordings of a store, and characters of what was done to one."""
KINDS = {"start": "iu", "frames": "iu", "fps": "f", "missing": "f"}
"""Types of the columns of the table; the others are text."""
COMPRESSORS = {"BloscCodec", "Crc32cCodec"}
"""How tracks and annotations are compressed; Blosc limits what a chunk can become to 2 GB."""
TEXT = "UTO"


def check_arrays(
    group: ZarrGroup, place: str, position: str, labels: str | None, columns: Iterable[str]
) -> None:
    """Check shapes, types and chunks of the arrays of a store, without reading them.

    Parameters
    ----------
    group : zarr.Group
        The store.
    place : str
        Where it is, for messages.
    position, labels : str
        Names of the arrays of tracks and of annotations (None if there are none).
    columns : iterable of str
        Names of the columns of the table of recordings.

    Raises
    ------
    DataError
        If an array is missing or cannot be what betman convert_dataset wrote.
    """
    import zarr

    names = [*Features.model_fields, *(["behaviors"] if labels else [])]
    columns = list(columns)
    arrays = {}
    for name in (*names, *columns, position, *([labels] if labels else [])):
        array = group.get(name)
        if not isinstance(array, zarr.Array):
            raise _damaged(place, f"there is no array {name!r}")
        arrays[name] = array
        chunk = math.prod(array.chunks) * array.dtype.itemsize
        require_memory(place, chunk, shape_text(f"chunk of {name}", array.chunks))
    for name in (*names, *columns):
        array = arrays[name]
        if array.ndim != 1 or array.shape[0] > RECORDINGS:
            raise _damaged(
                place, f"{shape_text(name, array.shape)}; expected at most {RECORDINGS} values"
            )
        if array.dtype.kind not in KINDS.get(name, TEXT):
            raise _damaged(place, f"{name!r} holds {array.dtype}")
        needed = max(array.nbytes, bytes_of(array.shape, array.dtype.kind))
        require_memory(place, needed, shape_text(name, array.shape))
    lengths = {name: arrays[name].shape[0] for name in columns}
    if len(set(lengths.values())) > 1:
        text = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise _damaged(place, f"the columns of its table differ in length ({text})")
    _check_frames(arrays, place, position, labels)


def _check_frames(arrays: JsonDict, place: str, position: str, labels: str | None) -> None:
    """Check the arrays that have a row for each frame."""
    shape = tuple(arrays[axis].shape[0] for axis in Features.model_fields)
    expected = {position: ("f", shape)}
    if labels is not None:
        expected[labels] = ("iub", arrays["behaviors"].shape)
    for name, (kinds, features) in expected.items():
        array = arrays[name]
        if array.shape[1:] != features or array.dtype.kind not in kinds or 0 in features:
            raise _damaged(
                place,
                f"{shape_text(name, array.shape)} holds {array.dtype}; expected frames x "
                f"{' x '.join(map(str, features))}, as many as there are names",
            )
        if array.shards is None or array.chunks[1:] != array.shape[1:]:
            raise _damaged(place, f"{name!r} is not stored in shards of whole frames")
        compressors = {type(codec).__name__ for codec in (*array.filters, *array.compressors)}
        if strange := compressors - COMPRESSORS:
            raise _damaged(place, f"{name!r} is compressed by {', '.join(sorted(strange))}")
        index = 16 * array.shards[0] // array.chunks[0]  # place and size of each chunk
        require_memory(place, index, f"the index of a shard of {name!r}")
    if labels is not None:
        if arrays[labels].shape[0] != arrays[position].shape[0]:
            raise _damaged(
                place,
                f"{labels!r} has {arrays[labels].shape[0]} frames, {position!r} has "
                f"{arrays[position].shape[0]}",
            )
        size = math.prod(arrays[labels].shape)
        require_memory(place, size, shape_text(labels, arrays[labels].shape))


def check_names(names: dict[str, tuple[str, ...]], place: str) -> None:
    """Check the names along the axes.

    Raises
    ------
    DataError
        If an axis names something twice or not at all.
    """
    for axis, own in names.items():
        if len(set(own)) < len(own) or "" in own:
            raise _damaged(place, f"{axis} are named twice or not at all: {', '.join(own):.200}")


def check_table(table: dict[str, np.ndarray], frames: int, place: str) -> None:
    """Check what a store states of its recordings.

    Parameters
    ----------
    table : dict of ndarray
        The columns of its table.
    frames : int
        Frames of its tracks.
    place : str
        Where it is, for messages.

    Raises
    ------
    DataError
        If an id cannot be used, or a recording is outside the tracks or overlaps another one.
    """
    ids = [str(record_id) for record_id in table["recording"].tolist()]
    check_ids(ids, place)
    if not ids:
        raise _damaged(place, "it holds no recordings")
    start, count = table["start"], table["frames"]
    end = start.astype(object) + count.astype(object)  # Python's numbers do not overflow
    for number in np.flatnonzero((start < 0) | (count < 1) | (end > frames)):
        raise _damaged(
            place,
            f"{ids[number]!r} has {count[number]} frames from frame {start[number]} on, of "
            f"{frames} frames in all",
        )
    order = np.argsort(start, kind="stable")
    for number in np.flatnonzero(end[order][:-1] > start[order][1:]):
        one, other = (ids[order[number + more]] for more in (0, 1))
        raise _damaged(place, f"the recordings {one!r} and {other!r} share frames")
    for name, low, high in (("missing", 0, 1), ("fps", 0, np.inf)):
        values = table[name]
        good = (values >= low) & (values <= high) if name == "missing" else (
            np.isnan(values) | ((values > low) & (values < high))
        )  # fmt: skip
        for number in np.flatnonzero(~good):
            wanted = "a share from 0 to 1" if name == "missing" else "a positive number, or NaN"
            raise _damaged(
                place, f"{name!r} of {ids[number]!r} is {values[number]}, which is not {wanted}"
            )
    for record_id, digest in zip(ids, table["digest"].tolist(), strict=True):
        if not re.fullmatch("[0-9a-f]{64}", str(digest)):
            raise _damaged(place, f"'digest' of {record_id!r} is no SHA-256")


def parse_steps(texts: Iterable[str], place: str) -> dict[str, tuple[str, ...]]:
    """Read what was done to recordings: each text is a list of sentences, in JSON.

    Raises
    ------
    DataError
        If one is something else.
    """
    found = {}
    for text in set(texts):
        try:
            if len(text) > STEPS_CHARACTERS:
                raise ValueError(f"{len(text)} characters")
            steps = json.loads(text)
            if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
                raise ValueError("no list of texts")
        except (ValueError, RecursionError) as error:
            raise _damaged(
                place, f"'steps' of a recording is {text[:40]!r}, not a list of texts in JSON"
            ) from error
        found[text] = tuple(steps)
    return found


def check_attributes(attributes: JsonDict, place: str) -> None:
    """Check what a store states of itself.

    Raises
    ------
    DataError
        If something is missing or of another type.
    """
    kinds: JsonDict = {
        "preparation": dict,
        "digest": str,
        "left_out": dict,
        "greatest_error": (int, float),
    }
    for name, kind in kinds.items():
        if not isinstance(attributes.get(name), kind):
            raise _damaged(place, f"its attribute {name!r} is {attributes.get(name)!r:.60}")


def _damaged(place: str, problem: str) -> DataError:
    return DataError(
        f"{place} is damaged: {problem}. Copy it again, or convert the recordings again"
    )
