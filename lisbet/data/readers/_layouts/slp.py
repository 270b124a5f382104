"""SLEAP projects (.slp): the tracks of one video.

They are read through sleap-io. movement reads them, too, but takes the first of several videos and
the last of several animals without tracks, and says nothing; tests/test_more_readers.py shows it.
What makes a project ambiguous is found here, in the tables `frames` and `instances` of the file.
"""

import logging
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from lisbet.data.files.limits import require_memory, shape_text
from lisbet.data.readers._layouts.dlc_table import ALONE

if TYPE_CHECKING:
    import h5py

log = logging.getLogger(__name__)

USER, PREDICTED = 0, 1
"""Values of `instance_type`: placed by a person, or by the network."""
TABLES = ("frames", "instances", "pred_points", "points")
NO_TRACK = -1
SPARSE = 10
"""Projects with fewer labelled frames than one in so many are training data."""


def is_readable(root: "h5py.Group") -> bool:
    """Whether a project holds the tables that `to_dataset` needs."""
    import h5py

    return all(isinstance(root.get(name), h5py.Dataset) for name in TABLES)


def why_not(root: "h5py.Group") -> str | None:
    """Return why a project holds no tracks of one video, or None.

    Parameters
    ----------
    root : h5py.Group
        The file.
    """
    frames, instances = root["frames"][:], root["instances"][:]
    videos = len(np.unique(frames["video"]))
    if videos > 1:
        return f"labelled frames of {videos} videos; expected those of one"
    if not len(instances):
        return "no instances, so there are no tracks"
    last = int(frames["frame_idx"].max())
    if len(frames) * SPARSE < last + 1:
        return (
            f"{len(frames)} labelled frames up to frame {last}, which is training data; expected "
            f"tracks on at least one in {SPARSE} frames"
        )
    if instances["skeleton"].any():
        return "instances of several skeletons; expected one"
    counts = Counter(
        zip(
            *(instances[field].tolist() for field in ("frame_id", "track", "instance_type")),
            strict=True,
        )
    )
    if "tracks_json" not in root or not len(root["tracks_json"]):
        most = max(counts.values())
        return f"no tracks, and {most} animals in one frame" if most > 1 else None
    for (_, track, _), count in counts.items():
        if track != NO_TRACK and count > 1:
            return f"{count} instances of track {track} in one frame; expected one"
    return None


def to_dataset(file: Path, *, head: bool = False) -> xr.Dataset:
    """Read the tracks of a project.

    Instances that a person placed come before predicted ones, as in SLEAP's own export, and have
    the confidence 1. Instances without a track are left out if the project has tracks.

    Parameters
    ----------
    file : Path
        A project for which `why_not` returns None.
    head : bool
        Whether only the names matter: all points of a single frame are missing then.

    Returns
    -------
    xarray.Dataset
        In the movement format, from frame 0 of the video to its last frame, if the project states
        it, else to the last labelled one.

    Raises
    ------
    DataError
        If it does not fit in memory.
    """
    import sleap_io

    # Loading lazily is fast, but its values are wrong (sleap-io 0.9.5): only names are taken then.
    labels = sleap_io.load_slp(str(file), open_videos=False, lazy=head)
    nodes = [node.name for node in labels.skeletons[0].nodes]
    individuals = [track.name for track in labels.tracks] or [ALONE]
    frames, stated = 1, dict[str, Any]()
    if not head:
        stated = _stated(labels.labeled_frames[0].video)
        last = max(int(frame.frame_idx) for frame in labels.labeled_frames)
        frames = max(last + 1, stated.pop("frames", 0))
    shape = (frames, len(nodes), len(individuals), 3)
    require_memory(file.name, 8 * math.prod(shape), shape_text("position", shape))
    values = np.full(shape, np.nan)
    if not head:
        _fill(values, labels, file.name)
    return xr.Dataset(
        {
            "position": (("time", "keypoints", "individuals", "space"), values[..., :2]),
            "confidence": (("time", "keypoints", "individuals"), values[..., 2]),
        },
        coords={
            "time": np.arange(frames), "space": ["x", "y"], "keypoints": nodes,
            "individuals": individuals,
        },
        attrs={"source_software": "SLEAP", "time_unit": "frames", **stated},
    )  # fmt: skip


def _fill(values: np.ndarray, labels: Any, name: str) -> None:
    """Put the points of all instances into (frames, keypoints, individuals, x y confidence)."""
    place = {id(track): number for number, track in enumerate(labels.tracks)}
    left_out = 0
    for frame in labels.labeled_frames:
        for instance in (*frame.predicted_instances, *frame.user_instances):
            at = place.get(id(instance.track), None if labels.tracks else 0)
            if at is None:
                left_out += 1
            else:
                values[int(frame.frame_idx), :, at] = _points(instance)
    if left_out:
        log.warning("%s: %d instances without a track are left out", name, left_out)


def _points(instance: Any) -> np.ndarray:
    """Return x, y and confidence of each node; the confidence is 1 where a person placed it."""
    if hasattr(instance, "score"):
        return np.asarray(instance.numpy(scores=True))
    points = np.asarray(instance.numpy())
    return np.column_stack([points, np.where(np.isnan(points).any(axis=1), np.nan, 1.0)])


def _stated(video: Any) -> dict[str, Any]:
    """Return what a project says of its video: frames, frame rate and size in pixels."""
    metadata = video.backend_metadata or {}
    found: dict[str, Any] = {}
    shape = metadata.get("shape")
    if isinstance(shape, list | tuple) and len(shape) == 4 and all(shape):
        found["frames"] = int(shape[0])
        found["image_size_px"] = [float(shape[2]), float(shape[1])]
    fps = metadata.get("fps")
    if isinstance(fps, int | float) and fps > 0:
        found["fps"] = float(fps)
    return found
