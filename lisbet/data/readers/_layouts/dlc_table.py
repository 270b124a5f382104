"""Tables in DeepLabCut's layout, by the names of their columns."""

import logging
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xarray as xr

from lisbet.core.errors import DataError
from lisbet.data.files.limits import require_memory, shape_text

log = logging.getLogger(__name__)

LEVELS = ("scorer", "individuals", "bodyparts", "coords")
SPACE, CONFIDENCE = ("x", "y", "z"), "likelihood"
ALONE = "individual_0"
"""Name of the individual in a table that names none."""
MOST_MISSING, ALWAYS_FINE = 10, 1000
"""A video may have so many times the frames of its table, or so many at all."""


class Column(NamedTuple):
    """What a column holds."""

    individual: str
    keypoint: str
    coordinate: str

    def __str__(self) -> str:
        names = (self.keypoint, self.coordinate)
        return " ".join(names if self.individual == ALONE else (self.individual, *names))


@dataclass(frozen=True)
class Table:
    """A table as its file has it.

    Parameters
    ----------
    columns : list of Column
        What each column is, in the order of the file.
    frames : ndarray
        Number of the frame of each row, (rows).
    values : ndarray
        (rows, columns).
    """

    columns: list[Column]
    frames: np.ndarray
    values: np.ndarray


def columns_of(levels: dict[str, list[str]], name: str) -> list[Column]:
    """Return what each column is, from the cells of the header rows.

    Raises
    ------
    DataError
        If there is no row of body parts or coordinates, or a name is empty or used twice.
    """
    if lacking := [level for level in ("bodyparts", "coords") if level not in levels]:
        raise DataError(
            f"{name} has no header row {' and '.join(lacking)}; expected the header rows of a "
            f"DeepLabCut table, with {', '.join(LEVELS)} in the first column. Export it again"
        )
    keypoints, coordinates = levels["bodyparts"], levels["coords"]
    individuals = levels.get("individuals", [ALONE] * len(keypoints))
    columns = [
        Column(individual.strip(), keypoint.strip(), coordinate.strip().lower())
        for individual, keypoint, coordinate in zip(
            individuals, keypoints, coordinates, strict=True
        )
    ]
    for number, column in enumerate(columns):
        if "" in column:
            raise DataError(
                f"{name}: column {number + 2} has no name in a header row (found: "
                f"{', '.join(column)}); expected a name in each. Export the file again"
            )
    if len(set(columns)) < len(columns):
        twice = next(column for column in columns if columns.count(column) > 1)
        raise DataError(
            f"{name} has two columns {twice}; expected each once. Remove one, or export it again"
        )
    return columns


def is_lightning_pose(levels: dict[str, list[str]]) -> bool:
    """Whether the cells of the header rows are those that Lightning Pose writes.

    Its scorer is the name of a model and "_tracker" ("heatmap_tracker"; "ensemble-kalman_tracker"
    for EKS), and it has no row of individuals.
    """
    scorers = {scorer.strip() for scorer in levels.get("scorer", [])}
    return (
        bool(scorers)
        and all(scorer.endswith("_tracker") for scorer in scorers)
        and "individuals" not in levels
        and {"bodyparts", "coords"} <= levels.keys()
    )


def to_dataset(
    table: Table, name: str, *, head: bool = False, software: str = "DeepLabCut"
) -> xr.Dataset:
    """Return a table as a dataset of the movement format.

    Points of which the table has no columns, and frames that it has no rows for, are missing.

    Parameters
    ----------
    table : Table
        What was read from the file.
    name : str
        Its name, for messages.
    head : bool
        Whether the table has only the first rows, so that frame numbers do not matter.
    software : str
        What wrote it.

    Returns
    -------
    xarray.Dataset
        `position` (time, space, keypoints, individuals) and `confidence` (time, keypoints,
        individuals), NaN where the table has no likelihood.

    Raises
    ------
    DataError
        If a coordinate of a point is lacking, or the frame numbers cannot be used.
    """
    place = {column: number for number, column in enumerate(table.columns)}
    points = list(dict.fromkeys((column.individual, column.keypoint) for column in table.columns))
    space = _axes(table, points, name)
    individuals = list(dict.fromkeys(individual for individual, _ in points))
    keypoints = list(dict.fromkeys(keypoint for _, keypoint in points))
    rows = np.arange(len(table.frames)) if head else _rows(table.frames, name)
    frames = int(rows[-1]) + 1 if len(rows) else 0
    shape = (frames, len(space), len(keypoints), len(individuals))
    require_memory(name, 8 * frames * len(keypoints) * len(individuals) * 3,
                   shape_text("position", shape))  # fmt: skip
    position = np.full(shape, np.nan)
    confidence = np.full((shape[0], *shape[2:]), np.nan)
    for individual, keypoint in points:
        at = (keypoints.index(keypoint), individuals.index(individual))
        for axis, coordinate in enumerate(space):
            own = place[Column(individual, keypoint, coordinate)]
            position[rows, axis, *at] = table.values[:, own]
        stated = place.get(Column(individual, keypoint, CONFIDENCE))
        if stated is not None:
            confidence[rows, *at] = table.values[:, stated]
    return xr.Dataset(
        {
            "position": (("time", "space", "keypoints", "individuals"), position),
            "confidence": (("time", "keypoints", "individuals"), confidence),
        },
        coords={
            "time": np.arange(frames), "space": space, "keypoints": keypoints,
            "individuals": individuals,
        },
        attrs={"source_software": software, "time_unit": "frames"},
    )  # fmt: skip


def _axes(table: Table, points: list[tuple[str, str]], name: str) -> list[str]:
    """Return the axes of a table, all of which every point must have."""
    columns = set(table.columns)
    space = [axis for axis in SPACE if axis in "xy" or any(c.coordinate == axis for c in columns)]
    for point in points:
        if lacking := [axis for axis in space if Column(*point, axis) not in columns]:
            raise DataError(
                f"{name} has no column {Column(*point, lacking[0])}; expected "
                f"{', '.join(space)} for each point. Export the file again"
            )
    used = {*space, CONFIDENCE}
    if ignored := dict.fromkeys(c.coordinate for c in table.columns if c.coordinate not in used):
        log.info("%s: columns %s are not used", name, ", ".join(ignored))
    return space


def _rows(frames: np.ndarray, name: str) -> np.ndarray:
    """Check the frame numbers, and return them as whole numbers."""
    if not len(frames):
        return np.zeros(0, np.int64)
    if frames.dtype.kind not in "iuf" or not (np.mod(frames, 1) == 0).all() or frames.min() < 0:
        bad = next((f for f in frames.tolist() if not _is_frame(f)), frames[0])
        raise DataError(
            f"{name}: the first column holds {bad!r}; expected the number of the frame, from 0. "
            "Correct it, or export the file again"
        )
    numbers = frames.astype(np.int64)
    steps = np.diff(numbers)
    if len(wrong := np.flatnonzero(steps <= 0)):
        at = int(wrong[0])
        raise DataError(
            f"{name}: after frame {numbers[at]} comes frame {numbers[at + 1]}; expected frame "
            "numbers in the first column that increase. Sort or correct the rows, or export the "
            "file again"
        )
    last, rows = int(numbers[-1]), len(numbers)
    if last + 1 > max(MOST_MISSING * rows, ALWAYS_FINE):
        raise DataError(
            f"{name} has {rows} rows, but the last one is frame {last}; expected rows for at least "
            f"one in {MOST_MISSING} frames. Correct the frame numbers in its first column"
        )
    if lacking := last + 1 - rows:
        first = int(numbers[np.flatnonzero(steps > 1)[0]]) + 1 if numbers[0] == 0 else 0
        log.info(
            "%s has no rows for %d of %d frames, the first is frame %d: taken for missing",
            name, lacking, last + 1, first,
        )  # fmt: skip
    return numbers


def _is_frame(value: object) -> bool:
    return isinstance(value, int | float) and value >= 0 and value % 1 == 0
