"""Ranges of coordinates that few outliers do not change, and what outliers do to other ranges."""

import numpy as np

from lisbet.core.errors import DataError
from lisbet.data.preparation.numbers import CONSTANT
from lisbet.data.record import Record

PERCENTILES = (0.5, 99.5)
"""Between them lie the coordinates that decide the range of ``--data_scale=robust``."""
MARGIN = 0.25
"""So much is added on each side, as a share of the distance of the percentiles: animals go on."""
FEW = 0.01
"""Outliers are less than this share of the values of an axis."""
STRETCH = 1.25
"""Outliers are worth a word if the range is so many times as long with them."""


def _percentiles(record: Record) -> np.ndarray:
    """Return the percentiles of each axis, (2, space)."""
    flat = record.position.reshape(-1, record.position.shape[-1])
    present = flat[~np.isnan(flat[:, 0])].astype(np.float64)
    return np.percentile(present, PERCENTILES, axis=0)


def robust_range(record: Record) -> tuple[np.ndarray, float]:
    """Return the range of ``--data_scale=robust``.

    Parameters
    ----------
    record : Record
        In pixels, with a point that is not missing.

    Returns
    -------
    centre : ndarray
        (space,). Middle of each axis.
    extent : float
        Length of the range, the same along all axes.

    Raises
    ------
    DataError
        If almost all coordinates are the same.
    """
    low, high = _percentiles(record)
    extent = float((high - low).max())
    if not np.isfinite(extent) or extent <= CONSTANT * float(np.abs([low, high]).max()):
        axes = ", ".join(record.features.space)
        raise DataError(
            f"{axes} are the same almost everywhere ({', '.join(f'{v:.6g}' for v in low)}), so "
            "there is no range to scale by; pass the size of the video as --data_scale"
        )
    return (low + high) / 2, extent * (1 + 2 * MARGIN)


def outlier_note(record: Record) -> tuple[str, ...]:
    """Say for each axis what a few outliers do to its minimum and maximum, if they do.

    Parameters
    ----------
    record : Record
        In pixels.

    Returns
    -------
    tuple of str
        A sentence for each axis whose range a few values stretch.
    """
    if np.isnan(record.position[..., 0]).all():
        return ()
    low, high = _percentiles(record)
    notes = []
    for axis, name in enumerate(record.features.space):
        values = record.position[..., axis]
        values = values[~np.isnan(values)]
        margin = MARGIN * (high[axis] - low[axis])
        usual = values[(values >= low[axis] - margin) & (values <= high[axis] + margin)]
        few = len(values) - len(usual)
        if not few or few > FEW * len(values) or not len(usual):
            continue
        ranges = [(float(part.min()), float(part.max())) for part in (values, usual)]
        (first, last), (usual_first, usual_last) = ranges
        if last - first > STRETCH * (usual_last - usual_first):
            notes.append(
                f"{few} of {len(values)} values of {name} stretch its range from "
                f"{usual_first:.5g} … {usual_last:.5g} to {first:.5g} … {last:.5g}"
            )
    return tuple(notes)
