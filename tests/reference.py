"""Slow and obvious: windows and tasks, one sample and one frame at a time.

Written from the meaning of the tasks, not from the package; it shares nothing with it but the
table of uniform numbers that a sample is made from.
"""

import math

import numpy as np


def frame_at(recording: np.ndarray, frame: int) -> np.ndarray:
    """One frame; outside the recording it is zeros. recording: (frames, individuals, K, S)."""
    if 0 <= frame < len(recording):
        return recording[frame]
    return np.zeros(recording.shape[1:], recording.dtype)


def window(recording: np.ndarray, frame: int, size: int, offset: int = 0) -> np.ndarray:
    """The frames frame-size+1+offset … frame+offset."""
    first = frame - size + 1 + offset
    return np.stack([frame_at(recording, f) for f in range(first, frame + offset + 1)])


def choose(u: float, count: int) -> int:
    return math.floor(u * count)


def draw(u: float, recordings: list[np.ndarray]) -> tuple[int, int]:
    """Uniform over all frames of all recordings."""
    everything = [(r, f) for r, recording in enumerate(recordings) for f in range(len(recording))]
    return everything[choose(u, len(everything))]


def cons(u, recordings, size, offset):
    r, f = draw(u[0], recordings)
    x = window(recordings[r], f, size, offset)
    if u[1] >= 0.5:
        return x, 0
    k = 1 + choose(u[2], x.shape[1] - 1)
    others = [(q, g) for q, other in enumerate(recordings) if q != r for g in range(len(other))]
    q, g = others[choose(u[3], len(others))]
    x[:, k:] = window(recordings[q], g, size, offset)[:, k:]
    return x, 1


def order(u, recordings, size, offset, negatives="strict"):
    r, f = draw(u[0], recordings)
    length = len(recordings[r])
    if u[1] < 0.5:
        label, (q, g) = 1, (r, range(f, length)[choose(u[2], length - f)])
    elif negatives == "strict":
        label, (q, g) = 0, (r, range(f + 1)[choose(u[2], f + 1)])
    else:
        allowed = [
            (q, g)
            for q, other in enumerate(recordings)
            for g in range(len(other))
            if q != r or g <= f
        ]
        label, (q, g) = 0, allowed[choose(u[2], len(allowed))]
    s = 1 + choose(u[3], size - 1)
    pre = window(recordings[r], f, size, offset)
    post = window(recordings[q], g, size, offset)
    return np.concatenate([pre[:s], post[s:]]), label


def shift(u, recordings, size, offset):
    r, f = draw(u[0], recordings)
    length = len(recordings[r])
    low, high = max(f - 60, 0), min(f + 60, length) - 1
    g = low + choose(u[1], high - low + 1)
    x = window(recordings[r], f, size, offset)
    k = 1 + choose(u[2], x.shape[1] - 1)
    x[:, k:] = window(recordings[r], g, size, offset)[:, k:]
    return x, int(g - f > 0)


def warp(u, recordings, size, offset):
    r, f = draw(u[0], recordings)
    speed = 0.5 + u[1]
    count = round(speed * size)
    taken = window(recordings[r], f, count, round(speed * offset)).astype(np.float64)
    flat = taken.reshape(count, -1)
    where = np.linspace(0, count - 1, size)
    x = np.stack([np.interp(where, np.arange(count), column) for column in flat.T], axis=1)
    return x.reshape(size, *taken.shape[1:]), int(speed > 1)
