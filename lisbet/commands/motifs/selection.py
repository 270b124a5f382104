"""Which motifs recur over models with different numbers of states, and which stand for them.

The algorithm is that of the published tool: motifs that are frequent, long and near to another one
are clustered by their Jaccard distances (average linkage), into as many clusters as have the
largest mean silhouette.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.metrics import silhouette_samples

from lisbet.core.errors import DataError, counted

CHUNK = 262_144
"""Frames that are counted at a time."""
FEWEST = 3
"""Motifs of which clusters can be compared: of two, there is one cluster or each is its own."""


@dataclass(frozen=True)
class MotifStatistics:
    """What is counted of motifs.

    Parameters
    ----------
    together : ndarray
        (motifs, motifs): frames in which both are on; on the diagonal, frames of each.
    bouts : ndarray
        (motifs,): how often each begins. A bout does not reach over the end of a recording.
    frames : int
        Frames of all recordings.
    """

    together: np.ndarray
    bouts: np.ndarray
    frames: int

    @property
    def fractions(self) -> np.ndarray:
        """Fraction of the frames that each has: (motifs,)."""
        return np.diagonal(self.together) / self.frames

    def durations(self, fps: float) -> np.ndarray:
        """Mean duration of the bouts of each in seconds, 0 where there are none: (motifs,)."""
        return np.diagonal(self.together) / np.maximum(self.bouts, 1) / fps

    @property
    def distances(self) -> np.ndarray:
        """Jaccard distances, 1 - |both| / |either|: (motifs, motifs).

        1 between motifs that are never on.
        """
        count = np.diagonal(self.together)
        either = count[:, None] + count[None, :] - self.together
        found = 1 - self.together / np.maximum(either, 1)
        np.fill_diagonal(found, 0)
        return found


def count(recordings: Sequence[np.ndarray]) -> MotifStatistics:
    """Count frames and bouts of motifs.

    Parameters
    ----------
    recordings : sequence of ndarray
        (frames, motifs) of each recording, bool.

    Notes
    -----
    The matrix products are of float32, which is exact for counts below 2**24.
    """
    motifs = recordings[0].shape[1]
    together = np.zeros((motifs, motifs), np.int64)
    bouts = np.zeros(motifs, np.int64)
    for active in recordings:
        for start in range(0, len(active), CHUNK):
            part = active[start : start + CHUNK].astype(np.float32)
            together += (part.T @ part).astype(np.int64)
        bouts += active[:1].sum(axis=0) + (active[1:] & ~active[:-1]).sum(axis=0)
    return MotifStatistics(together, bouts, sum(map(len, recordings)))


@dataclass(frozen=True)
class Selection:
    """Clusters of motifs, and the motif that stands for each.

    Parameters
    ----------
    kept : ndarray
        (kept,) motifs that were clustered.
    distances : ndarray
        (kept, kept): their Jaccard distances.
    tree : ndarray
        (kept - 1, 4): their linkage matrix, see `scipy.cluster.hierarchy.linkage`.
    all_labels : ndarray
        (kept - 2, kept): clusters from 0, for 2 to kept - 1 clusters.
    all_scores : ndarray
        (kept - 2,): mean silhouette of each.
    silhouettes : ndarray
        (kept,): of each motif, with the best number of clusters.
    prototypes : ndarray
        (clusters,): for each cluster, the place of its prototype in `kept`.
    """

    kept: np.ndarray
    distances: np.ndarray
    tree: np.ndarray
    all_labels: np.ndarray
    all_scores: np.ndarray
    silhouettes: np.ndarray
    prototypes: np.ndarray

    @property
    def best(self) -> int:
        """Row of the best number of clusters."""
        return int(np.argmax(self.all_scores))

    @property
    def labels(self) -> np.ndarray:
        """The cluster of each motif, with the best number of clusters: (kept,)."""
        return self.all_labels[self.best]


def keep(
    counts: MotifStatistics,
    *,
    fps: float,
    frame_threshold: float,
    bout_threshold: float,
    distance_threshold: float,
) -> np.ndarray:
    """Return which motifs are frequent, long and near to another one that is both.

    Raises
    ------
    DataError
        If fewer than `FEWEST` are, naming how many each threshold has left.
    """
    frequent = counts.fractions >= frame_threshold
    lasting = frequent & (counts.durations(fps) >= bout_threshold)
    chosen = np.flatnonzero(lasting)
    near = counts.distances[np.ix_(chosen, chosen)] + np.diag(np.full(len(chosen), np.inf))
    kept = chosen[near.min(axis=1, initial=np.inf) <= distance_threshold]
    if len(kept) < FEWEST:
        raise DataError(
            f"of {counted(len(frequent), 'motif')}, {frequent.sum()} are frequent enough "
            f"(--frame_threshold={frame_threshold:g}), {lasting.sum()} of these last long enough "
            f"(--bout_threshold={bout_threshold:g}, --fps={fps:g}), and {len(kept)} of these are "
            f"near enough to another one (--distance_threshold={distance_threshold:g}); expected "
            f"at least {FEWEST}. Relax the threshold that leaves too few, or use more numbers of "
            "states"
        )
    return kept


def select(distances: np.ndarray, kept: np.ndarray, method: Literal["min", "best"]) -> Selection:
    """Cluster motifs and choose a prototype of each cluster.

    Parameters
    ----------
    distances : ndarray
        (motifs, motifs): Jaccard distances of all motifs.
    kept : ndarray
        Those that are clustered, at least `FEWEST`.
    method : str
        Prototype of a cluster: its first motif ("min"), which is of the model with the fewest
        states, or the one with the highest silhouette ("best").
    """
    near = distances[np.ix_(kept, kept)]
    tree = linkage(squareform(near, checks=False), "average", optimal_ordering=True)
    numbers = range(2, len(kept))
    all_labels = np.stack([fcluster(tree, n, "maxclust") - 1 for n in numbers])
    each = [_silhouettes(near, labels) for labels in all_labels]
    scores = np.array([silhouettes.mean() for silhouettes in each])
    best = int(np.argmax(scores))
    prototypes = []
    for cluster in np.unique(all_labels[best]):
        members = np.flatnonzero(all_labels[best] == cluster)
        place = 0 if method == "min" else int(np.argmax(each[best][members]))
        prototypes.append(members[place])
    return Selection(kept, near, tree, all_labels, scores, each[best], np.array(prototypes))


def _silhouettes(distances: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the silhouette of each motif; -1 where equal distances allow only one cluster."""
    if len(np.unique(labels)) < 2:
        return np.full(len(labels), -1.0)
    found: np.ndarray = silhouette_samples(distances, labels, metric="precomputed")
    return found
