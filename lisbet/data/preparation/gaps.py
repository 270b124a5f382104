"""Points that the tracker is not sure of, and points that are missing for a few frames."""

from dataclasses import replace

import numpy as np

from lisbet.core.errors import DataError
from lisbet.data.record import Record


def with_confidence(record: Record, minimum: float | None) -> Record:
    """Take points of less confidence for missing.

    Parameters
    ----------
    record : Record
        As read.
    minimum : float or None
        Least confidence of a point that is kept; None keeps all.

    Returns
    -------
    Record
        Without the confidence itself, which is not needed any more.

    Raises
    ------
    DataError
        If the file does not say how sure the tracker was.
    """
    if minimum is None:
        return replace(record, confidence=None)
    if record.confidence is None:
        raise DataError(
            f"--min_confidence={minimum:g} needs the confidence (likelihood, score) of each point, "
            "which this file does not have; leave the option out, or export the file with it"
        )
    with np.errstate(invalid="ignore"):
        sure = (record.confidence >= minimum)[..., np.newaxis]  # False where it is NaN
    position = np.where(sure, record.position, np.nan)
    lost = int(np.isnan(position[..., 0]).sum() - np.isnan(record.position[..., 0]).sum())
    if np.isnan(position).all():
        raise DataError(
            f"every point has a confidence below {minimum:g}; pass a smaller --min_confidence"
        )
    step = f"{lost} points of confidence below {minimum:g} taken for missing"
    return replace(record.with_position(position, step), confidence=None)


def without_gaps(record: Record, max_gap: int) -> Record:
    """Interpolate points that are missing for a few frames in a row.

    Parameters
    ----------
    record : Record
        Its position may have any unit.
    max_gap : int
        Longest gap that is filled, in frames. Missing points before the first and after the last
        position of a point stay missing.
    """
    position = record.position
    missing = np.isnan(position[..., 0])
    if not max_gap or not missing.any():
        return record
    frames = len(position)
    frame = np.arange(frames).reshape(-1, 1, 1)
    before = np.maximum.accumulate(np.where(missing, -1, frame), axis=0)
    after = np.minimum.accumulate(np.where(missing, frames, frame)[::-1], axis=0)[::-1]
    short = missing & (before >= 0) & (after < frames) & (after - before - 1 <= max_gap)
    at, individual, keypoint = np.nonzero(short)
    if not len(at):
        return record
    first, last = before[short], after[short]
    share = ((at - first) / (last - first))[:, np.newaxis]
    filled = position.copy()
    filled[short] = (
        position[first, individual, keypoint] * (1 - share)
        + position[last, individual, keypoint] * share
    )
    step = f"{len(at)} points interpolated, in gaps of at most {max_gap} frames"
    return record.with_position(filled, step)
