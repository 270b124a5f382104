"""Poses in NWB files, as the extension ndx-pose writes them: one PoseEstimation for each animal.

They are not read through movement, which reads one animal and takes no notice of others, and counts
time from the median step, so that frames that were left out shift all later ones;
tests/test_more_readers.py shows it.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from lisbet.core.errors import DataError
from lisbet.data.files.hdf5 import check_hdf5
from lisbet.data.files.limits import require_memory, require_regular, shape_text
from lisbet.data.readers._layouts.dlc_table import ALONE
from lisbet.data.readers._peek import Peek
from lisbet.data.readers._reader import Kind, RecordingReader, only

if TYPE_CHECKING:
    import h5py

log = logging.getLogger(__name__)

POSES = Kind("NWB file with poses")
WITHOUT = Kind("NWB file", usable=False, advice="no PoseEstimation of ndx-pose in it")
ROOT = {"identifier", "session_description", "session_start_time"}
TYPE = "PoseEstimation"
VIEWS = re.compile(r"cam(era)?\d*|view|top|bottom|side|front|back|left|right", re.I)
"""Words in the names of poses that are views of the same animals."""
SOURCES = ("original_videos", "source_video", "device", "devices")
"""Where poses name their videos and cameras; it depends on the release of ndx-pose."""
PREFIX = "PoseEstimationSeries"
"""Some programs put it before the name of each keypoint."""
SPACE = ("x", "y", "z")


def _recognise(peek: Peek) -> Kind | None:
    if not peek.is_hdf5 or not peek.hdf5_root.keys() >= ROOT:
        return None
    import h5py

    try:
        with h5py.File(peek.path, "r") as root:
            return POSES if _has_poses(root) else WITHOUT
    except Exception:  # damaged, which is said when it is read
        return POSES


def _has_poses(root: "h5py.Group") -> bool:
    """Whether a processing module holds poses."""
    for module in root.get("processing", {}).values():
        for item in getattr(module, "values", tuple)():
            kind = item.attrs.get("neurodata_type", "")
            if (kind.decode() if isinstance(kind, bytes) else kind) == TYPE:
                return True
    return False


def _read(files: list[Path], *, head: bool = False) -> xr.Dataset:
    file = only(files)
    require_regular(file)
    try:
        import ndx_pose  # noqa: F401  (it teaches pynwb its types)
        import pynwb
    except ImportError as error:
        raise DataError(
            f"{file.name} is an NWB file, which needs the packages pynwb and ndx-pose "
            f"({error}); install them with: pip install 'lisbet[nwb]'"
        ) from error
    check_hdf5(file)
    try:
        with pynwb.NWBHDF5IO(str(file), mode="r") as stream:
            return _of_content(stream.read(), file.name, head=head)
    except DataError:
        raise
    except Exception as error:  # a damaged file makes the libraries raise almost anything
        log.debug("%s", file, exc_info=True)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{file.name} cannot be read as nwb: it is damaged, or no NWB file ({reason}); copy or "
            "export it again"
        ) from error


def _of_content(content: Any, name: str, *, head: bool) -> xr.Dataset:
    """Return the poses of all animals of an open file."""
    found = [
        item
        for module in content.processing.values()
        for item in module.data_interfaces.values()
        if item.neurodata_type == TYPE
    ]
    if not found:
        raise DataError(
            f"{name} holds no {TYPE} of ndx-pose in a processing module; expected one for each "
            "animal"
        )
    names = _individuals(found, name)
    return _joined([_of_animal(poses, name, head=head) for poses in found], names, name)


def _head(files: list[Path]) -> xr.Dataset:
    return _read(files, head=True)


def _individuals(found: list[Any], name: str) -> list[str]:
    """Name the animals as their poses are named; a single one as in other formats.

    Raises
    ------
    DataError
        If the poses may be views of the same animals, by several cameras.
    """
    if len(found) == 1:
        return [ALONE]
    names = [poses.name for poses in found]
    sources = [{_source(poses, field) for poses in found} - {()} for field in SOURCES]
    words = [set(re.split(r"[^a-z0-9]+", _spaced(own).lower())) for own in names]
    views = any(VIEWS.fullmatch(word) for own in words for word in own - set.intersection(*words))
    if any(len(own) > 1 for own in sources) or views or len(set(names)) < len(names):
        raise DataError(
            f"{name} holds the poses {', '.join(names)}, which are of several cameras or videos; "
            "expected one for each animal of one video. Write those of each video to a file of its "
            "own"
        )
    return names


def _spaced(name: str) -> str:
    """Return a name with spaces before its capital letters."""
    return re.sub("(?<=[a-z0-9])(?=[A-Z])", " ", name)


def _source(poses: Any, field: str) -> tuple[str, ...]:
    """Return the names of the videos or cameras of some poses; none if they do not tell."""
    raw = poses.fields.get(field)
    if raw is None:
        return ()
    items = raw.values() if isinstance(raw, Mapping) else [raw] if hasattr(raw, "name") else raw[:]
    return tuple(sorted(str(getattr(item, "name", item)) for item in items))


def _of_animal(poses: Any, name: str, *, head: bool) -> xr.Dataset:
    """Return position and confidence of one animal, (time, keypoints, …)."""
    series = list(poses.pose_estimation_series.values())
    if not series:
        raise DataError(f"{name}: {poses.name} holds no keypoints; expected a series for each")
    names = [own.name for own in series]
    if all(own.startswith(PREFIX) and own != PREFIX for own in names):
        names = [own.removeprefix(PREFIX) for own in names]
    frames, axes = series[0].data.shape[0], series[0].data.shape[-1]
    for own in series:
        if own.data.shape != (frames, axes) or axes not in (2, 3):
            raise DataError(
                f"{name}: {poses.name}/{own.name} has the shape "
                f"{'x'.join(map(str, own.data.shape))}; expected frames x 2 or frames x 3, and as "
                f"many frames as the other keypoints ({frames})"
            )
    frames = min(frames, 2) if head else frames
    shape = (frames, len(series), axes)
    require_memory(name, 16 * frames * len(series) * axes, shape_text(poses.name, shape))
    times = _times(series[0], frames)
    position = np.full(shape, np.nan)
    confidence = np.full(shape[:2], np.nan)
    for number, own in enumerate(series):
        if not np.array_equal(_times(own, frames), times):
            raise DataError(
                f"{name}: the times of {poses.name}/{own.name} are not those of "
                f"{series[0].name}; expected the same for all keypoints of an animal"
            )
        position[:, number] = np.asarray(own.data[:frames], dtype=np.float64) * own.conversion
        if own.confidence is not None:
            confidence[:, number] = own.confidence[:frames]
    dataset = xr.Dataset(
        {
            "position": (("time", "keypoints", "space"), position),
            "confidence": (("time", "keypoints"), confidence),
        },
        # From the first frame: NWB counts from the start of the session, not of the video.
        coords={"time": times - times[:1], "keypoints": names, "space": list(SPACE[:axes])},
        attrs={
            "time_unit": "seconds",
            "source_software": poses.fields.get("source_software") or "NWB",
        },
    )
    if series[0].rate:
        dataset.attrs["fps"] = float(series[0].rate)
    return dataset


def _times(series: Any, frames: int) -> np.ndarray:
    """Return the times of the frames in seconds."""
    if series.rate:
        return np.arange(frames) / float(series.rate)
    return np.asarray(series.timestamps[:frames], dtype=np.float64)


def _joined(parts: list[xr.Dataset], names: list[str], name: str) -> xr.Dataset:
    """Return the animals as one recording; keypoints that one does not have are missing."""
    first = parts[0]
    for part, own in zip(parts, names, strict=True):
        if not np.array_equal(part["time"], first["time"]) or part["space"].size != (
            first["space"].size
        ):
            raise DataError(
                f"{name}: the times or axes of {own} are not those of {names[0]}; expected poses "
                "of one video. Write each to a file of its own"
            )
    keypoints = list(dict.fromkeys(k for part in parts for k in part["keypoints"].values.tolist()))
    whole = [
        part.reindex(keypoints=keypoints).expand_dims(individuals=[own])
        for part, own in zip(parts, names, strict=True)
    ]
    joined = xr.concat(whole, dim="individuals", join="exact", combine_attrs="override")
    return joined.assign_attrs(first.attrs)


READER = RecordingReader(patterns=("*.nwb",), recognise=_recognise, read=_read, head=_head)
