"""What a format has to offer: a reader of recordings, or a reader of whole datasets."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import xarray as xr

from lisbet.core.config import DataPath
from lisbet.core.errors import DataError
from lisbet.data.readers._peek import Peek
from lisbet.data.record import Record


@dataclass(frozen=True)
class Kind:
    """What a file is, found by looking into it.

    Parameters
    ----------
    name : str
        Its name, for messages: "DeepLabCut table".
    usable : bool
        Whether tracks can be read from it.
    advice : str
        What to do with one that cannot be used.
    matters : bool
        Whether one that cannot be used holds the tracks of a video all the same.
    certain : bool
        Whether it was recognised by its content, not only by its name.
    general : bool
        Whether another format that recognises the file, too, describes it more exactly.
    spare : bool
        Whether it is read only if its folder has no other tracking file.
    """

    name: str
    usable: bool = True
    advice: str = ""
    matters: bool = False
    certain: bool = True
    general: bool = False
    spare: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {self.advice}" if self.advice else self.name


@dataclass(frozen=True)
class RecordingReader:
    """A format of tracking files: each recording has one, or one for each individual.

    Parameters
    ----------
    patterns : tuple of str
        Documented names of its files, as shell patterns; letter case does not matter.
    recognise : callable
        Says what a file is, or None if it is not of this format. Files of these names that are
        not recognised, because they are damaged, belong to the format as well.
    read : callable
        Reads the files of one recording into one dataset of the movement format. Raises
        DataError, OSError or ValueError when they cannot be read.
    head : callable, optional
        Reads as `read` does, but only the first frames, for the names along the axes; default:
        `read`.
    several : bool
        Whether a recording can have several files, one for each individual.
    """

    patterns: tuple[str, ...]
    recognise: Callable[[Peek], Kind | None]
    read: Callable[[list[Path]], xr.Dataset]
    head: Callable[[list[Path]], xr.Dataset] | None = None
    several: bool = False

    def matches(self, name: str) -> bool:
        """Whether a file of this name belongs to the format."""
        return any(fnmatch(name.lower(), pattern.lower()) for pattern in self.patterns)

    def read_head(self, files: list[Path]) -> xr.Dataset:
        """Read at least the first frames of a recording."""
        return (self.head or self.read)(files)


@dataclass(frozen=True)
class DatasetReader:
    """A format in which a whole dataset of recordings is stored.

    Parameters
    ----------
    recognises : callable
        Whether a path or address is a dataset of this format.
    read : callable
        ``read(path, annotated)`` returns its recordings, with their annotations if `annotated`;
        their tracks may be read later. Raises DataError or OSError.
    prepared : bool
        Whether the recordings are prepared, in [0, 1], so that the options of preparation cannot
        apply; else they are in pixels, in memory.
    """

    recognises: Callable[[DataPath], bool]
    read: Callable[[DataPath, bool], list[Record]]
    prepared: bool = True


def only(files: list[Path]) -> Path:
    """Return the one file of a folder, for formats that keep a recording in one."""
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise DataError(
            f"{len(files)} tracking files in one folder ({names}). Give each recording its own "
            "folder, or use --flat"
        )
    return files[0]
