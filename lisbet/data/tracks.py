"""The tracks of one recording: in memory, or in a store and read when they are used."""

import hashlib
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np

from lisbet.core.config import Features


class Tracks(Protocol):
    """Positions of the keypoints of one recording, over its frames."""

    @property
    def frames(self) -> int:
        """Number of frames."""

    @property
    def missing(self) -> float:
        """Fraction of the points (individual, keypoint, frame) that are missing."""

    @property
    def digest(self) -> str:
        """SHA-256 of the tracks in float32, with 0 for missing points."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return frames start … stop-1: (frames, individuals, keypoints, space).

        A missing point is NaN on all axes.
        """

    def part(self, start: int, stop: int) -> Self:
        """Return the tracks of frames start … stop-1, without reading or copying them."""


@dataclass(frozen=True, eq=False)
class InMemory:
    """Tracks in memory.

    Parameters
    ----------
    array : ndarray
        (frames, individuals, keypoints, space); NaN for missing points.
    """

    array: np.ndarray

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.array)

    @property
    def missing(self) -> float:
        """Fraction of the points that are missing."""
        return float(np.isnan(self.array[..., 0]).mean())

    @property
    def digest(self) -> str:
        """SHA-256 of the tracks in float32, with 0 for missing points."""
        values = np.nan_to_num(np.asarray(self.array, np.float32), nan=0.0)
        return hashlib.sha256(values.tobytes()).hexdigest()

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return a view of some frames."""
        return self.array[start:stop]

    def part(self, start: int, stop: int) -> "InMemory":
        """Return the tracks of some frames."""
        return InMemory(self.array[start:stop])


class TrackStore(Protocol):
    """Reads the frames of one or many recordings."""

    def read(self, first: int, last: int) -> np.ndarray:
        """Return frames first … last-1 of the store."""


@dataclass(frozen=True, eq=False)
class Stored:
    """Tracks that lie in a store, and are read when they are used.

    Parameters
    ----------
    store : TrackStore or None
        Where they lie; None if only another process can read them.
    start, frames : int
        Which frames of the store.
    missing : float
        Fraction of the points that are missing.
    digest : str
        SHA-256 of the tracks in float32, with 0 for missing points.
    features : Features
        Names along the axes.
    order : tuple of tuple of int, optional
        Indices in the store of the individuals, keypoints and axes, if their order there is
        another one.
    """

    store: TrackStore | None
    start: int
    frames: int
    missing: float
    digest: str
    features: Features
    order: tuple[tuple[int, ...], ...] | None = None

    def read(self, start: int, stop: int) -> np.ndarray:
        """Read some frames, as float32."""
        assert self.store is not None, "these tracks are read by another process"
        read = self.store.read(self.start + start, self.start + stop)
        return self.arranged(read).astype(np.float32)

    def arranged(self, read: np.ndarray) -> np.ndarray:
        """Return frames as the store has them, (frames, …), in the order of `features`."""
        if self.order is None:
            return read
        return read[np.ix_(*map(np.asarray, (range(len(read)), *self.order)))]

    def reordered(self, features: Features) -> "Stored":
        """Return the tracks with the same names along the axes, in another order."""
        order = tuple(
            tuple(own.index(name) for name in wanted)
            for (_, own), (_, wanted) in zip(self.features, features, strict=True)
        )
        # The digest of the tracks in this order is not known without reading them; this one is
        # a function of the same data.
        digest = hashlib.sha256(f"{self.digest} {order}".encode()).hexdigest()
        if self.order is not None:
            order = tuple(
                tuple(before[n] for n in own) for before, own in zip(self.order, order, strict=True)
            )
        return replace(self, features=features, order=order, digest=digest)

    def part(self, start: int, stop: int) -> "Stored":
        """Return some of the frames; `missing` and `digest` stay those of all frames."""
        return replace(self, start=self.start + start, frames=stop - start)
