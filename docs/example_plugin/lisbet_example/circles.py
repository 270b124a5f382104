"""A dataset: three recordings of two points that run in circles."""

from pathlib import Path

import numpy as np

from lisbet.options import FetchOptions

FRAMES, RECORDINGS = 200, 3


def write(options: FetchOptions) -> Path:
    """Write the recordings as tables of `long_csv`, with annotations; return their folder."""
    root = options.download_path / "datasets" / "Circles"
    for number in range(RECORDINGS):
        folder = root / f"circles{number}"
        folder.mkdir(parents=True, exist_ok=options.overwrite)
        angle = np.arange(FRAMES) / 20
        lines = ["frame,individual,keypoint,x,y"]
        for individual, speed in (("a", 1.0), ("b", 1.5 + number / 4)):
            for keypoint, radius in (("nose", 100), ("tail", 80)):
                x, y = 200 + radius * np.cos(speed * angle), 200 + radius * np.sin(speed * angle)
                lines += [
                    f"{frame},{individual},{keypoint},{x[frame]:.3f},{y[frame]:.3f}"
                    for frame in range(FRAMES)
                ]
        (folder / "tracks_long.csv").write_text("\n".join(lines) + "\n")
        (folder / "behaviours.txt").write_text("meet: 0-39\nmeet: 120-159\n")
    return root
