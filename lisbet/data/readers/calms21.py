"""CalMS21 and other JSON of MARS with many sequences in one file: {group: {sequence: {…}}}.

A file is read one sequence at a time; with annotations, a sequence brings its own.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lisbet.core.address import is_address
from lisbet.core.config import DataPath, Features
from lisbet.core.errors import DataError
from lisbet.data.files.limits import require_memory, require_regular
from lisbet.data.labels import Labels
from lisbet.data.readers._reader import DatasetReader
from lisbet.data.record import Record

PATTERN = "calms21*.json"
START_BYTES = 4096
MEMORY_PER_BYTE = 2
"""A coordinate is about 18 bytes of text, and 8 as a number, twice while it is prepared."""


def _recognises(path: DataPath) -> bool:
    if is_address(path):
        return False
    place = Path(str(path))
    if place.is_dir():  # a folder with anything else in it may be one of recordings
        visible = [entry for entry in place.iterdir() if not entry.name.startswith(".")]
        return bool(visible) and len(_files(place)) == len(visible)
    return place.is_file() and place.suffix.lower() == ".json" and _is_nested(place)


def _is_nested(file: Path) -> bool:
    """Whether a file begins with two levels of names, above the keypoints of a sequence."""
    import ijson

    with file.open("rb") as stream:
        start = stream.read(START_BYTES)
    depth, parser = 0, ijson.parse(start)
    try:
        for _, event, value in parser:
            depth += event in ("start_map", "start_array")
            depth -= event in ("end_map", "end_array")
            if event == "map_key" and value in ("keypoints", "scores", "annotations", "metadata"):
                return depth == 3
    except ijson.JSONError:  # it is cut off there
        pass
    return False


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob(PATTERN) if file.is_file())


def _read(path: DataPath, annotated: bool) -> list[Record]:
    place = Path(str(path))
    if not place.exists():
        raise DataError(f"{place} does not exist; expected a JSON file of CalMS21")
    files = _files(place) if place.is_dir() else [place]
    if not files:
        raise DataError(f"{place} holds no file named {PATTERN}; expected JSON files of CalMS21")
    records = [record for file in files for record in _sequences(file, annotated=annotated)]
    if not records:
        raise DataError(f"{place} holds no sequences; expected {{group: {{sequence: …}}}}")
    ids = [record.id for record in records]
    if twice := next((own for own in ids if ids.count(own) > 1), None):
        raise DataError(
            f"{place}: the sequence {twice!r} is there twice; expected each once. Give the file "
            "with the one that is meant as the data path"
        )
    return sorted(records, key=lambda record: record.id)


def _sequences(file: Path, *, annotated: bool) -> Iterator[Record]:
    """Read the sequences of a file as recordings in pixels."""
    from lisbet.data.hub._archives import sequences
    from lisbet.data.hub._sequence import (
        FPS,
        IMAGE_PX,
        INDIVIDUALS,
        KEYPOINTS,
        behaviors_of,
        tracks_of,
    )

    require_regular(file)
    require_memory(file.name, MEMORY_PER_BYTE * file.stat().st_size, "its sequences")
    features = Features(individuals=INDIVIDUALS, keypoints=KEYPOINTS, space=("x", "y"))
    with file.open("rb") as stream:
        for _, sequence, value in sequences(stream, file.name):
            where = f"{file.name}, {sequence}"
            position, scores = tracks_of(value, where)
            if not len(position):
                raise DataError(f"{where}: no frames; expected at least one")
            record = Record.in_memory(sequence, position.transpose(0, 1, 3, 2), features)
            record = replace(record, fps=FPS, image_size_px=IMAGE_PX, confidence=scores)
            if annotated:
                if "annotations" not in value:
                    raise DataError(
                        f"{where}: no key 'annotations' (found: {', '.join(value)}); expected the "
                        "behaviour of each frame. Leave --annot_format out, or use another file"
                    )
                active, behaviors = behaviors_of(value, len(position), where)
                record = replace(record, labels=Labels(behaviors, active))
            yield record


READER = DatasetReader(recognises=_recognises, read=_read, prepared=False)
