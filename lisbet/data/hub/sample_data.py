"""SampleData: twenty simulated recordings of two mice, made on the spot."""

import logging
from pathlib import Path

import numpy as np
import xarray as xr

from lisbet.data.simulate import (
    ARENA_PX,
    FPS,
    INDIVIDUALS,
    KEYPOINTS,
    STATES,
    Simulation,
    simulate,
)
from lisbet.publish import published_folder

log = logging.getLogger(__name__)

SEED = 20
LENGTHS = [2400 + 150 * number for number in range(20)]
"""Frames of each recording."""


def fetch(download_path: Path) -> Path:
    """Write datasets/SampleData, unless it is there; return its folder."""
    folder = download_path / "datasets" / "SampleData"
    if folder.is_dir():
        log.warning("%s is there already; remove it to make it anew", folder)
        return folder
    with published_folder(folder) as beside:
        for number, recording in enumerate(simulate(LENGTHS, SEED)):
            place = beside / f"simulated{number:02}"
            place.mkdir()
            tracks(recording).to_netcdf(place / "tracking.nc", engine="netcdf4")
            annotations(recording).to_netcdf(place / "annotations.nc", engine="netcdf4")
    return folder


def tracks(recording: Simulation) -> xr.Dataset:
    """Return the tracks in the movement format."""
    position = recording.position.astype(np.float32)
    return xr.Dataset(
        {
            "position": (("time", "space", "keypoints", "individuals"), position),
            "confidence": (
                ("time", "keypoints", "individuals"),
                (~np.isnan(position[:, 0])).astype(np.float32),
            ),
        },
        coords={
            "time": np.arange(len(position)) / FPS,
            "space": ["x", "y"],
            "keypoints": list(KEYPOINTS),
            "individuals": list(INDIVIDUALS),
        },
        attrs={
            "source_software": "LISBET simulation (no real animals)",
            "ds_type": "poses",
            "fps": float(FPS),
            "time_unit": "seconds",
            "image_size_px": list(ARENA_PX),
        },
    )


def annotations(recording: Simulation) -> xr.Dataset:
    """Return the simulated states as annotations."""
    chosen = np.eye(len(STATES), dtype=np.int8)[recording.state]
    return xr.Dataset(
        {"target_cls": (("time", "behaviors", "annotators"), chosen[..., None])},
        coords={
            "time": np.arange(len(chosen)) / FPS,
            "behaviors": list(STATES),
            "annotators": ["simulation"],
        },
        attrs={"source_software": "LISBET simulation (no real animals)", "fps": float(FPS)},
    )
