"""What an annotation format has to offer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Labels:
    """The behaviours of one recording, frame by frame.

    Parameters
    ----------
    behaviors : tuple of str
        Names of the behaviours.
    active : ndarray
        (frames, behaviours), bool.
    listed : bool
        Whether the file names every behaviour, also those that never come up.
    """

    behaviors: tuple[str, ...]
    active: np.ndarray
    listed: bool = True

    def over(self, behaviors: tuple[str, ...]) -> "Labels":
        """Return the labels over other behaviours, among which all own ones are."""
        active = np.zeros((len(self.active), len(behaviors)), dtype=bool)
        for number, name in enumerate(self.behaviors):
            active[:, behaviors.index(name)] = self.active[:, number]
        return replace(self, behaviors=behaviors, active=active)


@dataclass(frozen=True)
class LabelReader:
    """A format of annotation files.

    Parameters
    ----------
    patterns : tuple of str
        Names of its files, as shell patterns; letter case does not matter.
    read : callable
        ``read(file, frames, fps, start_s=0.0)`` reads one file of a recording with so many frames,
        at so many per second (None if unknown), of which the first is at `start_s` seconds of the
        video. Raises DataError, OSError or ValueError when it cannot.
    events : bool
        Whether files list what happened, so that a behaviour that never did is not in them. Else
        they name every behaviour, and all files must name the same.
    names : callable, optional
        ``names(file)`` returns the behaviours that a file names, without regard to its frames;
        default: the whole recording is read for them.
    frame_rate : callable, optional
        ``frame_rate(file)`` returns the frame rate that a file states, or None.
    """

    patterns: tuple[str, ...]
    read: Callable[..., Labels]
    events: bool = False
    names: Callable[[Path], tuple[str, ...]] | None = None
    frame_rate: Callable[[Path], float | None] | None = None

    def find(self, folder: Path) -> list[Path]:
        """List the annotation files of a recording's folder."""
        return [
            file
            for file in sorted(folder.iterdir())
            if any(fnmatch(file.name.lower(), pattern) for pattern in self.patterns)
        ]
