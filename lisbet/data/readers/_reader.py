"""What a format has to offer."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import xarray as xr

from lisbet.core.errors import DataError
from lisbet.data.readers._peek import Peek
from lisbet.data.record import Record


@dataclass(frozen=True)
class Kind:
    """What a file is, found by looking into it.

    Parameters
    ----------
    name : str
        What it is, for messages: "DeepLabCut table".
    usable : bool
        Whether tracks can be read from it.
    advice : str
        What to do with one that cannot be used.
    matters : bool
        Whether one that cannot be used holds the tracks of a video all the same.
    certain : bool
        Whether it was recognised by what is in it, not only by its name.
    """

    name: str
    usable: bool = True
    advice: str = ""
    matters: bool = False
    certain: bool = True

    def __str__(self) -> str:
        return f"{self.name}: {self.advice}" if self.advice else self.name


@dataclass(frozen=True)
class Reader:
    """A format of tracking files.

    Parameters
    ----------
    patterns : tuple of str
        Documented names of its files, as shell patterns; letter case does not matter.
    recognise : callable
        Says what a file is, or None if it is not of this format. Files of these names that are
        not recognised, because they are damaged, belong to the format as well.
    read : callable, optional
        Reads the files of one recording into one dataset of the movement format. Raises
        DataError, OSError or ValueError when they cannot be read.
    head : callable, optional
        Reads as `read` does, but of the frames only the first ones: for the names along the axes.
    whole : callable, optional
        Instead: reads a whole dataset of prepared recordings, ``whole(path, annotated=…)``.
    several : bool
        Whether a recording can have several files, one for each individual.
    """

    patterns: tuple[str, ...]
    recognise: Callable[[Peek], Kind | None]
    read: Callable[[list[Path]], xr.Dataset] | None = None
    whole: Callable[..., list[Record]] | None = None
    head: Callable[[list[Path]], xr.Dataset] | None = None
    several: bool = False

    def matches(self, name: str) -> bool:
        """Whether a file of this name belongs to the format."""
        return any(fnmatch(name.lower(), pattern.lower()) for pattern in self.patterns)


def only(files: list[Path]) -> Path:
    """Return the one file of a folder, for formats that keep a recording in one."""
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise DataError(f"{len(files)} tracking files in one folder ({names}); leave one")
    return files[0]
