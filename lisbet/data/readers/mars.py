"""Poses of two mice as MARS writes them: JSON with keypoints and scores of one video."""

import json
from pathlib import Path

import numpy as np
import xarray as xr

from lisbet.core.errors import DataError
from lisbet.data.files.limits import require_memory, require_regular
from lisbet.data.readers._peek import Peek
from lisbet.data.readers._reader import Kind, RecordingReader, only

POSES = Kind("MARS poses")
MEMORY_PER_BYTE = 8
"""Numbers of JSON are Python objects before they are an array."""


def _recognise(peek: Peek) -> Kind | None:
    import ijson

    if not peek.start.lstrip().startswith(b"{"):
        return None
    try:
        for _, event, value in ijson.parse(peek.start):
            if event == "map_key":
                return POSES if value in ("keypoints", "scores", "bbox", "bscores") else None
    except ijson.JSONError:  # it is cut off there
        pass
    return None


def _read(files: list[Path]) -> xr.Dataset:
    from lisbet.data.hub._sequence import INDIVIDUALS, KEYPOINTS, tracks_of

    file = only(files)
    require_regular(file)
    require_memory(file.name, MEMORY_PER_BYTE * file.stat().st_size, "its poses")
    try:
        value = json.loads(file.read_bytes())
    except ValueError as error:
        raise DataError(
            f"{file.name} is no JSON, or is cut off: {error}; copy or export it again"
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"{file.name}: expected a mapping with the keys keypoints and scores")
    position, scores = tracks_of(value, file.name)
    return xr.Dataset(
        {
            "position": (("time", "individuals", "space", "keypoints"), position),
            "confidence": (("time", "individuals", "keypoints"), scores),
        },
        coords={
            "time": np.arange(len(position)), "space": ["x", "y"], "keypoints": list(KEYPOINTS),
            "individuals": list(INDIVIDUALS),
        },
        attrs={"source_software": "MARS", "time_unit": "frames"},
    )  # fmt: skip


READER = RecordingReader(patterns=("*_pose_top*.json",), recognise=_recognise, read=_read)
