"""SampleData: twenty simulated recordings of two mice, made on the spot."""

from pathlib import Path

import numpy as np

from lisbet.data.hub._simulate import ARENA_PX, FPS, INDIVIDUALS, KEYPOINTS, STATES, simulate
from lisbet.data.hub._write import (
    publish_dataset,
    recording_folder,
    write_annotations,
    write_tracks,
)
from lisbet.options import FetchOptions

SOURCE = "LISBET simulation (no real animals)"
SEED = 20
LENGTHS = [2400 + 150 * number for number in range(20)]
"""Frames of each recording."""


def simulated(options: FetchOptions) -> Path:
    """Make the recordings, unless they are there; return their folder."""
    provenance = {"dataset": f"SampleData, {SOURCE}", "seed": SEED, "frames": LENGTHS}
    folder = options.download_path / "datasets" / "SampleData"
    return publish_dataset(folder, provenance, write, overwrite=options.overwrite)


def write(root: Path, lengths: list[int] | None = None) -> None:
    """Write a folder for each simulated recording."""
    for number, recording in enumerate(simulate(lengths or LENGTHS, SEED)):
        folder = recording_folder(root, f"simulated{number:02}")
        position = recording.position.astype(np.float32)
        write_tracks(
            folder,
            position,
            individuals=INDIVIDUALS,
            keypoints=KEYPOINTS,
            fps=FPS,
            image_size_px=ARENA_PX,
            source=SOURCE,
            confidence=(~np.isnan(position[:, 0])).astype(np.float32),
        )
        write_annotations(
            folder,
            np.eye(len(STATES), dtype=bool)[recording.state],
            behaviors=STATES,
            annotator="simulation",
            fps=FPS,
            source=SOURCE,
        )
