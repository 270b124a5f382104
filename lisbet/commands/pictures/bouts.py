"""Bouts of behaviours: how long, how often, and what follows what.

A bout is an uninterrupted run of frames with a behaviour. Where only a part of a recording is
looked at, a bout that reaches beyond it counts with its frames inside.
"""

import numpy as np
import pandas as pd

STATISTICS = ("median", "mean", "min", "max")


def bouts_of(active: np.ndarray) -> np.ndarray:
    """Return the bouts of one behaviour.

    Parameters
    ----------
    active : ndarray
        (frames,), bool.

    Returns
    -------
    ndarray
        (bouts, 2): the first frame of each, and the one after its last.

    Examples
    --------
    >>> bouts_of(np.array([0, 1, 1, 0, 1], bool)).tolist()
    [[1, 3], [4, 5]]
    """
    edges = np.flatnonzero(np.diff(active.astype(np.int8), prepend=0, append=0))
    return edges.reshape(-1, 2)


def behavior_rows(
    names: tuple[str, ...], parts: list[np.ndarray], rates: list[float], unit: str
) -> pd.DataFrame:
    """Count the frames and bouts of each behaviour over some recordings.

    Parameters
    ----------
    names : tuple of str
        The behaviours.
    parts : list of ndarray
        (frames, behaviours) of each recording, bool.
    rates : list of float
        Frames of each for one unit of duration.
    unit : str
        That unit, for the names of the columns.

    Returns
    -------
    DataFrame
        A row for each behaviour: ``behavior``, ``frames``, ``share_of_time``, ``bouts``, and
        ``median_s``, ``mean_s``, ``min_s``, ``max_s`` (of the durations; NaN without bouts).
    """
    total = sum(map(len, parts))
    rows = []
    for number, name in enumerate(names):
        durations = np.concatenate(
            [
                np.diff(bouts_of(part[:, number]), axis=1).ravel() / rate
                for part, rate in zip(parts, rates, strict=True)
            ]
        )
        frames = sum(int(part[:, number].sum()) for part in parts)
        row = {"behavior": name, "frames": frames, "share_of_time": frames / total,
               "bouts": len(durations)}  # fmt: skip
        for statistic in STATISTICS:
            measure = getattr(np, statistic)
            row[f"{statistic}_{unit}"] = measure(durations) if len(durations) else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def transition_counts(active: np.ndarray) -> np.ndarray:
    """Count which behaviour begins next after each bout has begun.

    Bouts are taken in the order in which they begin; frames without a behaviour are no state. The
    next bout may begin before the end of this one, where behaviours overlap. Where n bouts begin
    next in the same frame, each counts 1/n.

    Parameters
    ----------
    active : ndarray
        (frames, behaviours), bool.

    Returns
    -------
    ndarray
        (behaviours, behaviours): from, to.
    """
    before = np.zeros_like(active)
    before[1:] = active[:-1]
    begins = (active & ~before).astype(float)
    begins = begins[begins.any(axis=1)]
    following = begins[1:] / begins[1:].sum(axis=1, keepdims=True)
    return begins[:-1].T @ following


def probabilities(counts: np.ndarray) -> np.ndarray:
    """Divide counts (from, to) by their rows; NaN where there is nothing to divide."""
    sums = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, sums, out=np.full_like(counts, np.nan), where=sums > 0)


def transition_rows(names: tuple[str, ...], counts: np.ndarray) -> pd.DataFrame:
    """Return a row for each pair of behaviours: ``from``, ``to``, ``count``, ``probability``."""
    shares = probabilities(counts)
    return pd.DataFrame(
        [
            {"from": one, "to": other, "count": counts[a, b], "probability": shares[a, b]}
            for a, one in enumerate(names)
            for b, other in enumerate(names)
        ]
    )
