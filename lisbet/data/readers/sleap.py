"""SLEAP analysis files, HDF5, written by SLEAP or sleap-io, and projects of one video (.slp)."""

import json
import logging
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from lisbet.core.errors import DataError
from lisbet.data.files.hdf5 import check_hdf5
from lisbet.data.files.limits import require_regular
from lisbet.data.readers._layouts import slp
from lisbet.data.readers._peek import Peek
from lisbet.data.readers._reader import Kind, RecordingReader, only

if TYPE_CHECKING:
    import h5py

log = logging.getLogger(__name__)

ANALYSIS = Kind("SLEAP analysis file")
EXPORT = (
    "export it for analysis, in SLEAP with File > Export Analysis HDF5, or with sleap-convert "
    "--format analysis"
)
PROJECT = Kind("SLEAP project", usable=False, advice=EXPORT, matters=True)
TRACKED = Kind("SLEAP project", spare=True)
IN_PROJECTS = {"frames", "instances", "points", "pred_points", "videos_json", "tracks_json"}
AXES = ("individuals", "space", "keypoints", "time")
"""Axes of `tracks` as SLEAP writes it; without transposing it has them in reverse order."""
AXIS_NAMES = {
    "track": "individuals", "instance": "individuals", "individual": "individuals",
    "animal": "individuals", "xy": "space", "xyz": "space", "space": "space", "coord": "space",
    "coordinate": "space", "node": "keypoints", "keypoint": "keypoints", "frame": "time",
    "time": "time",
}  # fmt: skip
"""How the attribute `dims` calls the axes, in the singular and without a leading n_."""


def _recognise(peek: Peek) -> Kind | None:
    if not peek.is_hdf5:
        return None
    root = peek.hdf5_root
    if root.get("tracks") == "dataset" and "node_names" in root:
        return ANALYSIS
    return _of_project(peek.path) if len(IN_PROJECTS & root.keys()) >= 2 else None


def _of_project(path: Path) -> Kind:
    """Return what a project is: one of tracks can be read, if there is no analysis file of them."""
    import h5py

    try:
        with h5py.File(path, "r") as root:
            if not slp.is_readable(root):
                return PROJECT
            reason = slp.why_not(root)
    except Exception:  # a damaged file makes the library raise almost anything
        return PROJECT
    return TRACKED if reason is None else replace(PROJECT, advice=f"{reason}; {EXPORT}")


def _read(files: list[Path], *, head: bool = False) -> xr.Dataset:
    import h5py

    file = only(files)
    require_regular(file)
    check_hdf5(file)
    with h5py.File(file, "r") as root:
        if len(IN_PROJECTS & set(root)) >= 2 and "tracks" not in root:
            return _project(root, file, head=head)
        for name in ("tracks", "node_names"):
            if not isinstance(root.get(name), h5py.Dataset):
                found = ", ".join(root) or "nothing"
                raise DataError(
                    f"{file.name} has no dataset {name!r} (found: {found}); expected a SLEAP "
                    f"analysis file. If it is a SLEAP project, {EXPORT}"
                )
        return _dataset(root, file.name, head=head)


def _head(files: list[Path]) -> xr.Dataset:
    return _read(files, head=True)


def _project(root: "h5py.Group", file: Path, *, head: bool) -> xr.Dataset:
    """Read a project, if it holds the tracks of one video."""
    if not slp.is_readable(root):
        raise DataError(f"{file.name} is a SLEAP project, not its analysis file; {EXPORT}")
    if reason := slp.why_not(root):
        raise DataError(f"{file.name} is a SLEAP project with {reason}. If it is tracked, {EXPORT}")
    try:
        return slp.to_dataset(file, head=head)
    except DataError:
        raise
    except Exception as error:  # a damaged file makes the library raise almost anything
        log.debug("%s", file, exc_info=True)
        raise DataError(
            f"{file.name} cannot be read as a SLEAP project: it is damaged, or of an unknown "
            f"version ({type(error).__name__}); {EXPORT}"
        ) from error


def _dataset(root: "h5py.Group", name: str, *, head: bool) -> xr.Dataset:
    tracks, nodes = root["tracks"], _names(root["node_names"])
    individuals = _names(root["track_names"]) if "track_names" in root else []
    axes = _axes(tracks, len(individuals), len(nodes), name)
    sizes = dict(zip(axes, tracks.shape, strict=True))
    individuals = individuals or [f"id_{number}" for number in range(sizes["individuals"])]
    for axis, names in (("individuals", individuals), ("keypoints", nodes)):
        if len(names) != sizes[axis]:
            raise DataError(
                f"{name}: 'tracks' has {sizes[axis]} {axis}, but {len(names)} names for them "
                f"({', '.join(names)}); expected a name for each. Export the file again"
            )
    first = {"time": 1} if head else {}
    position = xr.DataArray(_part(tracks, axes, first), dims=axes)
    data = {"position": position.transpose("time", "space", "keypoints", "individuals")}
    if "point_scores" in root:
        scores, own = root["point_scores"], tuple(axis for axis in axes if axis != "space")
        stated = _stated_axes(scores, name)
        for dims in [stated] if stated else [own, own[::-1]]:
            if scores.shape == tuple(sizes[axis] for axis in dims):
                confidence = xr.DataArray(_part(scores, dims, first), dims=dims)
                data["confidence"] = confidence.transpose("time", "keypoints", "individuals")
                break
    frames = 1 if head and sizes["time"] else sizes["time"]
    return xr.Dataset(
        data,
        coords={
            "time": np.arange(frames), "space": list("xyz"[: sizes["space"]]), "keypoints": nodes,
            "individuals": individuals,
        },
        attrs={"source_software": "SLEAP", "time_unit": "frames"},
    )  # fmt: skip


def _axes(tracks: "h5py.Dataset", individuals: int, keypoints: int, name: str) -> tuple[str, ...]:
    """Return what the axes of `tracks` are: as it states, else as its shape tells.

    Raises
    ------
    DataError
        If they cannot be determined.
    """
    stated = _stated_axes(tracks, name)
    if stated is None:
        for axes in (AXES, AXES[::-1]):
            if len(tracks.shape) != len(axes):
                break
            sizes = dict(zip(axes, tracks.shape, strict=True))
            enough = individuals in (0, sizes["individuals"])
            if sizes["space"] in (2, 3) and sizes["keypoints"] == keypoints and enough:
                return axes
    elif sorted(stated) == sorted(AXES) and len(tracks.shape) == len(AXES):
        sizes = dict(zip(stated, tracks.shape, strict=True))
        if sizes["space"] in (2, 3):
            return stated
    said = f", stated to be {', '.join(stated)}" if stated else ""
    raise DataError(
        f"{name}: 'tracks' has the shape {'x'.join(map(str, tracks.shape))}{said}, for "
        f"{individuals} names of tracks and {keypoints} of nodes; expected tracks x 2 x nodes x "
        "frames, or the order in an attribute 'dims'. Export the file again"
    )


def _stated_axes(dataset: "h5py.Dataset", name: str) -> tuple[str, ...] | None:
    """Return the axes that the attribute `dims` of a dataset states; None without one."""
    raw = dataset.attrs.get("dims")
    if raw is None:
        return None
    text = raw.decode(errors="replace") if isinstance(raw, bytes) else raw
    try:
        words = json.loads(text) if isinstance(text, str) else np.asarray(text).tolist()
    except ValueError:
        words = re.findall(r"\w+", str(text))
    words = [word.decode() if isinstance(word, bytes) else str(word) for word in words]
    known = [AXIS_NAMES.get(re.sub("^n_|s$", "", word.lower().strip())) for word in words]
    if None in known or len(set(known)) < len(known):
        raise DataError(
            f"{name}: the attribute 'dims' of {dataset.name[1:]!r} is {', '.join(words)}; "
            "expected frame, track, node and xy in some order. Export the file again"
        )
    return tuple(axis for axis in known if axis is not None)


def _part(dataset: "h5py.Dataset", axes: tuple[str, ...], first: dict[str, int]) -> np.ndarray:
    if math.prod(dataset.shape) == 0:
        return np.zeros([min(s, first.get(a, s)) for a, s in zip(axes, dataset.shape, strict=True)])
    return np.asarray(dataset[tuple(slice(first.get(axis)) for axis in axes)])


def _names(dataset: "h5py.Dataset") -> list[str]:
    return [
        name.decode(errors="replace") if isinstance(name, bytes) else str(name)
        for name in dataset[:].tolist()
    ]


READER = RecordingReader(
    patterns=("*sleap*.h5", "*.slp"), recognise=_recognise, read=_read, head=_head
)
