"""Datasets as they are published: recordings, annotations, and where they come from."""

import logging
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import xarray as xr

from lisbet.core.errors import DataError, OutputError
from lisbet.core.json_types import JsonDict
from lisbet.core.storage.files import require_writable
from lisbet.core.storage.folders import recover, write_folder
from lisbet.core.storage.lock import locked
from lisbet.core.storage.results import require_result_folder
from lisbet.core.yaml_files import read_yaml, write_yaml
from lisbet.data.files.ids import check_ids

log = logging.getLogger(__name__)

PROVENANCE = "dataset.yml"
KIND = "dataset"
"""Kind of the folders of datasets that were fetched, see `write_log`."""
COMPRESSED = {"zlib": True, "complevel": 1}


def publish_dataset(
    folder: Path,
    provenance: JsonDict,
    write: Callable[[Path], None],
    *,
    overwrite: bool = False,
) -> Path:
    """Fill a dataset's folder, unless it is there already.

    Parameters
    ----------
    folder : Path
        The folder to be.
    provenance : dict
        What the dataset is made of; the same provenance is the same dataset.
    write : callable
        Fills an empty folder.
    overwrite : bool
        Whether a dataset that was fetched before is replaced.

    Raises
    ------
    OutputError
        If the folder exists and is something else, or another process is writing it.
    """
    if not overwrite and _is_there(folder, provenance):
        return folder
    require_writable(folder.parent)
    if overwrite:
        require_result_folder(folder, KIND, overwrite=True)
    with locked(folder):
        recover(folder)
        if not overwrite and _is_there(folder, provenance):
            return folder
        replaces = frozenset({KIND} if overwrite else ())
        with write_folder(folder, KIND, replaces=replaces) as new:
            write(new)
            write_yaml(new / PROVENANCE, provenance)
    return folder


def _is_there(folder: Path, provenance: JsonDict) -> bool:
    """Whether a dataset was fetched before; an error if something else is there."""
    if not os.path.lexists(folder):
        return False
    there = folder / PROVENANCE
    if there.is_file() and read_yaml(there) == provenance:
        log.warning("%s is there already", folder)
        return True
    raise OutputError(
        f"{folder} exists and is not this dataset as it would be fetched now; replace it with "
        "--overwrite if betman fetched it, or rename it, or choose another --download_path"
    )


def recording_folder(root: Path, sequence: str) -> Path:
    """Make the folder of a sequence, whose id is a path below the dataset's folder."""
    check_ids([sequence], "the downloaded dataset")
    place = PurePosixPath(sequence)
    if any(part.startswith(".") for part in place.parts):
        raise DataError(
            f"the downloaded dataset: the id {sequence!r} has a part that begins with '.'; folders "
            "of such names are not searched for recordings"
        )
    folder = root / place
    folder.mkdir(parents=True)
    return folder


def write_tracks(
    folder: Path,
    position: np.ndarray,
    *,
    individuals: tuple[str, ...],
    keypoints: tuple[str, ...],
    fps: float,
    image_size_px: tuple[float, float],
    source: str,
    confidence: np.ndarray | None = None,
) -> None:
    """Write tracking.nc in the movement format.

    Parameters
    ----------
    folder : Path
        Of the recording.
    position : ndarray
        (frames, 2, keypoints, individuals), in pixels.
    individuals, keypoints : tuple of str
        Names.
    fps : float
        Frames per second.
    image_size_px : tuple of float
        Width and height of the video.
    source : str
        Where the tracks come from.
    confidence : ndarray, optional
        (frames, keypoints, individuals).
    """
    variables: JsonDict = {"position": (("time", "space", "keypoints", "individuals"), position)}
    if confidence is not None:
        variables["confidence"] = (("time", "keypoints", "individuals"), confidence)
    dataset = xr.Dataset(
        variables,
        coords={
            "time": np.arange(len(position)) / fps,
            "space": ["x", "y"],
            "keypoints": list(keypoints),
            "individuals": list(individuals),
        },
        attrs={
            "source_software": source,
            "ds_type": "poses",
            "fps": float(fps),
            "time_unit": "seconds",
            "image_size_px": list(image_size_px),
        },
    )
    encoding = dict.fromkeys(variables, COMPRESSED)
    dataset.to_netcdf(folder / "tracking.nc", engine="netcdf4", encoding=encoding)


def write_annotations(
    folder: Path,
    active: np.ndarray,
    *,
    behaviors: tuple[str, ...],
    annotator: str,
    fps: float,
    source: str,
) -> None:
    """Write annotations.nc: target_cls over time, behaviors, annotators.

    Parameters
    ----------
    folder : Path
        Of the recording.
    active : ndarray
        (frames, behaviours), bool.
    behaviors : tuple of str
        Names, in this order.
    annotator : str
        Who or what annotated.
    fps : float
        Frames per second.
    source : str
        Where the annotations come from.
    """
    dataset = xr.Dataset(
        {"target_cls": (("time", "behaviors", "annotators"), active[..., None].astype(np.int8))},
        coords={
            "time": np.arange(len(active)) / fps,
            "behaviors": list(behaviors),
            "annotators": [annotator],
        },
        attrs={"source_software": source, "fps": float(fps)},
    )
    encoding = {"target_cls": COMPRESSED}
    dataset.to_netcdf(folder / "annotations.nc", engine="netcdf4", encoding=encoding)
