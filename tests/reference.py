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


# Kinematics: loops over frames, animals and keypoints ---------------------------------------------


def kinematics(tracks, axis):
    """Quantities of each frame of one recording (frames, individuals, keypoints, space)."""
    frames, individuals = tracks.shape[:2]
    points = np.where((tracks != 0).any(-1, keepdims=True), tracks, np.nan).astype(float)
    pairs = [(a, b) for a in range(individuals) for b in range(a + 1, individuals)]
    return np.array([_quantities(points, frame, pairs, axis) for frame in range(frames)])


def _quantities(points, frame, pairs, axis):
    individuals = points.shape[1]
    centres = [mean_of(list(points[frame, a])) for a in range(individuals)]
    found = [
        np.log(np.linalg.norm(_velocity(points, frame, a)) + 0.0005) for a in range(individuals)
    ]
    found += [np.log(_distance(points, frame, a, b) + 0.005) for a, b in pairs]
    for a, b in pairs:
        gaps = [np.linalg.norm(p - q) for p in points[frame, a] for q in points[frame, b]]
        gaps = [gap for gap in gaps if np.isfinite(gap)]
        found.append(np.log(min(gaps) + 0.005) if gaps else np.nan)
    for a, b in pairs:
        if 2 <= frame < len(points) - 2:
            change = _distance(points, frame + 2, a, b) - _distance(points, frame - 2, a, b)
            found.append(np.arcsinh(-change / 4 / 0.0005))
        else:
            found.append(np.nan)
    if axis is not None:
        for a, b in [both for pair in pairs for both in (pair, pair[::-1])]:
            heading = points[frame, a, axis[0]] - points[frame, a, axis[1]]
            other = centres[b] - centres[a]
            found.append(heading @ other / np.linalg.norm(heading) / np.linalg.norm(other))
        front, back = axis
        for one, other, orders in ((front, front, 1), (back, back, 1), (front, back, 2)):
            for a, b in [order for pair in pairs for order in (pair, pair[::-1])[:orders]]:
                gap = points[frame, b, other] - points[frame, a, one]
                found.append(np.log(np.linalg.norm(gap) + 0.005))
    return found


def _velocity(points, frame, a):
    if not 2 <= frame < len(points) - 2:
        return np.array([np.nan])
    return mean_of(
        [(q - p) / 4 for p, q in zip(points[frame - 2, a], points[frame + 2, a], strict=True)]
    )


def _distance(points, frame, a, b):
    return np.linalg.norm(mean_of(list(points[frame, a])) - mean_of(list(points[frame, b])))


def mean_of(values):
    """Mean of those that are numbers; NaN if none is."""
    there = [value for value in values if np.isfinite(value).all()]
    return sum(there) / len(there) if there else np.full_like(values[0], np.nan)


def described(series, frame):
    """The quantities of a frame, their means over spans around it, and their changes."""
    found = list(series[frame])
    for span in (15, 31, 61):
        rows = range(frame - span // 2, frame + span // 2 + 1)
        padded = [
            series[r] if 0 <= r < len(series) else np.full(series.shape[1], np.nan) for r in rows
        ]
        half = span // 2
        for part in (padded, None):
            for column in range(series.shape[1]):
                if part is not None:
                    found.append(mean_of([row[column] for row in padded]))
                else:
                    before = mean_of([row[column] for row in padded[:half]])
                    found.append(mean_of([row[column] for row in padded[half + 1 :]]) - before)
    return np.array(found)
