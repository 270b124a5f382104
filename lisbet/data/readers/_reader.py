"""What a format has to offer."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import xarray as xr

from lisbet.data.record import Record
from lisbet.errors import DataError


@dataclass(frozen=True)
class Reader:
    """A format of tracking files.

    Parameters
    ----------
    patterns : tuple of str
        Names of its files, as shell patterns; letter case does not matter.
    read : callable, optional
        Reads the matching files of one folder into one dataset of the movement format. Raises
        DataError, OSError or ValueError when they cannot be read.
    head : callable, optional
        Reads as `read` does, but of the frames only the first ones: for the names along the axes.
    whole : callable, optional
        Instead: reads a whole dataset of prepared recordings, ``whole(path, annotated=…)``.
    """

    patterns: tuple[str, ...]
    read: Callable[[list[Path]], xr.Dataset] | None = None
    whole: Callable[..., list[Record]] | None = None
    head: Callable[[list[Path]], xr.Dataset] | None = None

    def matches(self, name: str) -> bool:
        """Whether a file of this name belongs to the format."""
        return any(fnmatch(name.lower(), pattern.lower()) for pattern in self.patterns)


def plural(dataset: xr.Dataset) -> xr.Dataset:
    """Name the dimensions as older releases of movement do; newer ones use the singular."""
    names = {"individual": "individuals", "keypoint": "keypoints"}
    return dataset.rename({new: old for new, old in names.items() if new in dataset.dims})


def only(files: list[Path]) -> Path:
    """Return the one file of a folder, for formats that keep a recording in one."""
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise DataError(f"{len(files)} tracking files in one folder ({names}); leave one")
    return files[0]
