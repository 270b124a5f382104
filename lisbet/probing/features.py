"""What probes are fitted to: the embedding of a model, and features made by hand to beat."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from lisbet.core.config import Window
from lisbet.data.bank import Bank, WindowIndex, gather
from lisbet.data.kinematics import REACH, described, kinematics
from lisbet.models.multitask import MultiTaskModel

SMOOTHING = (15, 61)
"""Frames over which embeddings are averaged, as the best control averages its quantities."""
FURTHEST = 4
"""Embeddings are averaged over frames that are at most so far apart."""
AT_ONCE = 2048
"""Frames that are described together."""
POSE, DISTANCES, FRAME, SMOOTHED = (
    "raw pose", "distances", "kinematics of the frame", "kinematics, averaged",
)  # fmt: skip
CONTROLS = (POSE, DISTANCES, FRAME, SMOOTHED)
"""Features without a network, in the order of what went into them."""
AVERAGED = ", averaged"
"""Ends the name of an embedding that is averaged over `SMOOTHING` as well."""


@torch.inference_mode()
def embeddings_of(
    network: MultiTaskModel,
    recording: Bank,
    window: Window,
    *,
    every: int = 1,
    fps_scaling: float = 1.0,
    batch_size: int = 128,
    device: torch.device | None = None,
) -> np.ndarray:
    """Return the embedding of the frames of one recording.

    Parameters
    ----------
    network : MultiTaskModel
        In evaluation mode, on the device.
    recording : Bank
        A bank that holds it alone.
    window : Window
        The window that the network was trained on.
    every : int
        Only each frame whose number is a multiple of this.
    fps_scaling : float
        Frames of the recording for one frame of a window.
    batch_size : int
        Windows in one forward pass.
    device : torch.device, optional
        Where to compute; default: the CPU.

    Returns
    -------
    ndarray
        (ceil(frames / every), embedding), float32.
    """
    device = device or torch.device("cpu")
    parts = []
    frames = np.arange(0, recording.frames, every)
    for start in range(0, len(frames), batch_size):
        frame = frames[start : start + batch_size]
        speed = None if fps_scaling == 1 else np.full(len(frame), fps_scaling)
        plain = WindowIndex.plain(np.zeros_like(frame), frame)
        index = WindowIndex(plain.record, plain.frame, speed=speed)
        windows = gather(recording, index, window).flatten(start_dim=2).to(device)
        tokens = network.backbone.frame_embedding(windows, window.output_token)
        parts.append(tokens.float().cpu())
    return torch.cat(parts).numpy()


def averaged(values: np.ndarray, every: int = 1) -> np.ndarray:
    """Add the means over `SMOOTHING` frames, centred on each, of the frames there are.

    Parameters
    ----------
    values : ndarray
        (frames, features).
    every : int
        The frames of a recording that they are of are so far apart.

    Returns
    -------
    ndarray
        (frames, (1 + spans)·features).
    """
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, 0, np.float64)])
    place, found = np.arange(len(values)), [values]
    for span in SMOOTHING:
        half = span // 2 // every
        first, end = np.maximum(place - half, 0), np.minimum(place + half + 1, len(values))
        found.append((sums[end] - sums[first]) / (end - first)[:, None])
    return np.concatenate(found, 1).astype(np.float32)


def controls_of(
    tracks: Tensor, axis: tuple[int, int] | None, frames: np.ndarray
) -> dict[str, np.ndarray]:
    """Compute the features without a network.

    Parameters
    ----------
    tracks : Tensor
        (frames, individuals, keypoints, space) of a recording; a missing point is 0.
    axis : tuple of int or None
        See `lisbet.data.kinematics.body_axis`.
    frames : ndarray
        (n,): which frames to describe.

    Returns
    -------
    dict of ndarray
        By the names in `CONTROLS`: (n, features), float32, NaN where points are missing. Of a
        single individual there are no distances.
    """
    series = kinematics(tracks, axis)
    individuals = tracks.shape[1]
    pairs = individuals * (individuals - 1) // 2
    parts = list(_around(series, frames))
    found = {POSE: tracks[frames].flatten(1), FRAME: series[frames], SMOOTHED: torch.cat(parts)}
    if pairs:
        found[DISTANCES] = series[frames, individuals : individuals + 2 * pairs]
    return {name: found[name].numpy() for name in CONTROLS if name in found}


def _around(series: Tensor, frames: np.ndarray) -> Iterator[Tensor]:
    """Describe frames from those around them, some at a time."""
    padding = torch.full((REACH, series.shape[1]), torch.nan)
    padded = torch.cat([padding, series, padding])
    reach = torch.arange(2 * REACH + 1)
    for start in range(0, len(frames), AT_ONCE):
        rows = torch.from_numpy(frames[start : start + AT_ONCE])
        yield described(padded[rows[:, None] + reach])


def strides(frames: int, most: int) -> tuple[int, int]:
    """Choose which frames are used, so that these are at most `most` of all frames.

    Returns
    -------
    used : int
        Each frame whose number is a multiple of this is used.
    every : int
        Each frame whose number is a multiple of this is embedded, to be averaged; it divides
        `used`.

    Examples
    --------
    >>> strides(192_000, 60_000)
    (4, 4)
    >>> strides(600_000, 60_000)
    (12, 4)
    """
    used = max(1, -(-frames // most))
    every = min(used, FURTHEST)
    return -(-used // every) * every, every
