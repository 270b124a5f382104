"""Distances, speeds and headings of animals, computed from their tracks, and averages over time.

Tracks are tensors (…, frames, individuals, keypoints, space) in which a missing point is 0 on all
axes. Lengths are in units of the arena, speeds in those per frame. What cannot be computed, as
points are missing, is NaN.
"""

import functools
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from lisbet.core.config import Features, Window
from lisbet.core.errors import ConfigError, unknown

STEP = 2
"""Speeds compare the frames so many before and after."""
SPANS = (15, 31, 61)
"""Frames over which quantities are averaged, all centred on the frame that they describe."""
REACH = max(SPANS) // 2 + STEP
"""Frames before and after the described one that everything is computed from."""
AROUND = Window(size=2 * REACH + 1, offset=REACH)
"""The frames around a frame that `described` needs."""
LENGTH_FLOOR = 0.005
"""Distances are compared by their logarithm, above this: smaller ones are tracking noise."""
SPEED_FLOOR = 0.0005
"""The same for speeds."""
FRONT = ("nose", "snout", "head", "beak", "neck", "ear")
BACK = ("tailbase", "tail_base", "tail", "rump", "hip", "abdomen", "body")
"""Parts of the names of keypoints at the front and the back of an animal, the best first."""


def body_axis(
    features: Features, front: str | None = None, back: str | None = None
) -> tuple[int, int] | None:
    """Choose the keypoints that the heading of an animal follows from.

    Parameters
    ----------
    features : Features
        Names of the keypoints.
    front, back : str, optional
        The two keypoints; default: guessed from the names. If only a tail is recognised, the front
        is the first keypoint whose name says nothing about the back.

    Returns
    -------
    tuple of int or None
        Numbers of the front and the back; None if the names do not tell.

    Raises
    ------
    ConfigError
        If there is no keypoint of a given name, or it would be both the front and the back.
    """
    names = features.keypoints
    for name in (front, back):
        if name is not None and name not in names:
            raise ConfigError(unknown("keypoint", name, names))
    ends = [
        names.index(given) if given is not None else _first_with(words, names)
        for given, words in ((front, FRONT), (back, BACK))
    ]
    if ends[0] is None and ends[1] is not None:
        others = (n for n, name in enumerate(names) if _first_with(BACK, (name,)) is None)
        ends[0] = next(others, None)
    if ends[0] is None or ends[1] is None:
        return None
    if ends[0] == ends[1]:
        if front is None and back is None:
            return None
        raise ConfigError(
            f"keypoint {names[ends[0]]!r} would be both the front and the back of an animal; set "
            f"two of {', '.join(names)} by --set kinematics.front=…,kinematics.back=…"
        )
    return ends[0], ends[1]


def _first_with(words: tuple[str, ...], names: tuple[str, ...]) -> int | None:
    """Return the number of the first name that has the first of the words that any name has."""
    for word in words:
        for number, name in enumerate(names):
            if word in name.lower().replace("-", "_").replace(" ", "_"):
                return number
    return None


def quantity_names(individuals: tuple[str, ...], *, heading: bool) -> list[str]:
    """Name what `kinematics` returns, in its order."""
    pairs = list(combinations(individuals, 2))
    names = [f"log speed {one}" for one in individuals]
    for what in ("log distance of centres", "log nearest distance", "approach"):
        names += [f"{what} {one}-{other}" for one, other in pairs]
    if heading:
        ordered = [f"{a}->{b}" for one, other in pairs for a, b in ((one, other), (other, one))]
        names += [f"facing {both}" for both in ordered]
        for what in ("fronts", "backs"):
            names += [f"log distance of {what} {one}-{other}" for one, other in pairs]
        names += [f"log distance of front and back {both}" for both in ordered]
    return names


def described_names(quantities: list[str]) -> list[str]:
    """Name what `described` returns, in its order."""
    kinds = ["frame"]
    for span in SPANS:
        kinds += [f"mean of {span} frames", f"change over {span} frames"]
    return [f"{quantity}, {kind}" for kind in kinds for quantity in quantities]


def kinematics(tracks: Tensor, axis: tuple[int, int] | None) -> Tensor:
    """Compute the quantities of each frame.

    Parameters
    ----------
    tracks : Tensor
        (…, frames, individuals, keypoints, space).
    axis : tuple of int or None
        Numbers of the keypoints at the front and the back of an animal, see `body_axis`.

    Returns
    -------
    Tensor
        (…, frames, quantities): of each individual, the logarithm of its speed; of each pair, the
        logarithms of the distance of their centres and of their nearest keypoints, and the speed
        at which the centres approach, as asinh of its ratio to `SPEED_FLOOR`; with `axis`, of both
        animals of each pair, the cosine of the angle between heading and direction to the other,
        and the logarithms of the distances between the fronts of each pair, between their backs,
        and from the front of each to the back of the other.
    """
    axes = [own.contiguous() for own in tracks.unbind(-1)]  # missing points are 0 on each
    frames, there = tracks.shape[-4], functools.reduce(torch.logical_or, (a != 0 for a in axes))
    count = there.sum(-1)
    centre = torch.stack([own.sum(-1) / count for own in axes])
    # The mean of the keypoints that are there in both frames: one that is lost moves nothing.
    both = _later(there, -3) & _earlier(there, -3)
    steps = [((_later(own, -3) - _earlier(own, -3)) * both).sum(-1) / both.sum(-1) for own in axes]
    speed = _length(torch.stack(steps)) / (2 * STEP)
    found = [torch.log(_with_ends(speed, frames) + SPEED_FLOOR)]
    pairs = list(combinations(range(tracks.shape[-3]), 2))
    if not pairs:
        return found[0]
    apart = torch.stack([centre[..., b] - centre[..., a] for a, b in pairs], -1)
    distance = _length(apart)
    nearest = torch.stack([_nearest(axes, there, a, b) for a, b in pairs], -1)
    found += [torch.log(lengths + LENGTH_FLOOR) for lengths in (distance, nearest)]
    approach = (_earlier(distance, -2) - _later(distance, -2)) / (2 * STEP)
    found.append(torch.asinh(_with_ends(approach, frames) / SPEED_FLOOR))
    if axis is not None:
        orders = [order for pair in pairs for order in (pair, pair[::-1])]
        seen = there[..., axis[0]] & there[..., axis[1]]
        heading = torch.stack([own[..., axis[0]] - own[..., axis[1]] for own in axes])
        heading = torch.where(seen, heading, torch.nan)
        facing = [
            _cosine(heading[..., animal], sign * apart[..., number])
            for number, pair in enumerate(pairs)
            for animal, sign in zip(pair, (1, -1), strict=True)
        ]
        found.append(torch.stack(facing, -1))
        ends = [(end, end, *pair) for end in axis for pair in pairs]
        ends += [(*axis, *order) for order in orders]
        found.append(torch.log(_between(axes, there, ends) + LENGTH_FLOOR))
    return torch.cat(found, -1)


def _later(series: Tensor, dim: int) -> Tensor:
    """Return the frames from 2·STEP on, of those along an axis."""
    count = max(0, series.shape[dim] - 2 * STEP)
    return series.narrow(dim, series.shape[dim] - count, count)


def _earlier(series: Tensor, dim: int) -> Tensor:
    """Return the frames 2·STEP before those of `_later`."""
    return series.narrow(dim, 0, max(0, series.shape[dim] - 2 * STEP))


def _with_ends(changes: Tensor, frames: int) -> Tensor:
    """Return changes (…, frames, n) at the frames in their middles; NaN for STEP at both ends."""
    shape = (*changes.shape[:-2], STEP, changes.shape[-1])
    ends = changes.new_full(shape, torch.nan)
    return torch.cat([ends, changes, ends], -2)[..., :frames, :]


def _length(vectors: Tensor) -> Tensor:
    """Return the length of vectors (space, …)."""
    return vectors.square().sum(0).sqrt()


def _between(
    axes: Sequence[Tensor], there: Tensor, ends: Sequence[tuple[int, int, int, int]]
) -> Tensor:
    """Return distances (…, ends) between keypoints of two animals, NaN where one is missing.

    Each of the ends has the keypoint of the one animal and of the other, and their numbers.
    """

    def first(own: Tensor) -> Tensor:
        return torch.stack([own[..., animal, keypoint] for keypoint, _, animal, _ in ends], -1)

    def second(own: Tensor) -> Tensor:
        return torch.stack([own[..., animal, keypoint] for _, keypoint, _, animal in ends], -1)

    squares = ((second(along) - first(along)).square() for along in axes)
    seen = first(there) & second(there)
    return torch.where(seen, functools.reduce(torch.add, squares).sqrt(), torch.nan)


def _nearest(axes: Sequence[Tensor], there: Tensor, one: int, other: int) -> Tensor:
    """Return the smallest distance between keypoints of two animals; NaN without any."""
    # A keypoint that is missing is infinitely far away.
    own, others = (
        [torch.where(there[..., animal, :], along[..., animal, :], place) for along in axes]
        for animal, place in ((one, torch.inf), (other, -torch.inf))
    )
    least = torch.full((), torch.inf, dtype=axes[0].dtype, device=there.device)
    for keypoint in range(there.shape[-1]):  # faster than all pairs at once, which fill the cache
        parts = (b - a[..., keypoint, None] for a, b in zip(own, others, strict=True))
        least = torch.minimum(least, functools.reduce(torch.add, (p.square() for p in parts)))
    found = least.amin(-1).sqrt()
    return torch.where(found.isinf(), torch.nan, found)


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    """Return the cosine of the angle between vectors (space, …); NaN where one has no length."""
    return (one * other).sum(0) / (_length(one) * _length(other))


def described(series: Tensor) -> Tensor:
    """Describe the middle frame of quantities over time.

    Parameters
    ----------
    series : Tensor
        (…, frames, quantities), with at least half of the largest of `SPANS` on both sides.

    Returns
    -------
    Tensor
        (…, (1 + 2·spans)·quantities): the quantities themselves, and for each of `SPANS` their
        mean, and their mean of the half after the frame less that of the half before. Missing
        values are left out of the means.
    """
    middle = series.shape[-2] // 2
    there = series.isfinite()
    # Sums of all frames before each, and how many there are: a mean is a difference of two.
    sums, counts = (
        F.pad(own.cumsum(-2), (0, 0, 1, 0))
        for own in (torch.where(there, series, 0), there.to(series.dtype))
    )

    def mean(first: int, end: int) -> Tensor:
        count = counts[..., end, :] - counts[..., first, :]
        return (sums[..., end, :] - sums[..., first, :]) / count

    found = [series[..., middle, :]]
    for half in (span // 2 for span in SPANS):
        first, end = middle - half, middle + half + 1
        found.append(mean(first, end))
        found.append(mean(middle + 1, end) - mean(first, middle))
    return torch.cat(found, -1)
